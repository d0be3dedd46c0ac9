"""What every service is: an HTTP face with health, metrics and telemetry, started and stopped.

    class Orders(Service):
        def __init__(self, config: OrdersConfig, machine: Machine) -> None:
            super().__init__(config, machine)
            self.app.add("POST", "/orders", self.order)

        async def begin(self) -> None: ...   # what it needs beside its face: connections, tasks
        async def end(self) -> None: ...     # and how it is given back

    def main(environ: Mapping[str, str]) -> int:
        return run_process(make, environ)

Start: listen, then `begin`. Stop (SIGTERM, SIGINT): accept no more, finish what is being answered
within `GRACE_S`, then `end`, hang up. A balancer in front sees the refused connection; what was
accepted is answered.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from services.chassis import health
from services.chassis.app import App
from services.chassis.config import EXIT_BAD_CONFIGURATION, ConfigError, ServiceConfig
from services.chassis.loop import new_event_loop
from services.chassis.machine import Machine
from services.chassis.metrics import Metrics
from services.chassis.telemetry import TEXT_MAX, Telemetry, process_log

if TYPE_CHECKING:
    from services.chassis.otlp import SpanExport

EXIT_SOFTWARE, EXIT_OS = 70, 71  # sysexits.h: EX_SOFTWARE, EX_OSERR
GRACE_S = 2.0


class Service(health.Observed):
    """One process of a service. To be made inside a running event loop.

    `machine`: time, files, chance; default: the real ones. What differs between services is in
    `begin`, `end`, `not_ready`, `details` and the routes that they add to `app`.
    """

    def __init__(self, config: ServiceConfig, machine: Machine | None = None) -> None:
        machine = machine or Machine()
        self.machine = machine
        self.clock = machine.clock
        self.pid = machine.pid
        self.name = config.node
        self.log = process_log(config.node, self.clock, machine.output)
        self.metrics = Metrics()
        self.exit_code = 0
        self._listen = config.listen
        self._stopping = asyncio.Event()
        self._spans = self._span_export(config)
        self.telemetry = Telemetry(
            config.node,
            self.clock,
            config.telemetry,
            self.log,
            spans=self._spans,
            random=Random(machine.random.getrandbits(64)),
            open_file=machine.open_events,
        )
        self.app = App(self.telemetry, self.metrics, self.clock, self.log)
        health.add_routes(self.app, self, fault_injection=config.fault_injection)

    def _span_export(self, config: ServiceConfig) -> SpanExport | None:
        if not config.otlp:
            return None
        from services.chassis.otlp import SpanExport  # only now: 0.3 s and 20 MB

        export = SpanExport(config.otlp, config.service, config.node, self.log)
        export.register(self.metrics.registry)
        return export

    # ------------------------------------------------------------------ for the service to say

    async def begin(self) -> None:
        """Everything beside the HTTP face, which listens already. Raises OSError."""

    async def end(self) -> None:
        """Give back what `begin` took, whether or not it came to its end."""

    def worth_draining(self) -> bool:
        """Can what is being answered still come to its end?"""
        return True

    def story(self) -> dict[str, Any]:
        """What the log's first line tells beside the address."""
        return {}

    def details(self) -> dict[str, Any]:
        """What `/status` tells beside the name."""
        return {}

    def not_ready(self) -> str | None:
        return None

    def clock_changed(self) -> None:
        self.telemetry.emit({"event": "set_clock", "kind": "fault", **self.clock.status()})

    def status(self) -> dict[str, Any]:
        return {"node": self.name, **self.details()}

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Listen and begin. Raises OSError when the address cannot be had."""
        await self.app.start(self._listen.host, self._listen.port)
        await self.begin()
        self.log.info("started", listen=f"{self._listen.host}:{self.app.port}", **self.story())
        self.telemetry.emit({"event": "start", "kind": "process"})

    async def stop(self) -> None:
        """Stop in order; what is being answered may finish within `GRACE_S`."""
        if self.worth_draining():
            await self.app.drain(GRACE_S)
        await self.end()
        await self.app.close()
        self.telemetry.emit({"event": "stop", "kind": "process", "exit_code": self.exit_code})
        self.telemetry.close()
        if self._spans is not None:
            await self._spans.close()
        self.closed()
        self.log.info("stopped", exit_code=self.exit_code)

    def closed(self) -> None:
        """The last to be closed: nobody asks, nobody is told any more."""

    def request_stop(self) -> None:
        """What SIGTERM does."""
        self._stopping.set()

    def fail(self, exc: BaseException, exit_code: int = EXIT_SOFTWARE) -> None:
        """Something is wrong that it cannot go on with: tell, and stop."""
        self.exit_code = exit_code
        self.log.critical("the node fails and stops", exc_info=exc)
        self.telemetry.emit({"event": "fatal", "kind": "process", "error": str(exc)[:TEXT_MAX]})
        self._stopping.set()

    async def run(self) -> int:
        """Serve until SIGTERM, SIGINT or a fatal error; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        try:
            await self.start()
            await self._stopping.wait()
        except OSError as exc:
            self.exit_code = EXIT_OS
            self.log.critical("cannot start", listen=str(self._listen), error=str(exc))
        finally:
            await self.stop()
        return self.exit_code


class StartError(Exception):
    """Why a service cannot even be made, in one line, and the exit code of the process."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


Make = Callable[[Mapping[str, str], Machine], Service]


async def serve(make: Make, environ: Mapping[str, str], machine: Machine) -> int:
    """Run a service until it is told to stop; returns the exit code (2: bad configuration)."""
    try:
        service = make(environ, machine)
    except ConfigError as exc:
        print(exc, file=machine.output)
        return EXIT_BAD_CONFIGURATION
    except StartError as exc:
        print(exc, file=machine.output)
        return exc.exit_code
    return await service.run()


def run_process(make: Make, environ: Mapping[str, str]) -> int:
    """`serve` as a process of its own."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(serve(make, environ, Machine()))
