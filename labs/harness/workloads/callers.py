"""Callers that depend on one node, one after another, with or without a circuit breaker.

The question they answer is what it costs *the caller* when the callee is out of reach: without a
breaker every call holds a thread of the caller's work until its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.statistics import percentile
from services.chassis.errors import CircuitOpen, Definite, Indefinite, NotFound
from services.kv.client import KvClient
from services.resilience.circuit_breaker import CircuitBreaker

PAUSE_S = 0.01  # between two calls, so that refusing locally is no busy loop


@dataclass(slots=True)
class CallTimes:
    """How long calls took, in ms, by how they ended; `refused` is by the breaker, locally."""

    answered: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def median_ms(self) -> float:
        """The median time of the calls that brought no answer; NaN when there was none."""
        return percentile(self.failed + self.refused, 50)


class Caller:
    """Reads a key from `node` alone, again and again, from `place`."""

    lateness_s = 0.0  # a closed loop has no plan to be late against

    def __init__(
        self,
        place: str,
        node: str,
        *,
        seed: int,
        deadline_ms: int,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.place, self.node, self.deadline_ms = place, node, deadline_ms
        self.breaker = breaker
        self.times = CallTimes()
        self._random = Random(seed)
        self._task: asyncio.Task[None] | None = None

    async def start(
        self,
        cluster: Cluster,
        recorder: Recorder,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin to call."""
        self._client = KvClient(
            {self.node: cluster.address(self.place, self.node)},
            random=self._random,
            breakers={self.node: self.breaker} if self.breaker else None,
        )
        self._recorder = recorder
        self._task = asyncio.create_task(self._call_on())

    def watch(self) -> CallTimes:
        """Keep times from now on in a fresh record, and return it."""
        self.times = CallTimes()
        return self.times

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._client.close()

    async def _call_on(self) -> None:
        while True:
            times, began = self.times, self._recorder.now_ns()
            try:
                await self._client.get(
                    "register-0", consistency="local", node=self.node, deadline_ms=self.deadline_ms
                )
                kept = times.answered
            except NotFound:
                kept = times.answered
            except CircuitOpen:
                kept = times.refused
            except (Definite, Indefinite):
                kept = times.failed
            kept.append((self._recorder.now_ns() - began) / 1e6)
            await asyncio.sleep(PAUSE_S)
