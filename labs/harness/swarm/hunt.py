"""The first failure of a row of seeds, for a lab: found once, and with an ear for Ctrl-C."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from labs.harness.swarm.plan import Plan, draw
from labs.harness.swarm.run import Failure
from labs.harness.swarm.search import Swarm


@dataclass(frozen=True, slots=True)
class Found:
    """`runs` were made up to the failing one, whose plan this is."""

    runs: int
    plan: Plan
    failure: Failure


_found: dict[tuple[range, str, float], Found | None] = {}


def hunt(swarm: Swarm, seeds: range, protocol: str, active_s: float) -> Found | None:
    """The same seeds have the same answer, so a lab's variants share it."""
    asked = seeds, protocol, active_s
    if asked not in _found:
        _found[asked] = _hunt(swarm, *asked)
    return _found[asked]


def _hunt(swarm: Swarm, seeds: range, protocol: str, active_s: float) -> Found | None:
    results = swarm.search(seeds, protocol=protocol, active_s=active_s)
    for runs, (seed, failure) in enumerate(results, 1):
        if failure is not None:
            return Found(runs, draw(seed, protocol, active_s=active_s), failure)
    return None


def attend() -> None:
    """Has the lab been told to end while it waits here, where its event loop can't say so?"""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
