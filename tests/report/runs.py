"""Run directories made by hand: small, hostile, large, as a real run leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from labs.harness.lab.verdict import Claim, FaultRecord, Shown, VariantResult, Verdict, as_plain

START_NS = 1_000_000_000_000

HOSTILE: Sequence[str] = (
    "<script>window.hit = 1</script>",
    "</script><script>window.hit = 2</script>",
    "<img src=x onerror='window.hit = 3'>",
    "\"'><svg onload=window.hit=4>",
    "<!--<script>",
    "]]></template></style></title><b>bold</b>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:window.hit=5",
    "line one\nline two\r\ttab",
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f",
    "\u202eright to left\u2028 line\u2029 paragraph \ufeff",
    "🦑𝕏𐍈 four bytes each",
    "@number @left{0.000} $x <b>@ms</b>",
    "&lt;already&gt; &amp; %3Cscript%3E",
    "x" * 5_000,
)


def ids(number: int) -> dict[str, str]:
    return {
        "trace_id": f"{number + 1:032x}",
        "span_id": f"{number + 1:016x}",
        "request_id": f"r-{number}",
    }


def op_lines(number: int, at_ns: int, f: str, key: str, value: Any, **end: Any) -> list[Any]:
    """The call and the completion of one operation; `end`: type, took_ns, error, …."""
    kind, took_ns = end.pop("type", "ok"), end.pop("took_ns", 2_000_000)
    # A client answers before it calls again: a process of its own for each keeps the maker simple.
    common = {"process": number, "f": f, "key": key}
    call = {**common, "type": "invoke", "value": None if f == "read" else value, "error": None}
    done = {**common, "type": kind, "value": value, "error": end.pop("error", None), **end}
    return [
        (at_ns, {**call, "client": f"c{1 + number % 2}", **ids(number)}),
        (at_ns + took_ns, done),
    ]


def spans(number: int, at_ns: int, took_ns: int, path: str, **fields: Any) -> list[dict[str, Any]]:
    """The request of an operation at n1 and its replication at n2."""
    own = ids(number)
    request = {
        "event": "request", "kind": "span", "trace_id": own["trace_id"],
        "span_id": f"{(1 << 40) + number:016x}", "parent_span_id": own["span_id"],
        "request_id": own["request_id"], "method": "PUT", "path": path, "status": 200,
        "outcome": "ok", "duration_us": took_ns // 2000, "time": 1.0, "node": "n1",
        "monotonic_ns": START_NS + at_ns + took_ns * 3 // 4, **fields,
    }  # fmt: skip
    replicate = {
        "event": "replicate", "kind": "span", "trace_id": own["trace_id"],
        "span_id": f"{(2 << 40) + number:016x}", "parent_span_id": request["span_id"],
        "request_id": own["request_id"], "peer": "n1", "duration_us": took_ns // 5000,
        "outcome": "ok", "time": 1.0, "node": "n2",
        "monotonic_ns": START_NS + at_ns + took_ns // 2,
    }  # fmt: skip
    return [request, replicate]


def frames(count: int, every_ns: int) -> list[dict[str, Any]]:
    """Heartbeats from n1 to n2; every tenth is lost, every seventh held for 200 ms."""
    sent, received = [], []
    for number in range(1, count + 1):
        at_ns = START_NS + number * every_ns
        sent.append([at_ns, "n2", number, "AppendEntries", 1, 3])
        if number % 10:
            late_ns = 200_000_000 if number % 7 == 0 else 300_000
            received.append([at_ns + late_ns, "n1", number])
    common = {"event": "frames", "kind": "frames", "time": 1.0, "monotonic_ns": START_NS}
    return [
        {**common, "node": "n1", "sent": sent, "received": []},
        {**common, "node": "n2", "sent": [], "received": received},
    ]


def steps() -> list[dict[str, Any]]:
    def step(node: str, at_ns: int, event: str, **fields: Any) -> dict[str, Any]:
        kind = "protocol" if event != "start" else "process"
        return {"event": event, "kind": kind, "time": 1.0, "node": node,
                "monotonic_ns": START_NS + at_ns, **fields}  # fmt: skip

    return [
        step("n1", -50_000_000, "start"),
        step("n2", -40_000_000, "start"),
        step("n1", 1_000_000, "become_leader", term=3),
        step("n2", 2_000_000, "become_follower", term=3, leader="n1", reason="n1 <b>asks</b>"),
    ]


def make_run(
    directory: Path,
    *,
    operations: int = 40,
    values: Sequence[str] = ("one", "two", "three"),
    every_ns: int = 10_000_000,
    with_frames: int = 60,
) -> Path:
    """A run of one variant with a fault, failures, a lost write, frames and logs.

    The values go wherever text from outside can go: keys, values, errors, paths, names.
    """
    together = " ".join(value[:80] for value in values[:40])
    own = directory / "odd-store"
    own.mkdir(parents=True)
    history: list[tuple[int, dict[str, Any]]] = []
    events = [*steps(), *frames(with_frames, every_ns)]
    for number in range(operations):
        at_ns, text = (number + 1) * every_ns, values[number % len(values)]
        kind = ("ok", "ok", "ok", "fail", "info")[number % 5]
        f = "read" if number % 2 else "write"
        # A read that nobody answered failed; only a write can be in doubt.
        kind = "fail" if kind == "info" and f == "read" else kind
        error = None if kind == "ok" else f"n1 said {text}"
        took_ns = 2_000_000 if kind == "ok" else 30_000_000
        history += op_lines(number, at_ns, f, f"key {text}", text, type=kind, error=error,
                            took_ns=took_ns)  # fmt: skip
        status = {} if kind == "ok" else {"status": 503, "outcome": text[:256]}
        events += spans(number, at_ns, took_ns, f"/kv/{text[:200]}", **status)
    end_ns = (operations + 1) * every_ns
    history += _fault(together, end_ns)
    history.sort(key=lambda item: item[0])
    _write(own / "history.jsonl", [{"index": index, "time": at_ns, **event}
                                   for index, (at_ns, event) in enumerate(history)])  # fmt: skip
    for node in ("n1", "n2"):
        _write(own / f"{node}.events.jsonl", [e for e in events if e["node"] == node])
        log = [{"time": 1.0, "monotonic_ns": START_NS, "node": node, "event": "started",
                "level": "info", "listen": each} for each in values]  # fmt: skip
        _write(own / f"{node}.log", log)
    indexes = [index for index, (_, event) in enumerate(history) if event["type"] == "invoke"]
    _verdict(directory, together, indexes[:2], end_ns)
    return directory


def _fault(text: str, end_ns: int) -> list[tuple[int, dict[str, Any]]]:
    def step(at_ns: int, phase: str, kind: str = "info", **more: Any) -> tuple[int, dict[str, Any]]:
        value = {"id": 1, "phase": phase, "target": "n1 c1 | n2 c2", **more}
        return at_ns, {"process": "nemesis", "type": kind, "f": "partition", "key": None,
                       "value": value, "error": None}  # fmt: skip

    third = end_ns // 3
    return [
        step(third, "planned", "invoke"),
        step(third + 1000, "injected"),
        step(third + 2000, "felt", how=f"41 of 41 probes dropped {text}"),
        step(2 * third, "healed"),
    ]


def _verdict(directory: Path, text: str, ops: list[int], end_ns: int) -> None:
    third = end_ns / 3e9
    claims = [
        Claim("Nothing is lost", False, f"1 of 9 is gone: {text}", True,
              [f"1. Process 0 wrote {text!r}.", f"2. Process 1 read {text!r}."],
              Shown("lost write", f"{text!r} is lost", ops, text, (end_ns // 9, end_ns // 8))),
        Claim("It goes on", True, "it did"),
        Claim("It is fast", None, "nobody knows"),
    ]  # fmt: skip
    result = VariantResult(
        name="odd store", expected="breaks", claims=claims, figures={"lost": 1},
        about=f"a store that {text}", start_ns=START_NS, nodes=["n1", "n2"], places=["c1", "c2"],
    )  # fmt: skip
    fault = FaultRecord("odd store", "partition", "n1 c1 | n2 c2", third, third, True, True,
                        f"41 of 41 probes dropped, {text}", third * 2, third * 2.1)  # fmt: skip
    Verdict(
        lab="odd", questions=[23], substrate="local", plane="proxies", seed=7, verdict="fail",
        reason=f"this held: {text}", elapsed_s=1.0, variants=[as_plain(result)], faults=[fault],
        environment={"cpu": text, "cores": 2}, question=f"What does {text} do?",
        answer=f"Nothing.\n\n{text}", comparison=[["what", text]],
    ).save(directory)  # fmt: skip


def _write(path: Path, lines: Sequence[Any]) -> None:
    encode = msgspec.json.Encoder().encode_lines
    path.write_bytes(encode(lines) if lines else b"")


def told(text: str) -> str:
    """As JSON spells it."""
    return json.dumps(text)
