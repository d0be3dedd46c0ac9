"""A node put together: storage, core, transport, driver, HTTP face; started and stopped.

Start: storage first (a damaged log must stop the node before anybody hears of it), then the core
from its records, then listen, then dial and tick. Stop (SIGTERM, SIGINT): accept no more, finish
what is being answered within `GRACE_S`, then stop ticking, hang up, close the storage.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, NamedTuple

from aiohttp import web

from services.chassis import health
from services.chassis.app import App, Context
from services.chassis.codec import Codec
from services.chassis.config import NodeConfig
from services.chassis.driver import Driver, StateMachine
from services.chassis.machine import Machine
from services.chassis.metrics import Metrics
from services.chassis.storage import Storage, StorageError
from services.chassis.telemetry import TEXT_MAX, Telemetry, process_log
from services.chassis.transport import Transport
from services.protocols.core import Core, Snapshot

EXIT_SOFTWARE, EXIT_OS, EXIT_STORAGE = 70, 71, 74  # sysexits.h: EX_SOFTWARE, EX_OSERR, EX_IOERR
GRACE_S = 2.0


class Chance(NamedTuple):
    """`seeded` draws the same at every start of the node, by KV_SEED; `fresh` never does."""

    seeded: Random
    fresh: Random


MakeCore = Callable[[NodeConfig, Chance, list[Any]], Core]


class Node(health.Observed):
    """One replica. To be made inside a running event loop.

    Args:
        messages, records: the protocol's MESSAGES and RECORDS.
        make_core: builds the core from the recovered records.
        state_machine: what the log is applied to.
        machine: time, files, chance; default: the real ones.

    Raises StorageError.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        messages: Iterable[type],
        records: Iterable[type],
        make_core: MakeCore,
        state_machine: StateMachine,
        machine: Machine | None = None,
    ) -> None:
        machine = machine or Machine()
        self.config = config
        self.clock = machine.clock
        self.pid = machine.pid
        self.log = process_log(config.node, self.clock, machine.output)
        self.metrics = Metrics()
        self.exit_code = 0
        self._stopping = asyncio.Event()
        files = machine.files(config.fsync)
        self.storage = Storage(config.data_dir, Codec({*records, Snapshot}), files)
        self.telemetry = Telemetry(
            config.node,
            self.clock,
            config.telemetry,
            self.log,
            random=Random(machine.random.getrandbits(64)),
            open_file=machine.open_events,
        )
        # Not the seed alone: all nodes would draw the same election timeouts and split each vote.
        seeded = Random(f"{config.seed}/{config.node}")
        chance = Chance(seeded, fresh=Random(machine.random.getrandbits(64)))
        core = make_core(config, chance, self.storage.take_records())
        self.transport = Transport(
            config.node,
            config.peers,
            Codec(messages),
            lambda frame: self.driver.receive(frame),
            random=Random(machine.random.getrandbits(64)),
            log=self.log,
            telemetry=self.telemetry,
        )
        self.driver = Driver(
            core,
            self.storage,
            self.transport,
            state_machine,
            self.clock,
            self.telemetry,
            self.metrics,
            tick_ms=config.tick_ms,
            election_ticks=config.election_ticks,
            snapshot_entries=config.snapshot_entries,
            on_fatal=self._fatal,
        )
        self.metrics.watch(self.driver.status, self.transport.counts)
        self.app = App(self.telemetry, self.metrics, self.clock, self.log)
        self.app.add_stream("/peer", self._accept_peer)
        health.add_routes(self.app, self, fault_injection=config.fault_injection)

    async def _accept_peer(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        context.fields["peer"] = request.headers.get("X-Faultline-Node", "")[:50]
        return await self.transport.accept(request)

    async def start(self) -> None:
        """Listen, dial, tick. Raises OSError when the address cannot be had."""
        listen = self.config.listen
        await self.app.start(listen.host, listen.port)
        self.transport.start()
        self.driver.start()
        self.log.info("started", listen=f"{listen.host}:{self.app.port}", **self._story())
        self.telemetry.emit({"event": "start", "kind": "process"})

    def _story(self) -> dict[str, Any]:
        return {"protocol": self.config.protocol, "data_dir": str(self.config.data_dir)}

    async def stop(self) -> None:
        """Stop in order; what is being answered may finish within `GRACE_S`."""
        if self.driver.failed is None:
            # The links stay up meanwhile: what is being answered needs its quorum.
            await self.app.drain(GRACE_S)
        self.driver.stop()
        await self.transport.close()
        await self.app.close()
        self.telemetry.emit({"event": "stop", "kind": "process", "exit_code": self.exit_code})
        self.telemetry.close()
        self.storage.close()
        self.log.info("stopped", exit_code=self.exit_code)

    def request_stop(self) -> None:
        """What SIGTERM does."""
        self._stopping.set()

    def _fatal(self, exc: BaseException) -> None:
        self.exit_code = EXIT_STORAGE if isinstance(exc, StorageError) else EXIT_SOFTWARE
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
            self.log.critical("cannot start", listen=str(self.config.listen), error=str(exc))
        finally:
            await self.stop()
        return self.exit_code

    # ------------------------------------------------------------------ health

    def not_ready(self) -> str | None:
        if not self.storage.usable:
            return "the storage is not usable"
        if self.driver.failed is not None:
            return "the node failed"
        if self.driver.status().get("leader") is None:
            return "no leader is known"
        return None

    def clock_changed(self) -> None:
        self.driver.clock_changed()
        self.telemetry.emit({"event": "set_clock", "kind": "fault", **self.clock.status()})

    def status(self) -> dict[str, Any]:
        core = self.driver.status()
        progress = core.pop("peers", None)
        progress = progress if isinstance(progress, dict) else {}
        links = self.transport.status()
        peers = {peer: {**_fields(progress.get(peer)), **links[peer]} for peer in links}
        known = {"node": self.config.node, "protocol": self.config.protocol}
        return {**known, **core, "peers": peers}


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {} if value is None else {"progress": value}
