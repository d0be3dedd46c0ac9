"""The protocols that the store can run on, by their name in KV_PROTOCOL."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from services.chassis.config import NodeConfig
from services.protocols import paxos, primary_backup, raft
from services.protocols.core import Core


class Protocol(NamedTuple):
    """How to make a core, and the types of what it sends and persists."""

    make: Callable[[NodeConfig, Random, list[Any]], Core]
    messages: tuple[type, ...]
    records: tuple[type, ...]


def _raft(config: NodeConfig, random: Random, records: list[Any]) -> Core:
    return raft.Raft(
        config.node,
        tuple(config.peers),
        random=random,
        records=records,
        election_ticks=config.election_ticks,
        heartbeat_ticks=config.heartbeat_ticks,
    )


def _paxos(config: NodeConfig, random: Random, records: list[Any]) -> Core:
    return paxos.Paxos(
        config.node,
        tuple(config.peers),
        random=random,
        records=records,
        election_ticks=config.election_ticks,
        heartbeat_ticks=config.heartbeat_ticks,
    )


def _primary_backup(config: NodeConfig, random: Random, records: list[Any]) -> Core:
    return primary_backup.PrimaryBackup(
        config.node,
        tuple(config.peers),
        random=random,
        records=records,
        election_ticks=config.election_ticks,
        heartbeat_ticks=config.heartbeat_ticks,
        acknowledgement=config.acknowledgement,
        promotion=config.promotion,
    )


PROTOCOLS = {
    "raft": Protocol(_raft, raft.MESSAGES, raft.RECORDS),
    "paxos": Protocol(_paxos, paxos.MESSAGES, paxos.RECORDS),
    "primary_backup": Protocol(_primary_backup, primary_backup.MESSAGES, primary_backup.RECORDS),
}
