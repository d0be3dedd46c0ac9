"""The shop as tasks of the test's own event loop, over real sockets: gateway to store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from services.chassis.machine import Machine
from services.chassis.service import Service
from services.shop import gateway, inventory, orders
from services.shop.client import ShopClient
from tests.services.cluster import Cluster, cluster

Make = Callable[[Mapping[str, str], Machine], Service]


@dataclass
class Shop:
    """One of each role; `address`: "host:port" by name."""

    directory: Path
    store: Cluster
    address: dict[str, str]
    roles: dict[str, Service] = field(default_factory=dict)

    async def start(self, name: str, make: Make, prefix: str, **settings: str) -> None:
        """A role that listens on a free port and dials whoever has been started before it."""
        environ = {
            "NODE": name,
            "LISTEN": "127.0.0.1:0",
            "PEERS": ",".join(f"{peer}={address}" for peer, address in self.address.items()),
            "TELEMETRY": str(self.directory / f"{name}.jsonl"),
            **{key.upper(): value for key, value in settings.items()},
        }
        role = make({f"{prefix}{key}": value for key, value in environ.items()}, Machine())
        await role.start()
        self.roles[name] = role
        self.address[name] = f"127.0.0.1:{role.app.port}"

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the role, or the node of the store, has told."""
        if name not in self.roles:
            return self.store.events(name)
        self.roles[name].telemetry.flush()
        lines = (self.directory / f"{name}.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line) for line in lines]


@asynccontextmanager
async def shop(
    directory: Path, nodes: int = 1, **settings: Mapping[str, str]
) -> AsyncIterator[tuple[Shop, ShopClient]]:
    """A running shop and a customer. `settings`: by role."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(cluster(directory, nodes, protocol="raft"))
        names = ",".join(store.addresses)
        made = Shop(directory, store, dict(store.addresses))
        for name, make, prefix, own in (
            ("inventory", inventory.make, inventory.PREFIX, {"store": names}),
            ("orders", orders.make, orders.PREFIX, {"store": names, "inventory": "inventory"}),
            ("gateway", gateway.make, gateway.PREFIX, {"orders": "orders"}),
        ):
            await made.start(name, make, prefix, **{**own, **settings.get(name, {})})
            stack.push_async_callback(made.roles[name].stop)
        client = await stack.enter_async_context(ShopClient(made.address["gateway"]))
        yield made, client
