"""Runs on every core: many seeds, one after another, or some plans at once.

Goal: a failure that shows once in many runs, and the number that shows it again every time.
Method: a seed is drawn into a plan, and a plan is a run. Plans are handed out to one process per
core, a few ahead; answers come in the order of the seeds, so the first failure is the lowest
seed's.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from labs.harness.swarm.bug import SHIPPED, Bug
from labs.harness.swarm.plan import ACTIVE_S, Plan, draw
from labs.harness.swarm.run import Failure, simulate

AHEAD = 2  # plans handed out, per process: there is always one to go on with
ATTEND_S = 0.1


class Swarm:
    """Processes that carry out plans.

    `attend` is called ten times a second while one waits for them; what it raises ends the waiting.

        with Swarm() as swarm:
            for seed, failure in swarm.search(range(1_000), protocol="raft"): …
    """

    def __init__(
        self, processes: int | None = None, *, attend: Callable[[], None] = lambda: None
    ) -> None:
        self._attend = attend
        self._processes = processes or multiprocessing.cpu_count()
        # spawn: the same on Linux and macOS, and nothing of this process is inherited by chance.
        # Ctrl-C is for this process alone: a run that it kills elsewhere is never answered for.
        self._pool = multiprocessing.get_context("spawn").Pool(
            self._processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)
        )

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_: object) -> None:
        # Not `terminate`: what a run has on the disk goes when the run ends.
        self._pool.close()
        self._pool.join()

    def run(
        self, plans: Iterable[Plan], bug: Bug = SHIPPED, *, tell: bool = False
    ) -> Iterator[Failure | None]:
        """`simulate` of each, in their order, as long as the caller asks for more."""
        rest = iter(plans)
        asked: deque[Any] = deque()

        def ask() -> None:
            if (plan := next(rest, None)) is not None:
                asked.append(self._pool.apply_async(simulate, (plan, bug), {"tell": tell}))

        for _ in range(AHEAD * self._processes):
            ask()
        while asked:
            yield self._answer(asked.popleft())
            ask()

    def search(
        self, seeds: range, *, protocol: str, bug: Bug = SHIPPED, active_s: float = ACTIVE_S
    ) -> Iterator[tuple[int, Failure | None]]:
        """What came of each seed."""
        plans = (draw(seed, protocol, active_s=active_s) for seed in seeds)
        yield from zip(seeds, self.run(plans, bug), strict=False)

    def _answer(self, asked: multiprocessing.pool.AsyncResult[Failure | None]) -> Failure | None:
        while True:
            self._attend()
            try:
                return asked.get(ATTEND_S)
            except multiprocessing.TimeoutError:
                continue
