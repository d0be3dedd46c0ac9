"""Planted bugs, outside the shipped code: what the simulation of the service must find.

Goal: a simulation that finds nothing proves nothing.
Method: each bug is a patch that is on for one run, or a setting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from services.chassis.driver import Driver
from services.protocols.core import Ready


@dataclass(frozen=True, slots=True)
class Bug:
    """`patches`: (class, attribute, replacement); `environment`: settings of the nodes."""

    name: str
    about: str
    patches: tuple[tuple[type, str, Any], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for owner, attribute, replacement in self.patches:
                stack.enter_context(mock.patch.object(owner, attribute, replacement))
            yield


_carry_out = Driver._carry_out


def _send_before_persist(driver: Driver, ready: Ready) -> None:
    """All messages first, as if they were all `early`; the rest in its order."""
    ready.early = len(ready.messages)
    _carry_out(driver, ready)


BUGS = {
    bug.name: bug
    for bug in (
        Bug("none", "the shipped service"),
        Bug(
            "send_before_persist",
            "votes and acknowledgements leave before they are on disk (driver.py, 'swap any two')",
            patches=((Driver, "_carry_out", _send_before_persist),),
        ),
        Bug(
            "unsynced_storage",
            "the log is written and never synchronized: KV_FSYNC=never under power failures",
            environment={"KV_FSYNC": "never"},
        ),
    )
}
