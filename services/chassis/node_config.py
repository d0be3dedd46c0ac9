"""Configuration of a replica: what `config.ServiceConfig` says, and how its protocol runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import (
    PEERS_MAX,
    ConfigError,
    Invalid,
    Parser,
    ServiceConfig,
    choice,
    integer,
    load,
    switch,
)
from services.protocols.gossip.rumours import Spread
from services.protocols.multi_leader import TOPOLOGIES
from services.protocols.quorum.core import Conflicts

_OUTSIDE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig(ServiceConfig):
    """What a store node needs to know. `read_slots`, `read_ms`: the capacity for reads
    (`capacity.Capacity`); of writes the log makes batches."""

    data_dir: Path
    protocol: str = "raft"
    acknowledgement: str = "asynchronous"
    promotion: str = "none"
    tick_ms: int = 15
    election_ticks: int = 20
    heartbeat_ticks: int = 3
    fsync: str = "always"
    snapshot_entries: int = 10_000
    read_slots: int = 0
    read_ms: int = 0
    # Of a store without a leader; of the first three 0 means every node, a majority, a majority.
    replicas: int = 0
    read_quorum: int = 0
    write_quorum: int = 0
    sloppy: bool = False
    conflicts: Conflicts = "siblings"
    anti_entropy_ticks: int = 30
    read_repair: bool = True
    hinted_handoff: bool = True
    # Of a store with many leaders; 0 leaders means every node.
    topology: str = "all-to-all"
    leaders: int = 0
    # Of a store that gossips: how rumours are told, and how many others a round tells them to.
    gossip_spread: Spread = "push"
    gossip_fanout: int = 2
    gossip_stop_after: int = 2
    gossip_ticks: int = 1

    def check(self, prefix: str) -> None:
        ServiceConfig.check(self, prefix)  # `super()` knows no class that was remade with slots
        if self.heartbeat_ticks > self.election_ticks // 2:
            # One lost heartbeat of a healthy leader would be enough for its followers to campaign.
            raise ConfigError(
                f"{prefix}HEARTBEAT_TICKS={self.heartbeat_ticks}: allowed is at most half of "
                f"{prefix}ELECTION_TICKS={self.election_ticks}"
            )
        if self.acknowledgement == "semi_synchronous" and not self.peers:
            raise ConfigError(
                f"{prefix}ACKNOWLEDGEMENT=semi_synchronous: allowed only with a backup in "
                f"{prefix}PEERS"
            )
        replicas = self.replicas or len(self.peers) + 1
        for name in ("replicas", "leaders", "read_quorum", "write_quorum"):
            of_nodes = name in ("replicas", "leaders")
            most = len(self.peers) + 1 if of_nodes else replicas
            if getattr(self, name) > most:
                raise ConfigError(
                    f"{prefix}{name.upper()}={getattr(self, name)}: allowed is at most {most}, "
                    f"for there are not more {'nodes' if of_nodes else 'replicas'}"
                )


_shipped = choice(
    # a log, and one who orders it
    *("raft", "paxos", "viewstamped", "zab", "chain", "primary_backup"),
    # a replica takes writes by itself
    *("quorum", "gossip", "multi_leader", "causal"),
)


def _protocol(text: str) -> str:
    """A shipped protocol, or `package.module:NAME` of another core (the service looks it up)."""
    if ":" not in text:
        return _shipped(text)
    if not _OUTSIDE.fullmatch(text):
        raise Invalid("a protocol's name, or package.module:NAME of a core outside of the service")
    return text


_PARSERS: dict[str, Parser] = {
    "protocol": _protocol,
    "acknowledgement": choice("asynchronous", "semi_synchronous", "synchronous"),
    "promotion": choice("naive", "longest_log", "none"),
    "tick_ms": integer(1, 10_000, "ms"),
    "election_ticks": integer(2, 10_000, "ticks"),
    "heartbeat_ticks": integer(1, 1_000, "ticks"),
    "fsync": choice("always", "never"),
    "snapshot_entries": integer(1, 100_000_000, "entries"),
    "read_slots": integer(0, 10_000, "requests at a time"),
    "read_ms": integer(0, 60_000, "ms"),
    "replicas": integer(0, PEERS_MAX + 1),
    "topology": choice(*TOPOLOGIES),
    "leaders": integer(0, PEERS_MAX + 1),
    "read_quorum": integer(0, PEERS_MAX + 1),
    "write_quorum": integer(0, PEERS_MAX + 1),
    "sloppy": switch,
    "conflicts": choice("siblings", "last-write-wins"),
    "anti_entropy_ticks": integer(0, 1_000_000, "ticks"),
    "read_repair": switch,
    "hinted_handoff": switch,
    "gossip_spread": choice("push", "pull", "push-pull"),
    "gossip_fanout": integer(1, PEERS_MAX),
    "gossip_stop_after": integer(1, 100),
    "gossip_ticks": integer(1, 10_000, "ticks"),
}


def load_node(environ: Mapping[str, str], prefix: str = "KV_") -> NodeConfig:
    """The checked configuration of a replica. Raises ConfigError with one line for a human."""
    return load(NodeConfig, environ, prefix, _PARSERS)
