"""The shop as a cluster: gateway → load balancer → orders → inventory → store."""

from __future__ import annotations

from collections.abc import Mapping

from labs.harness.testbed.description import NO_ENVIRONMENT, ClusterSpec, NodeSpec

GATEWAY, BALANCER = "gateway", "balancer"
# On a busy machine, or over slow links, health checks and heartbeats take their time; who is
# ejected and who leads is not what a lab of the shop is about.
PATIENT = {"LOAD_BALANCER_HEALTH_TIMEOUT_MS": "2000"}
STORE = {"KV_PROTOCOL": "raft", "KV_FAULT_INJECTION": "on", "KV_ELECTION_TICKS": "50"}


def shop_cluster(
    *,
    name: str = "shop",
    orders: int = 2,
    inventories: int = 1,
    store: int = 3,
    clients: tuple[str, ...] = ("c1",),
    settings: Mapping[str, Mapping[str, str]] = NO_ENVIRONMENT,  # type: ignore[assignment]
) -> ClusterSpec:
    """Every service of the shop, replicated as asked for; the store is Raft's.

    `settings`: by service ("gateway", "balancer", "orders", "inventory", "store"), under the full
    names of their keys. A node dials only whom it needs, so that every link is one that orders
    travel.
    """
    nodes = [f"n{number}" for number in range(1, store + 1)]
    inventory = _replicas("inventory", inventories)
    order = _replicas("orders", orders)

    def of(service: str, **own: str) -> dict[str, str]:
        return {**own, **settings.get(service, {})}

    environment = of("gateway", GATEWAY_ORDERS=BALANCER)
    specs = [
        NodeSpec(GATEWAY, "services.shop.gateway", environment, (BALANCER,)),
        NodeSpec(BALANCER, "load_balancer", of("balancer", **PATIENT), tuple(order)),
    ]
    for each in order:
        environment = of("orders", ORDERS_INVENTORY=",".join(inventory),
                         ORDERS_STORE=",".join(nodes))  # fmt: skip
        specs.append(NodeSpec(each, "services.shop.orders", environment, (*inventory, *nodes)))
    for each in inventory:
        environment = of("inventory", INVENTORY_STORE=",".join(nodes))
        specs.append(NodeSpec(each, "services.shop.inventory", environment, tuple(nodes)))
    for each in nodes:
        others = tuple(other for other in nodes if other != each)
        environment = of("store", **STORE)
        specs.append(NodeSpec(each, "kv", environment, others))
    return ClusterSpec(name, tuple(specs), clients)


def _replicas(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
