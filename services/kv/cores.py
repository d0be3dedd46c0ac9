"""The protocols that the store can run on, by KV_PROTOCOL.

Shipped ones have a name (`raft`). `package.module:NAME` is a core from elsewhere that is derived
from one of them: what a lab breaks on purpose, to show what a rule is for, is never in here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from services.chassis.config import ConfigError
from services.chassis.node import Chance
from services.chassis.node_config import NodeConfig
from services.protocols import chain, paxos, primary_backup, raft, viewstamped, zab
from services.protocols.core import Core

NONCE_BITS = 52


class Protocol(NamedTuple):
    """Its core, what that is made of beside what every core needs; what it sends and persists."""

    core: type[Any]
    own: Callable[[NodeConfig, Chance], dict[str, Any]]
    messages: tuple[type, ...]
    records: tuple[type, ...]

    def make(self, config: NodeConfig, chance: Chance, records: list[Any]) -> Core:
        made: Core = self.core(
            config.node,
            tuple(config.peers),
            random=chance.seeded,
            records=records,
            election_ticks=config.election_ticks,
            heartbeat_ticks=config.heartbeat_ticks,
            **self.own(config, chance),
        )
        return made


def _nothing(_: NodeConfig, __: Chance) -> dict[str, Any]:
    return {}


def _primary_backup(config: NodeConfig, _: Chance) -> dict[str, Any]:
    return {"acknowledgement": config.acknowledgement, "promotion": config.promotion}


def _viewstamped(_: NodeConfig, chance: Chance) -> dict[str, Any]:
    # Not from `seeded`, which draws the same at every start: a node whose disk was wiped would
    # give its new disk the name of the old one, and be taken for it.
    return {"nonce": 1 + chance.fresh.getrandbits(NONCE_BITS)}


PROTOCOLS = {
    "raft": Protocol(raft.Raft, _nothing, raft.MESSAGES, raft.RECORDS),
    "paxos": Protocol(paxos.Paxos, _nothing, paxos.MESSAGES, paxos.RECORDS),
    "primary_backup": Protocol(
        primary_backup.PrimaryBackup,
        _primary_backup,
        primary_backup.MESSAGES,
        primary_backup.RECORDS,
    ),
    "viewstamped": Protocol(
        viewstamped.Viewstamped, _viewstamped, viewstamped.MESSAGES, viewstamped.RECORDS
    ),
    "zab": Protocol(zab.Zab, _nothing, zab.MESSAGES, zab.RECORDS),
    "chain": Protocol(chain.Chain, _nothing, chain.MESSAGES, chain.RECORDS),
}


def find_protocol(name: str) -> Protocol:
    """The protocol that KV_PROTOCOL names. Raises ConfigError: one line that says what is wrong."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    module, _, attribute = name.partition(":")
    try:
        core = getattr(import_module(module), attribute)
    except ImportError as exc:
        raise ConfigError(f"KV_PROTOCOL={name!r}: {module} can't be imported: {exc}") from exc
    except AttributeError:
        raise ConfigError(f"KV_PROTOCOL={name!r}: {module} has no {attribute}") from None
    for shipped in PROTOCOLS.values():
        if isinstance(core, type) and issubclass(core, shipped.core):
            return shipped._replace(core=core)
    known = ", ".join(shipped.core.__name__ for shipped in PROTOCOLS.values())
    raise ConfigError(f"KV_PROTOCOL={name!r}: allowed is a class derived from one of {known}")
