"""The protocols that the store can run on, by their name in KV_PROTOCOL."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from services.chassis.config import NodeConfig
from services.protocols import paxos, primary_backup, raft, viewstamped, zab
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


def _viewstamped(config: NodeConfig, random: Random, records: list[Any]) -> Core:
    return viewstamped.Viewstamped(
        config.node,
        tuple(config.peers),
        random=random,
        # Not from `random`, whose seed is the same at every start: a node whose disk was wiped
        # would give its new disk the name of the old one, and be taken for it.
        nonce=1 + secrets.randbelow(1 << 52),
        records=records,
        election_ticks=config.election_ticks,
        heartbeat_ticks=config.heartbeat_ticks,
    )


def _zab(config: NodeConfig, random: Random, records: list[Any]) -> Core:
    return zab.Zab(
        config.node,
        tuple(config.peers),
        random=random,
        records=records,
        election_ticks=config.election_ticks,
        heartbeat_ticks=config.heartbeat_ticks,
    )


PROTOCOLS = {
    "raft": Protocol(_raft, raft.MESSAGES, raft.RECORDS),
    "paxos": Protocol(_paxos, paxos.MESSAGES, paxos.RECORDS),
    "primary_backup": Protocol(_primary_backup, primary_backup.MESSAGES, primary_backup.RECORDS),
    "viewstamped": Protocol(_viewstamped, viewstamped.MESSAGES, viewstamped.RECORDS),
    "zab": Protocol(_zab, zab.MESSAGES, zab.RECORDS),
}
