"""A hand-made run in which services call each other: what a trace of several looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tests.report.runs import START_NS, ids, make_run

NUMBER = 2  # of the operation that goes through all of them; it is sent at 30 ms
SENT_MS = 30


def add_calls(directory: Path) -> Path:
    """Let the operation go through a gateway and a slow link to n2; the run's directory."""
    make_run(directory)
    own = directory / "odd-store"
    trace = ids(NUMBER)

    def span(node: str, event: str, span_id: str, parent: str, begin_ms: float, end_ms: float,
             **more: Any) -> dict[str, Any]:  # fmt: skip
        return {
            "event": event, "kind": "span", "node": node, "time": 1.0,
            "trace_id": trace["trace_id"], "request_id": trace["request_id"],
            "span_id": span_id, "parent_span_id": parent, "outcome": "ok", "status": 200,
            "method": "PUT", "path": "/orders/<b>17</b>",
            "monotonic_ns": START_NS + int((SENT_MS + end_ms) * 1e6),
            "duration_us": int((end_ms - begin_ms) * 1000), **more,
        }  # fmt: skip

    spans = [
        span("gateway", "request", "a" * 16, trace["span_id"], 0.1, 1.9),
        span("gateway", "call", "b" * 16, "a" * 16, 0.2, 1.8, peer="n2"),
        span("n2", "request", "c" * 16, "b" * 16, 0.9, 1.0),
    ]
    encode = msgspec.json.Encoder().encode_lines
    (own / "gateway.events.jsonl").write_bytes(encode(spans[:2]))
    with (own / "n2.events.jsonl").open("ab") as file:
        file.write(encode(spans[2:]))
    return directory
