"""Virtual time: what is due, who is next, and the chance that everything is drawn from.

**Invariant.** What happens next is a function of the seed: no real clock, no thread, no real
socket decides anything, and things due at the same instant happen in the order they were asked for.

Time stands still while code runs, and when nothing is ready it jumps to the next timer. So an
idle second costs nothing, and a deadline of ten seconds passes in an instant. It is kept in whole
nanoseconds: sums of floats would differ in the last digit from one mathematical library to another,
and with them the order of events.

The garbage collector is held back, too, until a number of steps has been made. Left to itself it
runs at some count of allocations, which is another under a profiler, or after one import more; and
finalizers act: aiohttp gives a connection back when the response that holds it is collected.
"""

from __future__ import annotations

import contextvars
import gc
from asyncio import events
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labs.harness.testbed.simulation.loop import VirtualLoop
    from labs.harness.testbed.simulation.network import Network

NANOSECONDS = 1_000_000_000
START_NS = 1_000 * NANOSECONDS  # the monotonic clock's zero means nothing; 0 itself would be odd
WALL_AT_ZERO_S = 1_735_689_600.0 - START_NS / NANOSECONDS  # START_NS is 2025-01-01T00:00:00Z
STEPS_AT_AN_INSTANT_MAX = 500_000
CANCELLED_KEPT = 512
STEPS_TO_COLLECT = 500_000


class Stuck(RuntimeError):
    """Nothing can happen any more, or nothing but the same instant, for ever."""


class Handle:
    """A callback that waits for its turn or its time: what `asyncio.TimerHandle` offers, and what
    of it costs nothing: there are dozens of these to one request."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_loop", "_scheduled", "_when")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualLoop,
        context: contextvars.Context | None,
        when: float = 0.0,
        scheduled: bool = False,
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False
        self._when = when
        self._scheduled = scheduled

    def cancel(self) -> None:
        """It will not run."""
        if not self._cancelled:
            self._cancelled = True
            self._callback, self._args = _nothing, ()
            if self._scheduled:
                self._loop.simulation.timer_cancelled()

    def cancelled(self) -> bool:
        """Was it cancelled?"""
        return self._cancelled

    def when(self) -> float:
        """Of a timer: its time, on the loop's clock."""
        return self._when


def _nothing(*_: object) -> None:
    """In place of a cancelled callback, so that what it referred to can go."""


class Simulation:
    """The scheduler: virtual time, what is due, and the chance that everything is drawn from."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_ns = START_NS
        self.steps = self.tasks = 0  # callbacks that ran, tasks that were made
        self.network: Network
        self._ready: deque[Handle] = deque()
        self.ready = self._ready.append  # the handle's turn comes, in this instant
        # (when, number, handle) of a process, or (when, number, event) of the network or a disk.
        self._heap: list[tuple[int, int, Handle | Callable[[], object]]] = []
        self._number = 0
        self._cancelled = 0
        self._steps_limit = STEPS_AT_AN_INSTANT_MAX
        self._collect_at = STEPS_TO_COLLECT
        self.loops: list[VirtualLoop] = []  # of living processes

    def random(self, name: str) -> Random:
        """A generator of its own for `name`: what one draws does not change another's."""
        return Random(f"{self.seed}/{name}")

    def at(self, when_ns: int, event: Callable[[], object]) -> None:
        """Something that happens to nobody's process in particular: a segment arrives."""
        self._number += 1
        heappush(self._heap, (when_ns, self._number, event))

    def timer(self, when_ns: int, handle: Handle) -> None:
        self._number += 1
        heappush(self._heap, (when_ns, self._number, handle))

    def ready_again(self, held: list[Handle]) -> None:
        """What a process could not run until now comes before what has come since."""
        self._ready.extendleft(reversed(held))

    def timer_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > CANCELLED_KEPT and self._cancelled * 2 > len(self._heap):
            self._heap = [
                each for each in self._heap if type(each[2]) is not Handle or not each[2]._cancelled
            ]
            heapify(self._heap)
            self._cancelled = 0

    def run_until(self, done: Callable[[], bool]) -> None:
        """Let things happen until `done()`. Raises Stuck."""
        ready = self._ready
        current: VirtualLoop | None = None
        steps, limit = self.steps, self._steps_limit  # of this function until time moves
        collects = gc.isenabled()
        gc.disable()
        try:
            while not done():
                if not ready:
                    self.steps = steps
                    self._advance()
                    limit = self._steps_limit
                    continue
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                loop: VirtualLoop = handle._loop
                if loop.blocked:
                    if not loop.dead:
                        loop.held.append(handle)
                    continue
                if loop is not current:
                    events._set_running_loop(loop)
                    current = loop
                steps += 1
                if steps > limit:
                    raise Stuck(f"{STEPS_AT_AN_INSTANT_MAX} steps and no time has passed")
                try:
                    handle._context.run(handle._callback, *handle._args)
                except SystemExit as exit_:
                    loop.on_system_exit(exit_)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    loop.call_exception_handler(
                        {"message": f"exception in {handle._callback!r}", "exception": error}
                    )
                if loop.stalled_ns:
                    loop.block_for_stall()
        finally:
            self.steps = steps
            events._set_running_loop(None)
            if collects:
                gc.enable()

    def _advance(self) -> None:
        """To the next instant at which something is due."""
        heap = self._heap
        if not heap:
            raise Stuck("every process waits, and nothing is due")
        if self.steps >= self._collect_at:
            self._collect_at = self.steps + STEPS_TO_COLLECT
            gc.collect()
        when = heap[0][0]
        if when > self.now_ns:
            self.now_ns = when
            self._steps_limit = self.steps + STEPS_AT_AN_INSTANT_MAX
        while heap and heap[0][0] == when:
            due = heappop(heap)[2]
            if type(due) is not Handle:
                due()  # type: ignore[operator] # the other half of the union
                heap = self._heap
            elif not due._cancelled:
                due._scheduled = False
                self._ready.append(due)
            else:
                self._cancelled -= 1

    def forget(self) -> None:
        """Nothing is due any more."""
        self._ready.clear()
        self._heap.clear()
