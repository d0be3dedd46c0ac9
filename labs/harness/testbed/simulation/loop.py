"""The event loop of one simulated process; all of them share one scheduler (scheduler.py).

Each process has a *loop object of its own*, as it has in reality: a task, a timer, a connection
belongs to exactly one process, and so:

- a **crash** is to run nothing more of that loop: no `except`, no `finally`, nothing goodbye;
- a **pause** is to hold back its callbacks, in order, until it resumes;
- a **blocking system call** (`stall`, for fdatasync) moves that process' own time on: what it does
  after the call happens later than what it did before, though both are one callback. Meanwhile the
  others run, and a crash that falls in between finds the messages sent before the call under way
  and those sent after it never sent. Without this, no simulation could tell a driver that sends
  before it persists from one that persists first.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import weakref
from asyncio import events
from collections.abc import Callable, Coroutine
from math import ceil
from typing import TYPE_CHECKING, Any

from labs.harness.testbed.simulation.scheduler import NANOSECONDS, Handle, Simulation

if TYPE_CHECKING:
    from labs.harness.testbed.simulation.connection import End
    from labs.harness.testbed.simulation.network import Listener

SHORTEST_TIMER_NS = 1_000
REMAINS_ROUNDS = 8

# For mypy the base has abstract methods that no simulated process needs (pipes, subprocesses).
_Base: Any = asyncio.AbstractEventLoop


class Task(asyncio.Task[Any]):
    """In a set, it has its place by when it was made, and not by where it lies in memory: asyncio
    and those who use it keep sets of tasks, and cancel or close them one after the other."""

    def __init__(self, coro: Any, loop: VirtualLoop, name: str | None, context: Any) -> None:
        loop.simulation.tasks += 1
        self._number = loop.simulation.tasks
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(_Base):  # type: ignore[misc] # see above
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
        self._closed = False
        self._ready = simulation.ready
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

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, self, context)
        if not self.dead:
            self._ready(handle)
        return handle

    call_soon_threadsafe = call_soon  # there are no other threads; signal handlers run in this one

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        simulation = self.simulation
        # A real clock moves between two looks at it. Here it would not, and who finds that a hair
        # is missing to his time and sets a timer for it would do so in this instant, for ever.
        when_ns = max(ceil(when * NANOSECONDS), simulation.now_ns + SHORTEST_TIMER_NS)
        handle = Handle(callback, args, self, context, when, True)
        if not self.dead:
            simulation.timer(when_ns, handle)
        return handle

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

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Any = None, **_: Any
    ) -> asyncio.Task[Any]:
        return Task(coro, self, name, context)

    def set_task_factory(self, factory: Any) -> None:
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        return self._task_factory

    def run_in_executor(self, _: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Here and now: a thread would end at a moment of its own choosing."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    # ------------------------------------------------------------------ sockets

    async def getaddrinfo(self, host: str, port: int | None, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port or 0))]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Dials in the simulated network; `sock` only stands for the connection meanwhile."""
        self._dialled[sock] = await self.simulation.network.dial(self, address)

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        **_: Any,
    ) -> tuple[End, Any]:
        if sock is not None:
            end = self._dialled.pop(sock)
            sock.close()
        else:
            end = await self.simulation.network.dial(self, (host, port))
        protocol = protocol_factory()
        end.begin(protocol)
        return end, protocol

    async def create_server(
        self, protocol_factory: Callable[[], Any], host: str | None = None, port: int = 0, **_: Any
    ) -> Listener:
        return self.simulation.network.listen(self, protocol_factory, host or "127.0.0.1", port)

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self.signal_handlers[int(sig)] = (callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self.signal_handlers.pop(int(sig), None) is not None

    # ------------------------------------------------------------------ running it

    def run_until_complete(self, future: Any) -> Any:
        """For the process that the others belong to, the harness."""
        task = asyncio.ensure_future(future, loop=self)
        try:
            self.simulation.run_until(task.done)
        except BaseException:
            if task.done() and not task.cancelled():
                task.exception()  # it is this one, or matters less
            raise
        return task.result()

    def run_forever(self) -> None:
        raise NotImplementedError("a simulation has an end: run_until_complete")

    def stop(self) -> None:
        raise NotImplementedError("a simulation has an end: run_until_complete")

    def is_running(self) -> bool:
        # Whoever asks wants to start a task at once instead of soon: aiohttp does, from Python 3.12
        # on. The order of what happens in an instant would be another than on 3.11.
        return False

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
        asyncio.BaseEventLoop.default_exception_handler(self, context)


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
