"""Virtual time: one scheduler, and an event loop per simulated process that shares it.

Theory of operation
-------------------
**Invariant.** What happens next is a function of the seed: no real clock, no thread, no real
socket decides anything, and things due at the same instant happen in the order they were asked for.

Time stands still while code runs, and when nothing is ready it jumps to the next timer. So an
idle second costs nothing, and a deadline of ten seconds passes in an instant.

Each process has a *loop object of its own* (`VirtualLoop`), as it has in reality: a task, a timer,
a connection belongs to exactly one process, and so:

- a **crash** is to run nothing more of that loop: no `except`, no `finally`, nothing goodbye;
- a **pause** is to hold back its callbacks, in order, until it resumes;
- a **blocking system call** (`stall`, for fdatasync) moves that process' own time on: what it does
  after the call happens later than what it did before, though both are one callback. Meanwhile the
  others run, and a crash that falls in between finds the messages sent before the call under way
  and those sent after it never sent. Without this, no simulation could tell a driver that sends
  before it persists from one that persists first.

Time is kept in whole nanoseconds: sums of floats would differ in the last digit from one
mathematical library to another, and with them the order of events.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import weakref
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heapify, heappop, heappush
from math import ceil
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labs.harness.testbed.simulation.connection import End
    from labs.harness.testbed.simulation.network import Listener, Network

NANOSECONDS = 1_000_000_000
START_NS = 1_000 * NANOSECONDS  # the monotonic clock's zero means nothing; 0 itself would be odd
WALL_AT_ZERO_S = 1_735_689_600.0 - START_NS / NANOSECONDS  # START_NS is 2025-01-01T00:00:00Z
SHORTEST_TIMER_NS = 1_000
STEPS_AT_AN_INSTANT_MAX = 500_000
CANCELLED_KEPT = 512
REMAINS_ROUNDS = 8


class Stuck(RuntimeError):
    """Nothing can happen any more, or nothing but the same instant, for ever."""


class Handle(asyncio.TimerHandle):
    """A callback that waits for its turn or its time; the base's fields without its costs."""

    __slots__ = ()

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
        self._source_traceback = None
        self._repr = None
        self._when = when
        self._scheduled = scheduled

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback, self._args = _nothing, ()
            if self._scheduled:
                self._loop._timer_handle_cancelled(self)


def _nothing(*_: object) -> None:
    """In place of a cancelled callback, so that what it referred to can go."""


class Simulation:
    """The scheduler: virtual time, what is due, and the chance that everything is drawn from."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_ns = START_NS
        self.steps = 0
        self.network: Network
        self._ready: deque[Handle] = deque()
        # (when, number, handle) of a process, or (when, number, event) of the network or a disk.
        self._heap: list[tuple[int, int, Handle | Callable[[], None]]] = []
        self._number = 0
        self._cancelled = 0
        self._steps_limit = STEPS_AT_AN_INSTANT_MAX
        self.loops: list[VirtualLoop] = []  # of living processes

    def random(self, name: str) -> Random:
        """A generator of its own for `name`: what one draws does not change another's."""
        return Random(f"{self.seed}/{name}")

    def at(self, when_ns: int, event: Callable[[], None]) -> None:
        """Something that happens to nobody's process in particular: a segment arrives."""
        self._number += 1
        heappush(self._heap, (when_ns, self._number, event))

    def timer(self, when_ns: int, handle: Handle) -> None:
        self._number += 1
        heappush(self._heap, (when_ns, self._number, handle))

    def ready(self, handle: Handle) -> None:
        self._ready.append(handle)

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
        try:
            while not done():
                if not ready:
                    self._advance()
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
                self.steps += 1
                if self.steps > self._steps_limit:
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
            events._set_running_loop(None)

    def _advance(self) -> None:
        """To the next instant at which something is due."""
        heap = self._heap
        if not heap:
            raise Stuck("every process waits, and nothing is due")
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


class VirtualLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process.

    Attributes:
        blocked: nothing of it runs now, because it is paused, in a system call, or dead.
        held: callbacks that wait for it to go on.
        ends, listeners: its open sockets, which its death closes.
    """

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.simulation = simulation
        self.name = name
        self.dead = self.paused = self.busy = self.blocked = False
        self.stalled_ns = 0
        self.held: list[Handle] = []
        self.ends: dict[End, None] = {}
        self.listeners: dict[Listener, None] = {}
        self.signal_handlers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        # Of callbacks that no code of the process asked for: data, connections.
        self.context = contextvars.Context()
        self.on_system_exit: Callable[[SystemExit], None] = _raise
        self._dialled: weakref.WeakKeyDictionary[socket.socket, End] = weakref.WeakKeyDictionary()
        self._exception_handler: Callable[..., object] | None = None
        self._task_factory: Any = None
        self._closed = self._running = False
        self._current_handle = None  # asyncio's default exception handler looks at it
        simulation.loops.append(self)

    def __repr__(self) -> str:
        return f"<VirtualLoop {self.name}>"

    # ------------------------------------------------------------------ callbacks and time

    def time(self) -> float:
        return (self.simulation.now_ns + self.stalled_ns) / NANOSECONDS

    def now_ns(self) -> int:
        """`time` in nanoseconds."""
        return self.simulation.now_ns + self.stalled_ns

    def call_soon(self, callback, *args, context=None):  # type: ignore[no-untyped-def] # base's
        handle = Handle(callback, args, self, context)
        if not self.dead:
            self.simulation.ready(handle)
        return handle

    call_soon_threadsafe = call_soon  # there are no other threads; signal handlers run in this one

    def call_later(self, delay, callback, *args, context=None):  # type: ignore[no-untyped-def]
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):  # type: ignore[no-untyped-def]
        simulation = self.simulation
        # A real clock moves between two looks at it. Here it would not, and who finds that a hair
        # is missing to his time and sets a timer for it would do so in this instant, for ever.
        when_ns = max(ceil(when * NANOSECONDS), simulation.now_ns + SHORTEST_TIMER_NS)
        handle = Handle(callback, args, self, context, when, True)
        if not self.dead:
            simulation.timer(when_ns, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.simulation.timer_cancelled()

    # ------------------------------------------------------------------ faults of a process

    def stall(self, duration_ns: int) -> None:
        """A system call that blocks this process for so long."""
        self.stalled_ns += duration_ns

    def block_for_stall(self) -> None:
        """The callback that stalled has ended: the next one runs when the stall is over."""
        stalled_ns, self.stalled_ns = self.stalled_ns, 0
        if not self.dead:
            self.busy = self.blocked = True
            self.simulation.at(self.simulation.now_ns + stalled_ns, self._stall_over)

    def _stall_over(self) -> None:
        self.busy = False
        self._unblock()

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = self.blocked = True

    def resume(self) -> None:
        """SIGCONT: what has come meanwhile runs now, in order."""
        self.paused = False
        self._unblock()

    def _unblock(self) -> None:
        self.blocked = self.dead or self.paused or self.busy
        if not self.blocked:
            held, self.held = self.held, []
            self.simulation.ready_again(held)

    def die(self) -> None:
        """SIGKILL: nothing of this process runs any more; the kernel closes its sockets."""
        if self.dead:
            return
        self.dead = self.blocked = True
        self.held.clear()
        self.signal_handlers.clear()
        self.simulation.loops.remove(self)
        for listener in list(self.listeners):
            listener.close()
        for end in list(self.ends):
            end.die()
        # Not now: it may be a callback of this very process that ends it.
        self.simulation.at(self.simulation.now_ns, self.clear_away)

    def clear_away(self) -> None:
        """Take the dead process' coroutines apart, so that no collector does it at some moment.

        Their `finally` blocks run, as Python insists, but reach nothing: this loop schedules
        nothing more, its sockets are closed, its files (disk.py) take no write from the dead.
        """
        running = events._get_running_loop()
        seen: set[int] = set()
        events._set_running_loop(self)
        try:
            for _ in range(REMAINS_ROUNDS):  # a `finally` may have made tasks
                remains = [task for task in asyncio.all_tasks(self) if id(task) not in seen]
                if not remains:
                    break
                for task in remains:
                    seen.add(id(task))
                    task._log_destroy_pending = False  # type: ignore[attr-defined] # asyncio's own
                    _close(task.get_coro())
        finally:
            events._set_running_loop(running)

    # ------------------------------------------------------------------ tasks and futures

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro, *, name=None, context=None, **_):  # type: ignore[no-untyped-def]
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def set_task_factory(self, factory: Any) -> None:
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        return self._task_factory

    def run_in_executor(self, executor, func, *args):  # type: ignore[no-untyped-def]
        """Here and now: a thread would end at a moment of its own choosing."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    # ------------------------------------------------------------------ sockets

    async def getaddrinfo(self, host, port, **_):  # type: ignore[no-untyped-def, override]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port or 0))]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Dials in the simulated network; `sock` only stands for the connection meanwhile."""
        self._dialled[sock] = await self.simulation.network.dial(self, address)

    async def create_connection(  # type: ignore[no-untyped-def, override]
        self, protocol_factory, host=None, port=None, *, sock=None, **_
    ):
        if sock is not None:
            end = self._dialled.pop(sock)
            sock.close()
        else:
            end = await self.simulation.network.dial(self, (host, port))
        protocol = protocol_factory()
        end.begin(protocol)
        return end, protocol

    async def create_server(  # type: ignore[no-untyped-def, override]
        self, protocol_factory, host=None, port=0, **_
    ):
        return self.simulation.network.listen(self, protocol_factory, host or "127.0.0.1", port)

    def add_signal_handler(self, sig, callback, *args):  # type: ignore[no-untyped-def, override]
        self.signal_handlers[int(sig)] = (callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self.signal_handlers.pop(int(sig), None) is not None

    # ------------------------------------------------------------------ running it

    def run_until_complete(self, future: Any) -> Any:
        """For the process that the others belong to, the harness."""
        task = asyncio.ensure_future(future, loop=self)
        self._running = True
        try:
            self.simulation.run_until(task.done)
        except BaseException:
            if task.done() and not task.cancelled():
                task.exception()  # it is this one, or matters less
            raise
        finally:
            self._running = False
        return task.result()

    def run_forever(self) -> None:
        raise NotImplementedError("a simulation has an end: run_until_complete")

    def stop(self) -> None:
        raise NotImplementedError("a simulation has an end: run_until_complete")

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """The end of the simulation, if this is the harness' loop: nobody runs any more."""
        if not self._closed:
            self._closed = True
            for loop in list(self.simulation.loops):
                loop.die()
                loop.clear_away()
            self.simulation.forget()

    async def shutdown_asyncgens(self) -> None:
        """None is known to this loop."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    # ------------------------------------------------------------------ errors

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Asyncio's debug mode reads real clocks."""

    def set_exception_handler(self, handler: Any) -> None:
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What nobody caught. The dead complain no more."""
        if self.dead or self._closed:
            return
        if self._exception_handler is not None:
            self._exception_handler(self, context)
            return
        asyncio.BaseEventLoop.default_exception_handler(self, context)  # type: ignore[arg-type]


def _raise(exit_: SystemExit) -> None:
    raise exit_


def _close(coroutine: Coroutine[Any, Any, Any] | Any) -> None:
    for _ in range(REMAINS_ROUNDS):
        try:
            coroutine.close()
        except RuntimeError:
            continue  # its `finally` waits for something: close it there, too
        except BaseException:
            return
        return
