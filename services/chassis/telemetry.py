"""Wide events, trace context and process logs.

One **wide event** per request or protocol step: a JSON line with all that is known about it. A
report makes both the log line and the span from it; measured, that is a quarter of the cost of
auto-instrumentation beside separate logs. Events are buffered and written every 20 ms: longer
intervals stall the event loop when they end (200 ms: p99 7.6 ms; 20 ms: 1.9 ms), none at all would
cost a system call each. A killed process loses at most that interval.

Fields of every event: `time` (this node's wall clock, seconds: it may be bumped), `monotonic_ns`
(the machine's, untouched by clock faults: order by this), `node`, `event`. Events of a request add
`trace_id`, `span_id`, `parent_span_id`, `request_id`, `duration_us`, `outcome`. Text that came from
outside is cut to `TEXT_MAX`: a log is no place for payload.

Frames between nodes are far more than requests, so they have no event each: one event `frames` per
flush lists them, `sent` as [monotonic_ns, peer, number, message types, messages, term] and
`received` as [monotonic_ns, peer, number]. Peer and number join the two ends; what was sent and
never received was lost.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Protocol, TextIO

import msgspec
import structlog

from services.chassis.clock import Clock

FLUSH_INTERVAL_S = 0.020
BUFFERED_EVENTS_MAX = 5_000
TEXT_MAX = 256

# https://www.w3.org/TR/trace-context/#traceparent-header; version ff is invalid, as are zero ids.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


class TraceParent(NamedTuple):
    """The caller's span. `sampled`: whoever began the trace wants it recorded.

    Head sampling: the decision is made once, at the root, and goes along, so that a trace is there
    as a whole or not at all. What is not sampled leaves no event, so no log line either.
    """

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse_traceparent(header: str | None) -> TraceParent | None:
    """The span that a `traceparent` header names; None when absent or malformed.

    The specification demands to start a new trace then, not to refuse the request.
    """
    if header is None or len(header) > 512:
        return None
    match = _TRACEPARENT.fullmatch(header)
    return TraceParent(match[1], match[2], bool(int(match[3], 16) & 1)) if match else None


class EventFile:
    """Where the events of a node go: a file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o644)

    def write(self, data: bytes) -> None:
        """Append all of `data`. Raises OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SpanSink(Protocol):
    """Takes spans elsewhere, too (`otlp.SpanExport`)."""

    def add(self, event: Mapping[str, Any]) -> None:
        """Returns at once. The event is complete, and nobody changes it any more."""


class Telemetry:
    """Writes the wide events of one node to a file; without a path it swallows them.

    `spans`: is given the events that are spans, with or without a file.

    `random`: draws the ids. By default it is seeded by the operating system in this process: the
    generator of the `random` module is copied by fork, and all nodes of a local cluster would draw
    the same trace ids.
    """

    def __init__(
        self,
        node: str,
        clock: Clock,
        path: Path | None,
        log: Any,
        *,
        random: Random | None = None,
        open_file: Callable[[Path], EventFile] = EventFile,
        spans: SpanSink | None = None,
    ) -> None:
        self.node = node
        self.enabled = path is not None or spans is not None
        self._spans = spans
        self.lost = 0
        self._clock = clock
        self._log = log
        self._encoder = msgspec.json.Encoder(enc_hook=repr)
        self._events: list[dict[str, Any]] = []
        self._sent: list[tuple[int, str, int, str, int, int | None]] = []
        self._received: list[tuple[int, str, int]] = []
        self._flush_handle: asyncio.TimerHandle | None = None
        self._random = random or Random()
        self._file = None if path is None else open_file(path)

    def new_trace_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._random.getrandbits(128) or 1:032x}"

    def new_span_id(self) -> str:
        """16 hexadecimal digits."""
        return f"{self._random.getrandbits(64) or 1:016x}"

    def emit(self, event: dict[str, Any]) -> None:
        """Keep an event (`event` names it) for the next flush; the common fields are added."""
        if not self.enabled:
            return
        event["time"] = self._clock.wall()
        event["monotonic_ns"] = self._clock.true_monotonic_ns()
        event["node"] = self.node
        if self._file is not None:
            self._events.append(event)
            self._schedule(len(self._events))
        if self._spans is not None and event.get("kind") == "span":
            self._spans.add(event)

    def frame_sent(
        self, peer: str, number: int, names: str, messages: int, term: int | None
    ) -> None:
        """A frame of `messages`, of the types `names` (joined by `+`), is on its way to `peer`."""
        if self._file is not None:
            now = self._clock.true_monotonic_ns()
            self._sent.append((now, peer, number, names, messages, term))
            self._schedule(len(self._sent))

    def frame_received(self, peer: str, number: int) -> None:
        """The frame that `peer` calls `number` has come."""
        if self._file is not None:
            self._received.append((self._clock.true_monotonic_ns(), peer, number))
            self._schedule(len(self._received))

    def _schedule(self, buffered: int) -> None:
        if buffered >= BUFFERED_EVENTS_MAX:
            self.flush()
        elif self._flush_handle is None:
            loop = asyncio.get_running_loop()
            self._flush_handle = loop.call_later(FLUSH_INTERVAL_S, self.flush)

    def _tell_frames(self) -> None:
        if self._sent or self._received:
            self._events.append(
                {
                    "event": "frames",
                    "kind": "frames",
                    "sent": self._sent,
                    "received": self._received,
                    "time": self._clock.wall(),
                    "monotonic_ns": self._clock.true_monotonic_ns(),
                    "node": self.node,
                }
            )
            self._sent, self._received = [], []

    def flush(self) -> None:
        """Write what is buffered. A full disk costs events, never the node."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._tell_frames()
        events, self._events = self._events, []
        if not events or self._file is None:
            return
        try:
            self._file.write(self._encoder.encode_lines(events))
        except OSError as exc:
            if not self.lost:
                self._log.warning("telemetry is being lost", error=str(exc))
            self.lost += len(events)

    def close(self) -> None:
        """Flush, and write no more."""
        self.flush()
        self.enabled = False
        if self._file is not None:
            self._file.close()
            self._file = None


def process_log(node: str, clock: Clock, output: TextIO | None = None) -> Any:
    """A structlog logger: JSON lines on `output` (default: stderr).

    For start, stop and warnings, not for requests.
    """

    def stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        own = {"time": clock.wall(), "monotonic_ns": clock.true_monotonic_ns(), "node": node}
        return {**own, **event}

    # Wrapped by itself, not by structlog.configure(): tests run several nodes in one process.
    return structlog.wrap_logger(
        structlog.PrintLogger(output or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            stamp,
            structlog.processors.JSONRenderer(
                serializer=lambda event, **_: msgspec.json.encode(event, enc_hook=repr).decode()
            ),
        ],
        wrapper_class=structlog.BoundLogger,
        context_class=dict,
    )
