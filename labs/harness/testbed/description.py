"""What a cluster is made of, in words that fit every substrate.

Nodes run the project's own services; members (Redis, Kafka …) run somebody else's server; client
groups only dial. Links join them, one for each direction in which connections are opened.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from labs.harness.links.control import Link
from labs.harness.testbed.members import KINDS

State = Literal["running", "paused", "stopped"]
MemberKind = str  # a key of `members.KINDS`

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})

_MEMBER = re.compile(r"[a-z][a-z0-9-]{0,31}")
_FILE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One replica process: its name, the service it runs and that service's own settings.

    `service` is the name of a package below `services` (`"kv"`), or a dotted module with
    `main(environ) -> int`. The testbed adds where the node listens, finds its peers and keeps its
    data, under keys that begin with `prefix`.

    `dials` names the nodes and members that it opens connections to, and so has links to; by
    default every other node (where the cluster's nodes are `peers`) and every member.
    """

    name: str
    service: str
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    dials: tuple[str, ...] | None = None

    @property
    def module(self) -> str:
        return self.service if "." in self.service else f"services.{self.service}"

    @property
    def prefix(self) -> str:
        """What the service's environment keys begin with: `KV` in `KV_LISTEN`."""
        return self.service.rpartition(".")[2].upper()


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """A server of somebody else's beside the nodes, such as Redis, or Kafka as a single broker.

    `kind` is a key of `members.KINDS`. `settings` go to the server in its own words and win over
    the testbed's (`{"appendfsync": "always"}` to Redis); where it listens and keeps its data is the
    testbed's business. `files` are texts by name, for kinds that read some. The kind's module says
    what its settings and files are, and how a service should connect.

    A node finds a member at `MEMBER_<NAME>`, which holds "host:port" of the node's own link to it:
    `MEMBER_REDIS` for "redis", `MEMBER_EVENT_LOG` for "event-log". The key has not the service's
    prefix, because a service refuses keys of its prefix that it does not know, and not every
    service of a cluster uses every member.

    `optional`: on a machine that has no such server the cluster goes without it, and without the
    nodes whose `dials` name it; a lab sees that in `cluster.members`, and says what it `needs`.
    """

    name: str
    kind: MemberKind
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    files: Mapping[str, str] = field(default_factory=dict, hash=False)
    optional: bool = False

    def __post_init__(self) -> None:
        if not _MEMBER.fullmatch(self.name):
            raise ValueError(f"a member is named like redis or event-log, not {self.name!r}")
        if self.kind not in KINDS:
            kinds = ", ".join(KINDS)
            raise ValueError(f"member {self.name}: kind is one of {kinds}, not {self.kind!r}")
        if self.files and not KINDS[self.kind].takes_files:
            raise ValueError(f"member {self.name}: {self.kind} reads no files")
        for name in self.files:
            if not _FILE.fullmatch(name):
                raise ValueError(f"member {self.name}: no name of a file: {name!r}")

    @property
    def environment_key(self) -> str:
        return f"MEMBER_{self.name.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Nodes, members, and the client groups that dial them; with `peers`, nodes dial each other.

    A client group is a *place* that clients dial from: it has links of its own, so that it can be
    cut off together with the nodes of its side. Members open no connections, but for those of a
    kind that does (Prometheus): they dial every node, and no node dials them unless it says so.
    """

    name: str
    nodes: tuple[NodeSpec, ...]
    clients: tuple[str, ...] = ()
    peers: bool = True
    members: tuple[MemberSpec, ...] = ()

    def __post_init__(self) -> None:
        names = [*self.node_names, *self.clients, *self.member_names]
        if not self.nodes and not self.members:
            raise ValueError(f"cluster {self.name!r} has no nodes")
        if len(set(names)) != len(names):
            raise ValueError(f"cluster {self.name!r} names something twice: {', '.join(names)}")
        dialled = {name for node in self.nodes for name in node.dials or ()}
        if strangers := dialled - {*self.node_names, *self.member_names}:
            raise ValueError(f"cluster {self.name!r} has no {', '.join(sorted(strangers))} to dial")

    def without(self, members: Collection[str]) -> ClusterSpec:
        """The same without these members and the nodes whose `dials` name one of them."""
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if not {*(node.dials or ())} & {*members}),
            members=tuple(member for member in self.members if member.name not in members),
        )

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes)

    @property
    def member_names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    @property
    def links(self) -> tuple[Link, ...]:
        """Every directed link: each client group to each node and member, and each node and member
        to those that it dials."""
        from_clients = [Link(client, node) for client in self.clients for node in self.node_names]
        between_nodes = [Link(a, b) for a in self.node_names for b in self.peers_of(a)]
        from_members = [Link(a, b) for a in self.member_names for b in self.peers_of(a)]
        to_members = [Link(src, member) for src in (*self.clients, *self.node_names)
                      for member in self.members_of(src)]  # fmt: skip
        return (*from_clients, *between_nodes, *to_members, *from_members)

    def peers_of(self, name: str) -> tuple[str, ...]:
        """The nodes that the node or member of that name dials."""
        if name in self.member_names:
            return self.node_names if self._member_dials(name) else ()
        dials = self._dials(name)
        if dials is not None:
            return tuple(peer for peer in dials if peer in self.node_names)
        return tuple(peer for peer in self.node_names if peer != name and self.peers)

    def members_of(self, name: str) -> tuple[str, ...]:
        """The members that the node or client group of that name dials."""
        dials = self._dials(name)
        if dials is None and name in self.node_names:
            return tuple(each for each in self.member_names if not self._member_dials(each))
        return tuple(each for each in self.member_names if dials is None or each in dials)

    def _member_dials(self, name: str) -> bool:
        return KINDS[self.member(name).kind].dials_nodes

    def _dials(self, name: str) -> tuple[str, ...] | None:
        return next((node.dials for node in self.nodes if node.name == name), None)

    def member(self, name: str) -> MemberSpec:
        """The member of that name. Raises KeyError."""
        return {member.name: member for member in self.members}[name]

    def links_to(self, name: str) -> tuple[Link, ...]:
        return tuple(link for link in self.links if link.dst == name)


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


def lease_cluster(
    nodes: int = 3,
    *,
    fencing: bool,
    workers: tuple[str, ...] = ("w1", "w2", "w3"),
    clients: tuple[str, ...] = ("c1",),
    store: Mapping[str, str] = NO_ENVIRONMENT,
    worker: Mapping[str, str] = NO_ENVIRONMENT,
    name: str = "",
) -> ClusterSpec:
    """Workers of which one holds a lease, a Raft store of `nodes` nodes that keeps it, and `r1`,
    the resource that the holder writes to.

    `store` and `worker`: further settings of those.
    """
    names = [f"n{i}" for i in range(1, nodes + 1)]
    store = {"KV_FAULT_INJECTION": "on", **store}
    worker = {"WORKER_RESOURCE": "r1", "WORKER_FAULT_INJECTION": "on", **worker}
    specs = (
        *(NodeSpec(n, "kv", store, dials=tuple(p for p in names if p != n)) for n in names),
        *(NodeSpec(each, "worker", worker, dials=(*names, "r1")) for each in workers),
        NodeSpec("r1", "resource", {"RESOURCE_FENCING": "on" if fencing else "off"}, dials=()),
    )
    return ClusterSpec(name or f"lease-{'fenced' if fencing else 'unfenced'}", specs, clients)


def joined(specs: Sequence[ClusterSpec]) -> ClusterSpec:
    """One cluster with the nodes of all of `specs`, which have the same members and clients, and
    no peers: those of one variant would replicate with those of another.

    A node that several of them describe in the same words is one node. Raises ValueError when one
    name is described in two ways.
    """
    nodes: list[NodeSpec] = []
    for spec in specs:
        assert (spec.members, spec.clients) == (specs[0].members, specs[0].clients), spec.name
        assert len(specs) == 1 or not spec.peers, spec.name
        nodes += [node for node in spec.nodes if node not in nodes]
    return replace(specs[0], nodes=tuple(nodes))
