"""`python -m tests.labs.perturbed NUMBER LAB SEED DIRECTORY`: a simulated run of a lab, without its
report, in a process that is unlike others.

Goal: what a seed determines may not depend on the process that replays it.
Method: NUMBER (0: leave all as it is) draws when the garbage collector runs, and litters the heap
before each task and connection, so that objects lie elsewhere and sets of them (asyncio and aiohttp
keep some) have another order. The environment's PYTHONHASHSEED does the same for strings.
"""

from __future__ import annotations

import asyncio
import gc
import io
import sys
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from labs.harness.lab import catalogue, options, runner, story
from labs.harness.testbed.simulation.loop import VirtualLoop

KEPT = 4_000
NAMES = ("create_task", "create_future", "create_connection")


class Small:
    """An instance with a `__dict__`, as protocols and transports are."""

    def __init__(self) -> None:
        self.attribute = 1


def litter(random: Random) -> None:
    """Before each task, future and connection of a simulation, drop things in the heap."""
    kept: list[Any] = []
    kinds = (
        lambda: bytes(random.randint(64, 512)),
        lambda: asyncio.Future.__new__(asyncio.Future),
        Small,
    )

    def littering(method: Any) -> Any:
        def instead(*args: Any, **named: Any) -> Any:
            kept.extend(random.choice(kinds)() for _ in range(random.randint(0, 6)))
            if len(kept) > KEPT:
                del kept[:: random.randint(2, 3)]
            return method(*args, **named)

        return instead

    for name in NAMES:
        setattr(VirtualLoop, name, littering(getattr(VirtualLoop, name)))


def main(number: str, lab: str, seed: str, directory: str) -> int:
    """The run's exit code."""
    if number != "0":
        random = Random(f"perturbed {number}")
        gc.set_threshold(random.choice((50, 700, 20_000)), 5, 5)
        litter(random)
    chosen = options.check(on="simulation", seed=seed)
    told = story.Story(Console(file=io.StringIO()))
    verdict, _ = runner.run(catalogue.find(lab), chosen, told, Path(directory))
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
