"""A worker that acts on a resource while it leads: its lease is a key of the store.

Of several workers one at a time is to act. Each runs an `Elector` (services/protocols/lease) on the
key `leader`: who holds the lease works with several hands (`WORKER_HANDS`), each again and again:
look whether the lease is held, work for about `WORKER_WORK_MS`, write the result with the token
under which the work was begun.

Between the look and the write lies the work, and in it whatever may happen to a process. To look
again before the write would make that gap short, and never zero: the last look is always over when
the write arrives. The write is therefore sent as it is, and the fence of the resource decides.

A worker that is stopped in order finishes what it has begun and clears the key: the next one need
not wait for the term's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from services.chassis import service
from services.chassis.config import ConfigError, ServiceConfig, integer, load, node
from services.chassis.errors import (
    NotFound,
    PreconditionFailed,
    ServiceError,
    StaleToken,
)
from services.chassis.machine import Machine
from services.kv.client import KvClient
from services.protocols.lease import Action, Elector, Look, Record
from services.resource.client import ResourceClient

KEY = "leader"
RESIGN_WITHIN_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig(ServiceConfig):
    """What a worker needs to know. Of its `peers`, `resource` is what it writes to; the others
    are nodes of the store."""

    resource: str
    term_ms: int = 1_000
    drift_max_percent: int = 5
    tick_ms: int = 10
    hands: int = 4
    work_ms: int = 50

    def check(self, prefix: str) -> None:
        ServiceConfig.check(self, prefix)  # `super()` knows no class that was remade with slots
        if self.resource not in self.peers:
            raise ConfigError(f"{prefix}RESOURCE={self.resource}: allowed is one of {prefix}PEERS")
        if len(self.peers) < 2:
            raise ConfigError(f"{prefix}PEERS: allowed are the resource and a node of the store")


class Worker(service.Service):
    """See the module."""

    def __init__(self, config: WorkerConfig, machine: Machine) -> None:
        super().__init__(config, machine)
        self.config = config
        self.elector = Elector(
            config.node,
            term_s=config.term_ms / 1000,
            drift_max=config.drift_max_percent / 100,
        )
        store = {peer: str(at) for peer, at in config.peers.items() if peer != config.resource}
        self.store = KvClient(store, random=Random(machine.random.getrandbits(64)))
        self.resource = ResourceClient(config.resource, str(config.peers[config.resource]))
        self._random = Random(f"{config.seed}/{config.node}")
        self._acts = 0
        self._electing: list[asyncio.Task[None]] = []
        self._hands: list[asyncio.Task[None]] = []
        self._working = True

    async def begin(self) -> None:
        self._electing = [asyncio.create_task(self._elect())]
        self._hands = [asyncio.create_task(self._work(n)) for n in range(self.config.hands)]
        for task in (*self._electing, *self._hands):
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self.fail(bug)

    async def end(self) -> None:
        """Finish what was begun, then give the lease up: not the other way round."""
        self._working = False
        await asyncio.gather(*self._hands, return_exceptions=True)
        for task in self._electing:
            task.cancel()
        await asyncio.gather(*self._electing, return_exceptions=True)
        version = self.elector.resign()
        self._tell()
        if version is not None:
            with suppress(ServiceError):  # then it has to run out
                await self.store.delete(KEY, if_match=version, deadline_ms=RESIGN_WITHIN_MS)
        await self.store.close()
        await self.resource.close()

    # ------------------------------------------------------------------ the lease

    async def _elect(self) -> None:
        while True:
            action = self.elector.next(self.clock.monotonic())
            self._tell()
            if action is not None:
                began_ns = self.clock.true_monotonic_ns()
                await self._ask(action)
                self._tell(began_ns)
            await asyncio.sleep(self.config.tick_ms / 1000)

    async def _ask(self, action: Action) -> None:
        """Carry an action out. A quarter of the term: then there is time to ask another node."""
        deadline_ms = max(1, self.config.term_ms // 4)
        elector, now = self.elector, self.clock.monotonic
        try:
            if isinstance(action, Look):
                reply = await self.store.get(KEY, deadline_ms=deadline_ms)
                elector.saw(now(), _record(reply.value, reply.version))
            else:
                mine = {"holder": action.node}
                reply = await self.store.cas(
                    KEY, mine, version=action.version, deadline_ms=deadline_ms
                )
                elector.wrote(now(), reply.version)
        except NotFound:
            elector.saw(now(), None)
        except PreconditionFailed as refused:
            elector.refused(now(), _record(refused.value, refused.version))
        except ServiceError:
            elector.lost(now())

    def _tell(self, began_ns: int | None = None) -> None:
        for event in self.elector.take_events():
            fields = event.fields if began_ns is None else {**event.fields, "began_ns": began_ns}
            self.telemetry.emit({"event": event.name, "kind": "protocol", "key": KEY, **fields})
            self.log.info(event.name, **event.fields)

    # ------------------------------------------------------------------ the work

    async def _work(self, hand: int) -> None:
        while self._working:
            if self.elector.holds(self.clock.monotonic()):
                token = self.elector.token
                assert token is not None, "held without a token"
                await self._act(hand, token)
            else:
                await asyncio.sleep(self.config.tick_ms / 1000)

    async def _act(self, hand: int, token: int) -> None:
        """One act under `token`: work, then write what came of it."""
        # Not the same each time, or the hands, which begin together, would all write at once.
        await asyncio.sleep(self._random.uniform(0.5, 1.5) * self.config.work_ms / 1000)
        self._acts += 1
        value = f"{self.name}-{self._acts}"
        trace_id, span_id = self.telemetry.new_trace_id(), self.telemetry.new_span_id()
        headers = {"traceparent": f"00-{trace_id}-{span_id}-01", "X-Request-Id": value}
        began_ns, outcome, status, position = self.clock.true_monotonic_ns(), "ok", 200, None
        definite = True
        try:
            position = await self.resource.write(value, token=token, headers=headers)
        except ServiceError as exc:
            outcome, status, definite = exc.slug, exc.status, exc.definite
            if isinstance(exc, StaleToken):
                self.elector.fenced(token)
        ended_ns = self.clock.true_monotonic_ns()
        self.telemetry.emit(
            {
                "event": "call",
                "kind": "span",
                "trace_id": trace_id,
                "span_id": span_id,
                "parent_span_id": None,
                "request_id": value,
                "peer": self.resource.name,
                "method": "PUT",
                "path": "/value",
                "status": status,
                "outcome": outcome,
                "definite": definite,
                "duration_us": (ended_ns - began_ns) // 1000,
                "began_ns": began_ns,
                "hand": hand,
                "token": token,
                "value": value,
                "position": position,
            }
        )
        if outcome not in ("ok", StaleToken.slug):
            await asyncio.sleep(self.config.tick_ms / 1000)  # no busy loop against what is down

    # ------------------------------------------------------------------ what it says of itself

    def details(self) -> dict[str, Any]:
        holds = self.elector.holds(self.clock.monotonic())
        return {
            "role": "holder" if holds else "contender",
            "token": self.elector.token if holds else None,
            "holder": self.elector.holder,
            "acts": self._acts,
        }

    def not_ready(self) -> str | None:
        return None if self.elector.known else "the store has not told who leads"


def _record(value: Any, version: int | None) -> Record | None:
    """The register as the elector knows it; whatever somebody else wrote there is not us."""
    if version is None:
        return None
    holder = value.get("holder") if isinstance(value, dict) else None
    return Record(version, holder if isinstance(holder, str) else "")


def make(environ: Mapping[str, str], machine: Machine) -> Worker:
    """A worker, configured by WORKER_* in the environment. Raises ConfigError."""
    parsers = {
        "resource": node,
        "term_ms": integer(10, 3_600_000, "ms"),
        "drift_max_percent": integer(0, 1_000, "percent"),
        "tick_ms": integer(1, 10_000, "ms"),
        "hands": integer(1, 100),
        "work_ms": integer(0, 60_000, "ms"),
    }
    return Worker(load(WorkerConfig, environ, "WORKER_", parsers), machine)


async def serve(environ: Mapping[str, str], machine: Machine) -> int:
    """Run a worker on `machine` until it is told to stop; returns the exit code."""
    return await service.serve(make, environ, machine)


def main(environ: Mapping[str, str]) -> int:
    """Run a worker as a process of its own; returns the exit code."""
    return service.run_process(make, environ)
