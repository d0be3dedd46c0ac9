"""A replica put together: storage, core, transport, driver, HTTP face.

Start: storage first (a damaged log must stop the node before anybody hears of it), then the core
from its records, then listen, then dial and tick. Stop: accept no more, finish what is being
answered, then stop ticking, hang up, close the storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, NamedTuple

from aiohttp import web

from services.chassis.app import Context
from services.chassis.clock import Clock
from services.chassis.codec import Codec
from services.chassis.core_driver import CoreDriver
from services.chassis.machine import Machine
from services.chassis.metrics import Metrics
from services.chassis.node_config import NodeConfig
from services.chassis.service import EXIT_SOFTWARE, Service
from services.chassis.storage import Storage, StorageError
from services.chassis.telemetry import Telemetry
from services.chassis.transport import Transport
from services.protocols.core import Snapshot

EXIT_STORAGE = 74  # sysexits.h: EX_IOERR


class Chance(NamedTuple):
    """`seeded` draws the same at every start of the node, by KV_SEED; `fresh` never does."""

    seeded: Random
    fresh: Random


MakeDriver = Callable[["Node", Chance, list[Any]], CoreDriver]


class Node(Service):
    """One replica. To be made inside a running event loop.

    Args:
        messages, records: the protocol's MESSAGES and RECORDS.
        make_driver: builds the core from the recovered records, and what drives it from the
            node's `parts` and `pace`.
        machine: time, files, chance; default: the real ones.

    Raises StorageError.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        messages: Iterable[type],
        records: Iterable[type],
        make_driver: MakeDriver,
        machine: Machine | None = None,
    ) -> None:
        machine = machine or Machine()
        files = machine.files(config.fsync)
        self.storage = Storage(config.data_dir, Codec({*records, Snapshot}), files)
        super().__init__(config, machine)
        self.config = config
        # Not the seed alone: all nodes would draw the same election timeouts and split each vote.
        seeded = Random(f"{config.seed}/{config.node}")
        chance = Chance(seeded, fresh=Random(machine.random.getrandbits(64)))
        self.transport = Transport(
            config.node,
            config.peers,
            Codec(messages),
            lambda frame: self.driver.receive(frame),
            random=Random(machine.random.getrandbits(64)),
            log=self.log,
            telemetry=self.telemetry,
        )
        self.driver = make_driver(self, chance, self.storage.take_records())
        self.metrics.watch(self.driver.status, self.transport.counts)
        self.app.add_stream("/peer", self._accept_peer)

    @property
    def parts(self) -> tuple[Storage, Transport, Clock, Telemetry, Metrics]:
        """What every driver is made of, beside its core."""
        return self.storage, self.transport, self.clock, self.telemetry, self.metrics

    @property
    def pace(self) -> dict[str, Any]:
        """How fast it ticks, and who is told when it fails."""
        return {
            "tick_ms": self.config.tick_ms,
            "election_ticks": self.config.election_ticks,
            "on_fatal": self._fatal,
        }

    async def _accept_peer(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        context.fields["peer"] = request.headers.get("X-Faultline-Node", "")[:50]
        return await self.transport.accept(request)

    async def begin(self) -> None:
        self.transport.start()
        self.driver.start()

    async def end(self) -> None:
        self.driver.stop()
        await self.transport.close()

    def worth_draining(self) -> bool:
        # The links stay up meanwhile: what is being answered needs its quorum.
        return self.driver.failed is None

    def closed(self) -> None:
        self.storage.close()

    def story(self) -> dict[str, Any]:
        return {"protocol": self.config.protocol, "data_dir": str(self.config.data_dir)}

    def _fatal(self, exc: BaseException) -> None:
        self.fail(exc, EXIT_STORAGE if isinstance(exc, StorageError) else EXIT_SOFTWARE)

    # ------------------------------------------------------------------ health

    def not_ready(self) -> str | None:
        if not self.storage.usable:
            return "the storage is not usable"
        if self.driver.failed is not None:
            return "the node failed"
        return self.driver.not_ready()

    def clock_changed(self) -> None:
        self.driver.clock_changed()
        super().clock_changed()

    def details(self) -> dict[str, Any]:
        core = self.driver.status()
        progress = core.pop("peers", None)
        progress = progress if isinstance(progress, dict) else {}
        links = self.transport.status()
        peers = {peer: {**_fields(progress.get(peer)), **links[peer]} for peer in links}
        return {"protocol": self.config.protocol, **core, "peers": peers}


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {} if value is None else {"progress": value}
