"""The protocols that the store can run on, by their name in KV_PROTOCOL."""

from __future__ import annotations

from typing import Any, NamedTuple

from services.chassis.config import NodeConfig
from services.chassis.node import Chance, MakeCore
from services.protocols import paxos, primary_backup, raft, viewstamped, zab
from services.protocols.core import Core

NONCE_BITS = 52


class Protocol(NamedTuple):
    """How to make a core, and the types of what it sends and persists."""

    make: MakeCore
    messages: tuple[type, ...]
    records: tuple[type, ...]


def _maker(core: Any) -> MakeCore:
    """For cores that are made of what every protocol needs, and nothing else."""

    def make(config: NodeConfig, chance: Chance, records: list[Any]) -> Core:
        made: Core = core(config.node, tuple(config.peers), **_usual(config, chance, records))
        return made

    return make


def _usual(config: NodeConfig, chance: Chance, records: list[Any]) -> dict[str, Any]:
    return {
        "random": chance.seeded,
        "records": records,
        "election_ticks": config.election_ticks,
        "heartbeat_ticks": config.heartbeat_ticks,
    }


def _primary_backup(config: NodeConfig, chance: Chance, records: list[Any]) -> Core:
    return primary_backup.PrimaryBackup(
        config.node,
        tuple(config.peers),
        acknowledgement=config.acknowledgement,
        promotion=config.promotion,
        **_usual(config, chance, records),
    )


def _viewstamped(config: NodeConfig, chance: Chance, records: list[Any]) -> Core:
    return viewstamped.Viewstamped(
        config.node,
        tuple(config.peers),
        # Not from `seeded`, which draws the same at every start: a node whose disk was wiped would
        # give its new disk the name of the old one, and be taken for it.
        nonce=1 + chance.fresh.getrandbits(NONCE_BITS),
        **_usual(config, chance, records),
    )


PROTOCOLS = {
    "raft": Protocol(_maker(raft.Raft), raft.MESSAGES, raft.RECORDS),
    "paxos": Protocol(_maker(paxos.Paxos), paxos.MESSAGES, paxos.RECORDS),
    "primary_backup": Protocol(_primary_backup, primary_backup.MESSAGES, primary_backup.RECORDS),
    "viewstamped": Protocol(_viewstamped, viewstamped.MESSAGES, viewstamped.RECORDS),
    "zab": Protocol(_maker(zab.Zab), zab.MESSAGES, zab.RECORDS),
}
