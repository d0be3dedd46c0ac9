"""Wide events and process logs of the nodes, decoded and put on the variant's time axis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from labs.harness.report.data import Level, Line, shown

PROBES = ("/health/", "/status", "/metrics", "/fault/", "/peer")


class Wide(msgspec.Struct):
    """The fields of a wide event that the report knows by name."""

    event: str
    node: str
    monotonic_ns: int = 0
    kind: str = ""
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    request_id: str | None = None
    duration_us: int | None = None
    outcome: str = ""
    method: str = ""
    path: str = ""
    status: int = 0
    peer: str = ""
    sent: list[tuple[int, str, int, str, int, int | None]] = []
    received: list[tuple[int, str, int]] = []


_COMMON = {*Wide.__struct_fields__, "time", "level"}
_decoder = msgspec.json.Decoder(Wide)


def read(path: Path) -> Iterator[tuple[Wide, bytes] | None]:
    """The events of one file with their lines; None for a line that is no event.

    A process killed while it wrote leaves half a line behind: that is no reason to show nothing.
    """
    for line in path.read_bytes().splitlines():
        try:
            yield _decoder.decode(line), line
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield None


def rest(line: bytes) -> str:
    """`term=3 leader=n2`: the fields of a line that `Wide` doesn't name."""
    fields: dict[str, Any] = msgspec.json.decode(line)
    return " ".join(
        f"{shown(name)}={shown(value)}" for name, value in fields.items() if name not in _COMMON
    )


def line_of(wide: Wide, raw: bytes, start_ns: int) -> Line:
    """A wide event as a line of the merged logs."""
    at_us = (wide.monotonic_ns - start_ns) // 1000
    if wide.kind != "span":
        return Line(at_us, wide.node, _level_of_step(wide), shown(wide.event), rest(raw))
    bad = wide.outcome != "ok"
    if wide.event in ("request", "call"):
        asked = f"{shown(wide.method)} {shown(wide.path)} → {wide.status} {shown(wide.outcome)}"
        text = f"to {shown(wide.peer)}: {asked}" if wide.event == "call" else asked
    elif wide.event == "call":
        text = (
            f"{shown(wide.method)} {shown(wide.path)} at {shown(wide.peer)} → {wide.status} "
            f"{shown(wide.outcome)}"
        )
    else:
        text = f"from {shown(wide.peer)}, {shown(wide.outcome)}"
    level: Level = "info"
    if wide.status >= 500:
        level = "error"
    elif wide.status >= 400:
        level = "warning"
    elif wide.event == "request" and wide.path.startswith(PROBES):
        level = "debug"
    return Line(
        at_us,
        wide.node,
        level,
        shown(wide.event),
        text,
        wide.trace_id,
        wide.request_id,
        wide.span_id,
        wide.parent_span_id,
        wide.duration_us,
        bad,
        shown(wide.peer) if wide.event == "call" else "",
    )


def _level_of_step(wide: Wide) -> Level:
    if wide.event == "fatal":
        return "error"
    if wide.kind == "fault" or wide.event in ("paused", "discard_suffix", "log_lost"):
        return "warning"
    return "info"


def process_lines(path: Path, node: str, start_ns: int, *, ours: bool) -> Iterator[Line]:
    """The log of a process, JSON lines. What is none is kept, at the time of the line before.

    In the log of a node of `ours` that is a traceback of the interpreter, hence an error; what
    Redis and Kafka write is always of that kind.
    """
    at_us = 0
    for raw in path.read_bytes().splitlines():
        try:
            fields = msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield Line(
                at_us,
                node,
                "error" if ours else "info",
                "output",
                shown(raw.decode("utf-8", "replace")),
            )
            continue
        stamp = fields.get("monotonic_ns")
        if isinstance(stamp, int):
            at_us = (stamp - start_ns) // 1000
        word = str(fields.get("level", "info"))
        levels: dict[str, Level] = {"debug": "debug", "info": "info", "warning": "warning"}
        text = " ".join(
            f"{shown(name)}={shown(value)}"
            for name, value in fields.items()
            if name not in ("time", "monotonic_ns", "node", "event", "level")
        )
        event = shown(str(fields.get("event", "")))
        yield Line(at_us, node, levels.get(word, "error"), event, text)
