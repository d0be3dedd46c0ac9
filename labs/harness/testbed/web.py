"""Plain backends behind load balancers, beside a replicated store: as clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labs.harness.testbed.description import ClusterSpec, NodeSpec
from labs.harness.testbed.operator import OPERATOR_TOKEN

Settings = Mapping[str, str]


def web_cluster(
    name: str,
    *,
    balancers: Mapping[str, Settings],
    replicas: Sequence[Settings],
    spare: int = 0,
    store: int = 0,
    clients: tuple[str, ...] = ("c1", "c2"),
) -> ClusterSpec:
    """`web-1` … behind each of the balancers, and a store `n1` … of Raft's.

    Settings (by balancer, by replica) are under their full names. Nodes dial whom they need: a
    balancer all backends, the store's nodes each other. The last `spare` replicas are behind the
    first balancer alone, for an autoscaler. The operator may change balancers' backends.
    """
    backends = {f"web-{number}": own for number, own in enumerate(replicas, 1)}
    usual = tuple(backends)[: len(backends) - spare]
    dials = dict.fromkeys(balancers, usual) | {next(iter(balancers)): tuple(backends)}
    operated = {"LOAD_BALANCER_ADMIN": "on", "LOAD_BALANCER_ADMIN_TOKEN": OPERATOR_TOKEN}
    nodes = [f"n{number}" for number in range(1, store + 1)]
    kv = {"KV_PROTOCOL": "raft", "KV_FAULT_INJECTION": "on"}
    return ClusterSpec(
        name,
        (
            *(
                NodeSpec(each, "load_balancer", {**operated, **own}, dials[each])
                for each, own in balancers.items()
            ),
            *(NodeSpec(each, "web", own, ()) for each, own in backends.items()),
            *(
                NodeSpec(each, "kv", kv, tuple(other for other in nodes if other != each))
                for each in nodes
            ),
        ),
        clients,
    )
