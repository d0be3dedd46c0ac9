"""What a cluster is made of, in words that fit every substrate: nodes, clients, and their links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from labs.harness.links.control import Link

State = Literal["running", "paused", "stopped"]

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One replica process: its name, the service it runs and that service's own settings.

    `service` is the name of a package below `services` (`"kv"`), or a dotted module with
    `main(environ) -> int`. The testbed adds where the node listens, finds its peers and keeps its
    data, under keys that begin with `prefix`.
    """

    name: str
    service: str
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def module(self) -> str:
        return self.service if "." in self.service else f"services.{self.service}"

    @property
    def prefix(self) -> str:
        """What the service's environment keys begin with: `KV` in `KV_LISTEN`."""
        return self.service.rpartition(".")[2].upper()


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Nodes, and the client groups that dial them; with `peers`, the nodes dial each other too.

    A client group is a *place* that clients dial from: it has links of its own, so that it can be
    cut off together with the nodes of its side.
    """

    name: str
    nodes: tuple[NodeSpec, ...]
    clients: tuple[str, ...] = ()
    peers: bool = True

    def __post_init__(self) -> None:
        names = [*self.node_names, *self.clients]
        if not self.nodes:
            raise ValueError(f"cluster {self.name!r} has no nodes")
        if len(set(names)) != len(names):
            raise ValueError(f"cluster {self.name!r} names something twice: {', '.join(names)}")

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes)

    @property
    def links(self) -> tuple[Link, ...]:
        """Every directed link: each client group to each node, each node to each other node."""
        nodes = self.node_names
        from_clients = [Link(client, node) for client in self.clients for node in nodes]
        between_peers = [Link(a, b) for a in nodes for b in nodes if a != b and self.peers]
        return (*from_clients, *between_peers)


def kv_cluster(
    nodes: int = 5,
    *,
    protocol: str,
    clients: tuple[str, ...] = ("c1", "c2"),
    environment: Mapping[str, str] = NO_ENVIRONMENT,
    name: str = "",
) -> ClusterSpec:
    """A replicated store of `nodes` nodes, `n1` … , all with the same settings.

    Clock faults are switched on (`KV_FAULT_INJECTION`); `environment` may override any setting.
    """
    settings = {"KV_PROTOCOL": protocol, "KV_FAULT_INJECTION": "on", **environment}
    specs = tuple(NodeSpec(f"n{i}", "kv", settings) for i in range(1, nodes + 1))
    return ClusterSpec(name or protocol.replace("_", "-"), specs, clients)
