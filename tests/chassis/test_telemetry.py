"""Trace context, wide events and their file."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from services.chassis.clock import Clock
from services.chassis.telemetry import (
    BUFFERED_EVENTS_MAX,
    Telemetry,
    TraceParent,
    parse_traceparent,
    process_log,
)
from tests.chassis.fakes import until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        (f"00-{TRACE}-{SPAN}-01", TraceParent(TRACE, SPAN)),
        (f"00-{TRACE}-{SPAN}-00", TraceParent(TRACE, SPAN, sampled=False)),
        (f"00-{TRACE}-{SPAN}-03", TraceParent(TRACE, SPAN)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", TraceParent(TRACE, SPAN)),
        (None, None),
        ("", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01" + "-x" * 500, None),
    ],
)
def test_traceparent(header: str | None, parsed: TraceParent | None) -> None:
    """W3C Trace Context §3.2: version-traceid-parentid-flags; ff and all zeros are invalid."""
    assert parse_traceparent(header) == parsed


def make(path: Path | None) -> Telemetry:
    clock = Clock()
    return Telemetry("n1", clock, path, process_log("n1", clock))


async def test_events_reach_the_file(tmp_path: Path) -> None:
    """Events are written within milliseconds, whole lines, with the common fields."""
    path = tmp_path / "new" / "events.jsonl"
    telemetry = make(path)
    telemetry.emit({"event": "a", "value": b"\xff", "odd": {1, 2}})
    telemetry.emit({"event": "b"})
    await until(lambda: path.stat().st_size, within_s=10.0)
    events = [json.loads(line) for line in path.read_text().splitlines()]

    assert [event["event"] for event in events] == ["a", "b"]
    assert all({"time", "monotonic_ns", "node"} <= event.keys() for event in events)
    telemetry.close()


async def test_bounded(tmp_path: Path) -> None:
    """The buffer is bounded: a burst is written before the interval ends."""
    path = tmp_path / "events.jsonl"
    telemetry = make(path)
    for _ in range(BUFFERED_EVENTS_MAX):
        telemetry.emit({"event": "x"})

    assert len(path.read_text().splitlines()) == BUFFERED_EVENTS_MAX
    telemetry.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
async def test_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk costs events and one warning, never the node."""
    telemetry = make(Path("/dev/full"))
    for _ in range(3):
        telemetry.emit({"event": "x"})
        telemetry.flush()

    assert telemetry.lost == 3
    telemetry.close()


async def test_off() -> None:
    """Without a file nothing is kept."""
    telemetry = make(None)
    telemetry.emit({"event": "x"})
    await asyncio.sleep(0)

    assert telemetry._events == []
    telemetry.close()


async def test_frames_have_one_event_a_flush(tmp_path: Path) -> None:
    """Frames are many: one event lists those of an interval, by peer and number, at both ends."""
    path = tmp_path / "events.jsonl"
    telemetry = make(path)
    telemetry.frame_sent("n2", 1, "AppendEntries", 3, 7)
    telemetry.frame_sent("n3", 1, "Heartbeat", 1, None)
    telemetry.frame_received("n2", 5)
    telemetry.flush()
    (event,) = [json.loads(line) for line in path.read_text().splitlines()]

    assert [sent[1:] for sent in event["sent"]] == [
        ["n2", 1, "AppendEntries", 3, 7],
        ["n3", 1, "Heartbeat", 1, None],
    ]
    assert [received[1:] for received in event["received"]] == [["n2", 5]]
    telemetry.close()
