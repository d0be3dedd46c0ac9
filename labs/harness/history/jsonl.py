"""JSON lines: the form in which runs are recorded.

One event per line: `index` (strictly increasing), `time` (ns, never decreasing), `process` (an
integer, or "nemesis"), `type`, `f`, `key`, `value`, `error`, and whatever else the recorder was
told. See `labs/harness/history/op.py` for the meaning.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from labs.harness.history.events import TYPES, Event, Pairing
from labs.harness.history.op import History, NemesisEvent

_OWN = {"index", "time", "process", "type", "f", "key", "value", "error"}
_ANSWERED = {"read", "dequeue", "txn", "acquire", "generate", "drain"}  # None is an answer
_REQUIRED = ("index", "time", "process", "type", "f", "value")


def load(path: Path | str) -> History:
    """Read a recorded history.

    Raises:
        HistoryError: on the first malformed event, with file and line. Nothing is half-read.
        OSError: the file cannot be read.
    """
    data = Path(path).read_bytes()
    return parse(data, str(path))


def parse(data: bytes, source: str = "<bytes>") -> History:
    """`load`, from memory."""
    pairing = Pairing(source)
    decoder = msgspec.json.Decoder()
    last_index, last_time = -1, 0
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            fields = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # Only the last line can lack its end; an object without one may still be whole.
            cut = number == len(lines) and not data.endswith(b"\n")
            why = "truncated, " if cut else ""
            raise pairing.error(number, f"{why}not a JSON object: {error}") from None
        if not isinstance(fields, dict):
            raise pairing.error(number, "not a JSON object")
        index, time_ns = _position(pairing, number, fields)
        if index <= last_index:
            raise pairing.error(number, f"index {index} after {last_index}")
        if time_ns < last_time:
            raise pairing.error(number, f"time runs backwards: {time_ns} after {last_time}")
        last_index, last_time = index, time_ns
        _event(pairing, number, fields)
    return pairing.history()


def _position(pairing: Pairing, line: int, fields: dict[str, Any]) -> tuple[int, int]:
    for name in _REQUIRED:
        if name not in fields:
            raise pairing.error(line, f"no {name!r}")
    for name in ("index", "time"):
        if type(fields[name]) is not int or fields[name] < 0:
            raise pairing.error(line, f"{name} is {fields[name]!r}, not an integer from 0")
    return fields["index"], fields["time"]


def _event(pairing: Pairing, line: int, fields: dict[str, Any]) -> None:
    kind, f, process = fields["type"], fields["f"], fields["process"]
    key, error = fields.get("key"), fields.get("error")
    if kind not in TYPES:
        raise pairing.error(line, f"type is {kind!r}, not one of {', '.join(TYPES)}")
    if not isinstance(f, str) or not f:
        raise pairing.error(line, f"f is {f!r}, not a name")
    if error is not None and not isinstance(error, str):
        raise pairing.error(line, f"error is {error!r}, not a string")
    if process == "nemesis":
        event = NemesisEvent(fields["index"], fields["time"], kind, f, fields["value"], error)
        pairing.add_nemesis(event)
        return
    if type(process) is not int:
        raise pairing.error(line, f'process is {process!r}, neither an integer nor "nemesis"')
    if key is not None and not isinstance(key, str):
        raise pairing.error(line, f"key is {key!r}, not a string")
    extra = {name: item for name, item in fields.items() if name not in _OWN}
    event_of_client = Event(
        line, fields["index"], fields["time"], process, kind, f, key, fields["value"], error, extra
    )
    if kind == "invoke":
        check_argument(pairing, event_of_client)
    pairing.add(event_of_client)


def check_argument(pairing: Pairing, event: Event) -> None:
    """A cas is `[from, to]`: anything else cannot be judged."""
    pair = event.value
    if event.f == "cas" and not (isinstance(pair, (list, tuple)) and len(pair) == 2):
        raise pairing.error(event.line, f"cas of {pair!r}, not of [from, to]")


def events_of(history: History) -> list[dict[str, Any]]:
    """The events of a history in time order: what `save` and the EDN writer write.

    At equal times calls come before completions, and `index` is numbered anew: closed intervals
    that touch are concurrent, and the order of the lines shall not deny it. Only where a process
    calls at the instant of its own completion must its call come after that.
    """
    last: dict[int, tuple[int, int]] = {}  # process -> (time, rank) of its latest completion
    found: list[tuple[int, int, int, dict[str, Any]]] = []
    for nemesis in history.nemesis:
        event = {"process": "nemesis", "type": nemesis.type, "f": nemesis.f, "key": None}
        event |= {"value": nemesis.value, "error": nemesis.error}
        found.append((nemesis.time_ns, 0, nemesis.index, event))
    for op in history.ops:
        extra = dict(op.extra)
        gave_up_ns = extra.pop("gave_up_ns", None)
        names = {"node": op.node, "client": op.client}
        call = {"process": op.process, "type": "invoke", "f": op.f, "key": op.key}
        call |= {"value": op.value, "error": None}
        call |= {name: text for name, text in names.items() if text is not None}
        ended_ns, rank = last.get(op.process, (-1, 0))
        rank = rank + 1 if ended_ns == op.invoke_ns else 0
        found.append((op.invoke_ns, rank, op.index, call))
        end = op.return_ns if op.return_ns is not None else gave_up_ns
        if end is None:
            call |= extra
            continue
        told = op.type == "ok" and (op.output is not None or op.f in _ANSWERED)
        value = op.output if told and op.f != "write" else op.value
        done = call | {"type": op.type, "value": value, "error": op.error}
        if op.version is not None:
            done["version"] = op.version
        last[op.process] = (end, rank + 1 if end == op.invoke_ns else 1)
        found.append((end, last[op.process][1], op.index, done | extra))
    found.sort(key=lambda item: item[:3])
    return [
        {"index": index, "time": time_ns, **event}
        for index, (time_ns, _, _, event) in enumerate(found)
    ]


def save(history: History, path: Path | str) -> None:
    """Write a history as JSON lines."""
    lines = [json.dumps(event, ensure_ascii=False) for event in events_of(history)]
    Path(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
