"""Planted bugs, outside the shipped code: what the simulation of the service must find.

Goal: a simulation that finds nothing proves nothing.
Method: each bug is a patch that is on for one run, or a setting.
"""

from __future__ import annotations

from labs.harness.swarm.bug import SHIPPED, Bug
from services.chassis.driver import Driver
from services.kv.state_machine import Command, KeyValueStore, encode_command
from services.protocols.core import Ready

_carry_out = Driver._carry_out
_restore = KeyValueStore.restore


def _send_before_persist(driver: Driver, ready: Ready) -> None:
    """All messages first, as if they were all `early`; the rest in its order."""
    ready.early = len(ready.messages)
    _carry_out(driver, ready)


def _restore_forgets(store: KeyValueStore, data: bytes) -> None:
    """All of a snapshot but one key."""
    _restore(store, data)
    if len(store) > 1:
        store.apply(0, encode_command(Command(min(store._items), None)))


BUGS = {
    bug.name: bug
    for bug in (
        SHIPPED,
        Bug(
            "send_before_persist",
            "votes and acknowledgements leave before they are on disk (driver.py, 'swap any two')",
            patches=((Driver, "_carry_out", _send_before_persist),),
        ),
        Bug(
            "restore_forgets",
            "a node that was restored from a snapshot misses a key (state_machine.py)",
            patches=((KeyValueStore, "restore", _restore_forgets),),
        ),
        Bug(
            "unsynced_storage",
            "the log is written and never synchronized: KV_FSYNC=never under power failures",
            environment={"KV_FSYNC": "never"},
        ),
    )
}
