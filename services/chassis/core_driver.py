"""What drives any core: one loop for what arrives, ticks by the node's own clock, failing loudly.

All that arrives in one iteration of the event loop (requests, frames, a tick) is one `ready()`,
hence one fdatasync; while that blocks, the next batch gathers in the sockets. Measured here, the
blocking call beats a thread at every load; it delays heartbeats by one fsync (p99 1 ms), so the
election timeout must stay far above the disk's.

An exception in core, storage or state machine stops the node: a replica whose memory no longer
agrees with its disk must not go on voting.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from services.chassis.clock import Clock
from services.chassis.codec import Frame
from services.chassis.errors import (
    InternalError,
    NotLeader,
    ServiceError,
    Unavailable,
)
from services.chassis.metrics import Metrics
from services.chassis.storage import Storage
from services.chassis.telemetry import TEXT_MAX, Telemetry, parse_traceparent
from services.chassis.transport import Transport
from services.protocols import core as protocol

ROUNDS_MAX = 16  # of ready() in one go, before the sockets get their turn


class CoreDriver(ABC):
    """Runs one core; `_carry_out` is its kind's own.

    Args:
        tick_ms: milliseconds of `clock` per tick of the core.
        election_ticks: after a pause of the process, at most this many missed ticks are made up.
        on_fatal: told, once, what stopped the driver.
    """

    def __init__(
        self,
        core: Any,
        storage: Storage,
        transport: Transport,
        clock: Clock,
        telemetry: Telemetry,
        metrics: Metrics,
        *,
        tick_ms: int,
        election_ticks: int,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.core = core
        self.failed: BaseException | None = None
        self._storage = storage
        self._transport = transport
        self._clock = clock
        self._telemetry = telemetry
        self._metrics = metrics
        self._tick_s = tick_ms / 1000
        self._election_ticks = election_ticks
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._running = False
        self._scheduled = False
        self._last_tick = 0.0
        self._tick_handle: asyncio.TimerHandle | None = None
        self._arrived: list[tuple[str, list[str], int]] = []  # frames that carry traces

    # ------------------------------------------------------------------ for its kind to say

    @abstractmethod
    def _carry_out(self, ready: Any) -> None:
        """Do what the core has decided, in the order that its kind promises."""

    @abstractmethod
    def not_ready(self) -> str | None:
        """Why it cannot serve anybody now; None when it can."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """The core's status with what the driver adds."""

    @abstractmethod
    def _answer_all(self) -> None:
        """The node stops: whoever still waits is told what is known."""

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to tick."""
        self._running = True
        self._last_tick = self._clock.monotonic()
        self._schedule_tick()
        self._wake()

    def stop(self) -> None:
        """Tick no more; who still waits gets an error: of a write an indefinite one."""
        self._running = False
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._answer_all()

    def clock_changed(self) -> None:
        """The clock's rate was changed: the next tick is due at another moment."""
        if self._running:
            self._schedule_tick()

    def _fatal(self, exc: BaseException) -> None:
        if self.failed is None:
            self.failed = exc
            self.stop()
            self._on_fatal(exc)

    # ------------------------------------------------------------------ inputs

    def receive(self, frame: Frame) -> None:
        """A frame from a peer."""
        if not self._running:
            return
        for message in frame.messages:
            name = type(message).__name__
            if message.src != frame.src or message.dst != self.core.node:
                self._transport.counts.dropped["misrouted"] += 1
                continue
            self._transport.counts.received[name] += 1
            try:
                self.core.step(message)
            except Exception as exc:
                self._fatal(exc)
                return
        if frame.traceparents:
            self._arrived.append((frame.src, frame.traceparents, self._clock.true_monotonic_ns()))
        self._wake()

    def _ask_core(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except protocol.NotLeader as exc:
            raise not_leader(exc.leader) from None
        except protocol.Busy as exc:
            raise Unavailable(str(exc) or "too much is in flight") from None
        except ServiceError:
            raise  # a refusal that whoever asks has put into words already: the core is as it was
        except Exception as exc:
            self._fatal(exc)
            raise InternalError("the node failed and is stopping") from exc

    def _require_running(self) -> None:
        if not self._running:
            raise Unavailable("the node is not running")

    # ------------------------------------------------------------------ time

    def _schedule_tick(self) -> None:
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        left_s = self._last_tick + self._tick_s - self._clock.monotonic()
        self._tick_handle = self._loop.call_later(max(0.0, left_s) / self._clock.rate, self._tick)

    def _tick(self) -> None:
        self._tick_handle = None  # it has run
        self._advance_ticks()
        if self._running:
            self._schedule_tick()
            self._wake()

    def _advance_ticks(self) -> None:
        """Tell the core of the time that has passed, in ticks.

        After a pause (SIGSTOP, a swapped-out machine) the missed ticks are made up, for a leader
        has to see that its lease is over. But no more than `election_ticks`: that is enough for
        any lease, and a follower that got a minute's worth at once would campaign several times
        before it reads the heartbeats that wait in its sockets.
        """
        due = int((self._clock.monotonic() - self._last_tick) / self._tick_s)
        if due <= 0:
            return
        self._last_tick += due * self._tick_s
        if due > self._election_ticks:
            late_ms = round(due * self._tick_s * 1000)
            self._telemetry.emit({"event": "paused", "kind": "process", "late_ms": late_ms})
        try:
            for _ in range(min(due, self._election_ticks)):
                self.core.tick()
        except Exception as exc:
            self._fatal(exc)

    # ------------------------------------------------------------------ outputs

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if not self._running:
            return
        try:
            for _ in range(ROUNDS_MAX):
                ready = self.core.ready()
                if ready is protocol.NOTHING or not ready:
                    break
                self._carry_out(ready)
            else:
                self._wake()
        except Exception as exc:
            self._fatal(exc)
            return
        if self._arrived:
            self._tell_replication()

    def _tell_replication(self) -> None:
        """A span per client request whose entries came by a frame and are persisted now."""
        arrived, self._arrived = self._arrived, []
        now = self._clock.true_monotonic_ns()
        for src, traceparents, since in arrived:
            for header in traceparents:
                traceparent, _, request_id = header.partition(" ")
                parent = parse_traceparent(traceparent)
                if parent is None or not parent.sampled:
                    continue
                self._telemetry.emit(
                    {
                        "event": "replicate",
                        "kind": "span",
                        "trace_id": parent.trace_id,
                        "span_id": self._telemetry.new_span_id(),
                        "parent_span_id": parent.span_id,
                        "request_id": request_id[:TEXT_MAX],
                        "peer": src,
                        "duration_us": (now - since) // 1000,
                        "outcome": "ok",
                    }
                )


def not_leader(leader: str | None) -> NotLeader | Unavailable:
    """The error of a node that cannot do it; with `leader`, the one to ask."""
    if leader is None:
        return Unavailable("no leader is known", leader=None)
    return NotLeader(f"ask {leader}", leader=leader)
