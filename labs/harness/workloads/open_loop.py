"""Operations that arrive at a rate, whether or not earlier ones have been answered, as users do.

A closed loop would go quiet while the service is slow and so hide how many would have suffered
(coordinated omission); here latency counts from the moment at which an operation was sent, and how
late *that* was against the plan is told (`lateness_s`): the load's own fault.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from random import Random
from typing import Any, NamedTuple

from labs.harness.history import Recorder
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, ServiceError

ASKED_EVERY_S = 0.02


async def arrivals(rate_per_s: Callable[[], float], random: Random) -> AsyncIterator[float]:
    """At each arrival, how late it is (seconds); the intervals are exponentially distributed.

    They are measured from the plan and not from the last one, so that a late loop catches up
    instead of slowing the load down. `rate_per_s` is asked again every `ASKED_EVERY_S`, not only
    before each: ten a second became a hundred, for one second, and 41 came, for the first of them
    was still half a second away at the old rate.
    """
    loop = asyncio.get_running_loop()
    planned = loop.time()
    while True:
        left = random.expovariate(1.0)  # in mean intervals, of whatever rate it will be
        while left:
            rate = rate_per_s()
            step = min(left, ASKED_EVERY_S * rate)
            left -= step
            planned += step / rate
            await asyncio.sleep(max(0.0, planned - loop.time()))
        yield loop.time() - planned


class Operations:
    """Operations that were sent and have not ended. One that raises is a bug of the load."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, operation: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(operation)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)

    async def ended(self) -> None:
        """Wait until each of them has."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what one of them raised, if any did."""
        if self._failures:
            raise self._failures[0]


class Answered(NamedTuple):
    """What a call brought: its value, for the history, and who answered, if that is known."""

    value: Any = None
    node: str | None = None


class Drawn(NamedTuple):
    """One operation to send: what the history calls it, and how it is done.

    `call` gets the headers of its trace; it raises one of the services' errors.
    """

    f: str
    key: str | None
    value: Any
    call: Callable[[Mapping[str, str]], Awaitable[Answered]]


class Ended(NamedTuple):
    """One operation that ended; times in ns of the recorder's clock, `error`: its slug."""

    type: str
    invoke_ns: int
    return_ns: int
    node: str | None
    error: str | None
    trace_id: str

    @property
    def ms(self) -> float:
        return (self.return_ns - self.invoke_ns) / 1e6


class OpenLoop(ABC):
    """`rate_per_s` operations a second from one place; may be changed while it runs.

    `sample`: the share whose traces the services are to record; may be changed, too.
    `in_flight_max` bounds what piles up: an arrival over it is not sent and is counted as `unsent`.
    `changes_nothing`: a call that brought no answer has failed, whatever the service did.
    """

    changes_nothing = False

    def __init__(
        self,
        place: str,
        *,
        seed: int,
        rate_per_s: float,
        sample: float = 1.0,
        in_flight_max: int = 2_000,
    ) -> None:
        self.place = place
        self.rate_per_s = rate_per_s
        self.sample = sample
        self.in_flight_max = in_flight_max
        self.ended: list[Ended] = []
        self.counts: Counter[str] = Counter()
        self.lateness_s = 0.0
        self._random = Random(f"{seed}/{place}")
        self._idle: list[int] = []
        self._dispatcher: asyncio.Task[None] | None = None
        self._operations = Operations()

    @abstractmethod
    async def open(self, cluster: Cluster) -> None:
        """Make the client that `draw` needs."""

    @abstractmethod
    async def close(self) -> None:
        """Close it."""

    @abstractmethod
    def draw(self, random: Random) -> Drawn:
        """Choose the next operation."""

    async def start(
        self,
        cluster: Cluster,
        recorder: Recorder,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin."""
        assert self._dispatcher is None, "a workload starts once"
        self._recorder = recorder
        self._on_progress = on_progress
        await self.open(cluster)
        self._dispatcher = asyncio.create_task(self._dispatch())

    async def stop(self) -> None:
        """Stop sending, let what is under way end by its deadline, close the connections."""
        if self._dispatcher is not None:
            self._dispatcher.cancel()
            await asyncio.gather(self._dispatcher, return_exceptions=True)
            await self._operations.ended()
            await self.close()
        self._operations.check()

    def since(self, start_ns: int, end_ns: int | None = None) -> list[Ended]:
        """What was sent at `start_ns` or later (and before `end_ns`), and has ended."""
        end_ns = self._recorder.now_ns() if end_ns is None else end_ns
        return [each for each in self.ended if start_ns <= each.invoke_ns < end_ns]

    def slow_lately(self, ms: float, last: int = 20) -> float:
        """The share of the `last` operations that ended which took longer than that; 1 of none."""
        ended = self.ended[-last:]
        return sum(each.ms > ms for each in ended) / len(ended) if ended else 1.0

    async def _dispatch(self) -> None:
        async for late_s in arrivals(lambda: self.rate_per_s, self._random):
            self.lateness_s = max(self.lateness_s, late_s)
            if len(self._operations) >= self.in_flight_max:
                self.counts["unsent"] += 1
                continue
            self._operations.start(self._operate(self.draw(self._random)))

    async def _operate(self, drawn: Drawn) -> None:
        process = self._idle.pop() if self._idle else self._recorder.new_process()
        trace = new_trace(self.sample)
        invoke_ns = self._recorder.now_ns()
        handle = self._recorder.invoke(
            process, drawn.f, drawn.key, drawn.value, client=self.place, **trace.fields
        )
        kind, node, slug = "info", None, None
        try:
            answer = await drawn.call(trace.headers)
            kind, node = "ok", answer.node
            told: dict[str, Any] = {} if node is None else {"node": node}
            self._recorder.ok(handle, value=answer.value, **told)
        except ServiceError as error:
            slug = error.slug
            kind = "fail" if isinstance(error, Definite) or self.changes_nothing else "info"
            keep = self._recorder.fail if kind == "fail" else self._recorder.info
            keep(handle, error=f"{slug}: {error}")
        finally:
            if kind != "info":
                self._idle.append(process)
            ended = Ended(kind, invoke_ns, self._recorder.now_ns(), node, slug, trace.trace_id)
            self.ended.append(ended)
            self.counts[kind] += 1
            self._report()

    def _report(self) -> None:
        counts = self.counts
        self._on_progress(f"{counts['ok']} answered · {counts['fail']} refused · "
                          f"{counts['info']} unknown")  # fmt: skip
