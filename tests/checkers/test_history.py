"""The recorder and its file; malformed files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labs.harness.checkers import check_linearizable
from labs.harness.history import HistoryError, Op, Recorder, load, parse, save


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


def test_the_line_is_in_the_file_before_the_request_is_sent(tmp_path: Path) -> None:
    """The recorder appends `invoke` before sending, to disk."""
    clock = Clock()
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path, clock)
    clock.now = 1_500
    handle = recorder.invoke(3, "write", "x", 42, node="n1", client="c1", trace_id="ab")

    line = json.loads(path.read_text())
    assert line == {
        "index": 0,
        "time": 500,
        "process": 3,
        "type": "invoke",
        "f": "write",
        "key": "x",
        "value": 42,
        "error": None,
        "node": "n1",
        "client": "c1",
        "trace_id": "ab",
    }
    recorder.ok(handle, version=7)
    recorder.close()


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    """ok, fail, info, an operation without completion and the nemesis survive the file."""
    clock = Clock()
    path = tmp_path / "history.jsonl"
    with Recorder(path, clock) as recorder:
        write = recorder.invoke(0, "write", "x", 1, node="n1")
        read = recorder.invoke(1, "read", "x", None, final=True)
        cas = recorder.invoke(2, "cas", "x", [1, 2])
        lost = recorder.invoke(3, "write", "x", 9)
        recorder.invoke(4, "write", "x", 10)
        clock.now += 10
        recorder.nemesis("info", "start_partition", {"grudge": "majority"})
        recorder.ok(write, version=5)
        recorder.ok(read, value=1, version=5, node="n2")
        recorder.fail(cas, "precondition failed", current=3)
        recorder.info(lost, "deadline exceeded")
    history = load(path)

    by_process = {op.process: op for op in history.ops}
    assert [op.type for op in history.ops] == ["ok", "ok", "fail", "info", "info"]
    assert (by_process[0].output, by_process[0].version, by_process[0].node) == (1, 5, "n1")
    assert (by_process[1].output, by_process[1].extra) == (1, {"final": True})
    assert (by_process[2].error, by_process[2].extra) == ("precondition failed", {"current": 3})
    assert by_process[3].return_ns is None
    assert by_process[3].extra == {"gave_up_ns": 10}
    assert [(event.f, event.time_ns) for event in history.nemesis] == [("start_partition", 10)]

    save(history, tmp_path / "again.jsonl")
    again = load(tmp_path / "again.jsonl")
    assert [(op.process, op.type, op.output, op.extra) for op in again.ops] == [
        (op.process, op.type, op.output, op.extra) for op in history.ops
    ]


def event(**changes: Any) -> dict[str, Any]:
    """A valid first event, changed."""
    fields = {"index": 0, "time": 5, "process": 0, "type": "invoke", "f": "write"}
    return fields | {"key": "x", "value": 1, "error": None} | changes


INVOKE = event()
OK = event(index=1, time=6, type="ok")
MALFORMED = {
    "truncated": (b'{"index": 0, "ti', 1, "truncated"),
    "not JSON": (b"{]\n", 1, "not a JSON object"),
    "not an object": (b"[1]\n", 1, "not a JSON object"),
    "blank line": (b"\n", 1, "not a JSON object"),
    "NaN": (b'{"index": NaN}\n', 1, "not a JSON object"),
    "no time": ([{k: v for k, v in INVOKE.items() if k != "time"}], 1, "no 'time'"),
    "time of the wrong type": ([event(time="5")], 1, "time is '5'"),
    "time is a truth value": ([event(time=True)], 1, "time is True"),
    "process of the wrong type": ([event(process="p")], 1, "process is 'p'"),
    "unknown type": ([event(type="done")], 1, "type is 'done'"),
    "key of the wrong type": ([event(key=3)], 1, "key is 3"),
    "no f": ([event(f="")], 1, "f is ''"),
    "version of the wrong type": ([INVOKE, OK | {"version": "7"}], 2, "version is '7'"),
    "cas of one value": ([event(f="cas", value=[1])], 1, "cas of [1]"),
    "index runs backwards": ([INVOKE, OK | {"index": 0}], 2, "index 0 after 0"),
    "time runs backwards": ([INVOKE, OK | {"time": 4}], 2, "time runs backwards"),
    "return without invoke": ([OK], 1, "without an invoke"),
    "two open operations": ([INVOKE, event(index=1)], 2, "two open operations (the other: line 1)"),
    "another operation completes": ([INVOKE, OK | {"f": "read"}], 2, "invoked in line 1"),
    "another key completes": ([INVOKE, OK | {"key": "y"}], 2, "invoked in line 1"),
    "another value acknowledged": ([INVOKE, OK | {"value": 2}], 2, "acknowledged as 2"),
    "process after info": (
        [INVOKE, OK | {"type": "info"}, event(index=2, time=7)],
        3,
        "used again after its info in line 2",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_lines_are_refused_with_file_and_line(name: str, tmp_path: Path) -> None:
    """A clear error with file and line; nothing half-read is judged."""
    content, line, message = MALFORMED[name]
    path = tmp_path / "bad.jsonl"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text("".join(json.dumps(fields) + "\n" for fields in content))
    with pytest.raises(HistoryError) as error:
        load(path)

    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)


def test_equal_times_are_concurrent() -> None:
    """Intervals are closed: a write may be seen by a read that returned when it was called."""
    history = parse(
        b'{"index":0,"time":1,"process":0,"type":"invoke","f":"read","key":"x","value":null}\n'
        b'{"index":1,"time":1,"process":0,"type":"ok","f":"read","key":"x","value":7}\n'
        b'{"index":2,"time":1,"process":1,"type":"invoke","f":"write","key":"x","value":7}\n'
        b'{"index":3,"time":1,"process":1,"type":"ok","f":"write","key":"x","value":7}\n'
    )
    assert check_linearizable(history).valid is True


def test_operations_of_others_are_merged_in_the_order_of_time(tmp_path: Path) -> None:
    """What services told of their own doing stands beside what clients recorded, and the recorder
    goes on behind it."""
    clock, path = Clock(), tmp_path / "history.jsonl"
    with Recorder(path, clock) as recorder:
        for process, now in ((0, 2_000), (0, 4_000)):
            clock.now = now
            handle = recorder.invoke(process, "write", "x", now)
            clock.now = now + 1_000
            recorder.ok(handle)
        recorder.nemesis("info", "pause", {"id": 1})
        act = Op(1_000, "write", "r", "act", 1_500, 3_500, "ok", node="w1", extra={"token": 7})
        lost = Op(1_001, "write", "r", "late", 1_600, None, "info", extra={"gave_up_ns": 1_700})
        recorder.merge([lost, act])
        clock.now = 9_000
        recorder.ok(recorder.invoke(2, "write", "x", "last"))
    history = load(path)

    assert [op.value for op in history.ops] == [2_000, "act", "late", 4_000, "last"]
    assert [op.invoke_ns for op in history.ops] == [1_000, 1_500, 1_600, 3_000, 8_000]
    assert (history.ops[1].node, history.ops[1].extra["token"]) == ("w1", 7)
    assert history.ops[2].pending
    assert len(history.nemesis) == 1


def test_what_makes_no_history_together_is_not_merged(tmp_path: Path) -> None:
    """The file stays as it was."""
    clock, path = Clock(), tmp_path / "history.jsonl"
    with Recorder(path, clock) as recorder:
        clock.now = 2_000
        recorder.ok(recorder.invoke(5, "write", "x", 1))
        before = path.read_bytes()
        with pytest.raises(HistoryError, match="process 5"):
            recorder.merge([Op(5, "write", "r", "act", 900, 1_100, "ok")])
    assert path.read_bytes() == before
