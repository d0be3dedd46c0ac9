"""What a cluster is made of, in words that fit every substrate.

Nodes run the project's own services; members (Redis, Kafka) run somebody else's server; client
groups only dial. Links join them, one for each direction in which connections are opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from labs.harness.links.control import Link

State = Literal["running", "paused", "stopped"]
MemberKind = Literal["redis", "kafka"]

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})

_MEMBER = re.compile(r"[a-z][a-z0-9-]{0,31}")


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
class MemberSpec:
    """A server of somebody else's beside the nodes: Redis, or Kafka as a single broker.

    `settings` go to the server in its own words and win over the testbed's: of `redis.conf`
    (`{"appendfsync": "always"}`), or of Kafka's `server.properties`
    (`{"num.partitions": "3"}`). Where it listens and keeps its data is the testbed's business.

    A node finds a member at `MEMBER_<NAME>`, which holds "host:port" of the node's own link to it:
    `MEMBER_REDIS` for "redis", `MEMBER_EVENT_LOG` for "event-log". The key has not the service's
    prefix, because a service refuses keys of its prefix that it does not know, and not every
    service of a cluster uses every member.

    **How a service should connect** (behaviour measured through cut links, redis-py 8.1 and
    aiokafka 0.14):

    - Both clients dial again by themselves after a heal; no service needs to make a new one. A
      server that is not up yet, when nodes and members start together, is an error of the first
      call (Redis) or of `start()` (Kafka), so that one belongs into a retry loop.
    - Redis: give `retry=Retry(NoBackoff(), 0)` and a `socket_timeout` below the caller's deadline.
      By default redis-py sends a command up to eleven times, five seconds each: behind a cut a call
      takes a minute to fail, and one `INCR` whose answer was lost counted twice. A timeout is an
      indefinite error, and only a command that may happen twice should be sent again. Without
      retries the first command on a connection that broke while idle fails; that is the price.
    - Kafka: `bootstrap_servers` is the link, and every listener advertises its own link, so nothing
      else is to be set for clients to stay on it. Set `request_timeout_ms` (40 s by default) to
      what the caller can wait: behind a blackhole it is what ends a `send`. `retry_backoff_ms=50`
      and `metadata_max_age_ms=1000` find a broker again that has been killed and started. A send
      that timed out is indefinite as well: `enable_idempotence=True` (Apache Kafka alone) makes
      the producer's own retries write once.
    - A consumer that was cut off for longer than its `session_timeout_ms` (at least 6 s) has lost
      its partitions: its commit fails, it joins again, and it is given records a second time.
    """

    name: str
    kind: MemberKind
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not _MEMBER.fullmatch(self.name):
            raise ValueError(f"a member is named like redis or event-log, not {self.name!r}")
        if self.kind not in get_args(MemberKind):
            kinds = ", ".join(get_args(MemberKind))
            raise ValueError(f"member {self.name}: kind is one of {kinds}, not {self.kind!r}")

    @property
    def environment_key(self) -> str:
        return f"MEMBER_{self.name.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Nodes, members, and the client groups that dial them; with `peers`, nodes dial each other.

    A client group is a *place* that clients dial from: it has links of its own, so that it can be
    cut off together with the nodes of its side. Members open no connections.
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

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes)

    @property
    def member_names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    @property
    def links(self) -> tuple[Link, ...]:
        """Every directed link: each client group to each node, each node to each other node, and
        each client group and each node to each member."""
        nodes, members = self.node_names, self.member_names
        from_clients = [Link(client, node) for client in self.clients for node in nodes]
        between_peers = [Link(a, b) for a in nodes for b in nodes if a != b and self.peers]
        to_members = [Link(src, member) for src in (*self.clients, *nodes) for member in members]
        return (*from_clients, *between_peers, *to_members)

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
