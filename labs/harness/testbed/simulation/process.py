"""One start of one node: its loop, its machine, and how it ended.

A service that is to run here has, beside its `main(environ)`, what `main` runs: `make(environ,
machine)`, which gives a `Service`, or a coroutine `serve(environ, machine) -> exit code`.
"""

from __future__ import annotations

import io
import signal
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from labs.harness.testbed.simulation.disk import Disk, SimulatedFiles
from labs.harness.testbed.simulation.loop import VirtualLoop
from labs.harness.testbed.simulation.scheduler import WALL_AT_ZERO_S, Simulation
from services.chassis.machine import Clock, EventFile, Machine
from services.chassis.service import serve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labs.harness.testbed.description import State

LOG_LINES = 20
START_NS, START_SPREAD_NS = 10_000_000, 20_000_000  # from the fork to the first line of the service

Serve = Callable[["Mapping[str, str]", Machine], Coroutine[Any, Any, int]]


def service(module: str) -> Serve:
    """How the service of that module is run. Raises ImportError, AttributeError."""
    found = import_module(module)
    if hasattr(found, "serve"):
        return cast(Serve, found.serve)
    return partial(serve, found.make)


class Output(io.TextIOBase):
    """What a process prints, appended to its log; the dead print nothing."""

    def __init__(self, path: Path, loop: VirtualLoop) -> None:
        self._path = path
        self._loop = loop

    def write(self, text: str) -> int:
        if not self._loop.dead:
            with self._path.open("a") as log:
                log.write(text)
        return len(text)


class SimulatedEvents(EventFile):
    """Wide events of a process: what it had not flushed when it was killed is lost."""

    def __init__(self, path: Path, loop: VirtualLoop) -> None:
        super().__init__(path)
        self._loop = loop

    def write(self, data: bytes) -> None:
        if not self._loop.dead:
            super().write(data)


class Process:
    """A started node. `exit_code` is None while it lives, negative for a signal."""

    def __init__(
        self, simulation: Simulation, name: str, number: int, disk: Disk, log: Path
    ) -> None:
        self.name = name
        self.exit_code: int | None = None
        self.loop = VirtualLoop(simulation, name)
        self._simulation = simulation
        self._disk = disk
        self._log = log
        self._events: list[SimulatedEvents] = []
        self._on_end: list[Callable[[], None]] = []
        self._output = Output(log, self.loop)
        self.loop.on_system_exit = self._system_exit
        self.loop.set_exception_handler(self._uncaught)
        self._pid = 1_000 + number
        self._chance = simulation.random(f"chance of {name} {number}")

    @property
    def state(self) -> State:
        if self.loop.dead:
            return "stopped"
        return "paused" if self.loop.paused else "running"

    def start(self, serve: Serve, environ: Mapping[str, str]) -> None:
        """Begin, some milliseconds from now."""
        machine = Machine(
            clock=Clock(lambda: WALL_AT_ZERO_S + self.loop.time(), self.loop.time),
            files=lambda fsync: SimulatedFiles(
                self._disk, self.loop, synchronizes=fsync != "never"
            ),
            random=self._chance,
            output=cast(TextIO, self._output),
            open_events=self._open_events,
            pid=self._pid,
        )
        after_ns = START_NS + int(self._chance.random() * START_SPREAD_NS)
        self._simulation.at(
            self._simulation.now_ns + after_ns,
            lambda: self.loop.call_soon(
                self._run, serve, environ, machine, context=self.loop.context
            ),
        )

    def _run(self, serve: Serve, environ: Mapping[str, str], machine: Machine) -> None:
        self.loop.create_task(serve(environ, machine)).add_done_callback(self._done)

    def _open_events(self, path: Path) -> SimulatedEvents:
        events = SimulatedEvents(path, self.loop)
        self._events.append(events)
        return events

    def _done(self, task: Any) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SystemExit):
            return  # `_system_exit` is told
        if error is not None:
            self._output.write("".join(traceback.format_exception(error)))
        self._end(1 if error is not None or task.cancelled() else task.result())

    def _system_exit(self, exit_: SystemExit) -> None:
        self._end(exit_.code if isinstance(exit_.code, int) else 1)

    def _uncaught(self, _: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        said = "".join(traceback.format_exception(error)) if error is not None else ""
        self._output.write(f"{context.get('message')}\n{said}")

    def _end(self, code: int) -> None:
        if self.loop.dead:
            return
        self.exit_code = code
        self.loop.die()
        for events in self._events:
            events.close()
        for told in self._on_end:
            told()

    def kill(self) -> None:
        """SIGKILL, or the power fails: see `Disk`."""
        if not self.loop.dead:
            self._disk.killed(self._simulation.now_ns)
            self._end(-signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: the process does about it what it has said, or ends."""
        handler = self.loop.signal_handlers.get(signal.SIGTERM)
        if handler is None:
            self._end(-signal.SIGTERM)
        else:
            self.loop.call_soon(handler[0], *handler[1], context=self.loop.context)

    def on_end(self, told: Callable[[], None]) -> None:
        self._on_end.append(told)

    def last_lines(self) -> str:
        try:
            return "\n".join(self._log.read_text().splitlines()[-LOG_LINES:])
        except OSError:
            return "(nothing)"
