"""Jepsen's histories: reader for EDN (and the same events as a JSON array), writer for EDN.

The order of the events decides, as it does for Knossos: times in Jepsen's files come from several
threads and run back by a few microseconds. Each event is therefore given its own time, or one
nanosecond more than the event before it, whichever is later. Within one process a completion that
claims to be earlier than its call is an error, and so is an `:index` that runs backwards.

Left out of a file by some tools, and then assumed: `:process` 0, `:f` "txn" where the value is a
list of micro-operations. With `independent`, values `[key value]` (Jepsen's independent tuples)
are taken apart into key and value.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from labs.harness.history.edn import EdnError, Keyword, Lines, forms, write
from labs.harness.history.events import TYPES, Event, Pairing
from labs.harness.history.jsonl import check_argument, events_of
from labs.harness.history.op import History, NemesisEvent

_OWN = {"index", "time", "process", "type", "f", "key", "value", "error"}


def load_jepsen(path: Path | str, *, independent: bool = False) -> History:
    """Read a Jepsen history (`.edn`, or `.json` with one array).

    Raises:
        HistoryError: on the first malformed event, with file and line.
        OSError: the file cannot be read.
    """
    data = Path(path).read_bytes()
    return parse_jepsen(data, str(path), independent=independent)


def parse_jepsen(data: bytes, source: str = "<bytes>", *, independent: bool = False) -> History:
    """`load_jepsen`, from memory."""
    pairing = Pairing(source)
    reader = _Reader(pairing, independent)
    for line, fields in _maps(pairing, data):
        reader.add(line, fields)
    return pairing.history()


def _maps(pairing: Pairing, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise pairing.error(line, f"not UTF-8: {error.reason}") from None
    lines = Lines(text)
    if text.lstrip().startswith(('[{"', '[\n{"', '[ {"')):
        yield from _json_maps(pairing, data)
        return
    try:
        for offset, form in forms(text):
            line = lines.at(offset)
            if not isinstance(form, dict):
                raise pairing.error(line, "not an event (a map)")
            yield line, {_name(key): item for key, item in form.items()}
    except EdnError as error:
        raise pairing.error(lines.at(error.offset), f"not EDN: {error}") from None


def _json_maps(pairing: Pairing, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        events = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise pairing.error(data.count(b"\n") + 1, f"not JSON: {error}") from None
    # Positions are lost inside the array; these files have an event per line.
    for number, event in enumerate(events, 1):
        if not isinstance(event, dict):
            raise pairing.error(number, "not an event (an object)")
        yield number, event


def _name(key: Any) -> str:
    return key.name if isinstance(key, Keyword) else str(key)


class _Reader:
    def __init__(self, pairing: Pairing, independent: bool) -> None:
        self._pairing = pairing
        self._independent = independent
        self._time_ns = -1
        self._index: int | None = None
        self._own_times: dict[int, int] = {}
        self._count = 0

    def add(self, line: int, fields: dict[str, Any]) -> None:
        kind = _text(fields.get("type"))
        if kind not in TYPES:
            raise self._pairing.error(line, f"type is {kind!r}, not one of {', '.join(TYPES)}")
        index = self._order(line, fields)
        process = fields.get("process", 0)
        time_ns = self._clock(line, fields, process if kind != "invoke" else None)
        f, value = self._argument(line, fields)
        error = fields.get("error")
        said = None if error is None else error if isinstance(error, str) else write_any(error)
        if _text(process) == "nemesis":
            event = NemesisEvent(index, time_ns, kind, f, value, said)
            self._pairing.add_nemesis(event)
            return
        if type(process) is not int:
            raise self._pairing.error(line, f"process is {process!r}, not an integer")
        if kind == "invoke":
            self._own_times[process] = fields.get("time", 0)
        key = fields.get("key")
        if self._independent:
            key, value = self._tuple(line, value)
        extra = {name: item for name, item in fields.items() if name not in _OWN}
        named = None if key is None else key if isinstance(key, str) else write_any(key)
        made = Event(line, index, time_ns, process, kind, f, named, value, said, extra)
        if kind == "invoke":
            check_argument(self._pairing, made)
        self._pairing.add(made)

    def _order(self, line: int, fields: dict[str, Any]) -> int:
        self._count += 1
        index = fields.get("index", self._count - 1)
        if type(index) is not int:
            raise self._pairing.error(line, f"index is {index!r}, not an integer")
        if self._index is not None and index <= self._index:
            raise self._pairing.error(line, f"index {index} after {self._index}")
        self._index = index
        return index

    def _clock(self, line: int, fields: dict[str, Any], process: Any) -> int:
        time_ns = fields.get("time", 0)
        if type(time_ns) is not int or time_ns < 0:
            raise self._pairing.error(line, f"time is {time_ns!r}, not an integer from 0")
        called = self._own_times.get(process) if type(process) is int else None
        if called is not None and time_ns < called:
            message = f"time runs backwards: {time_ns} after {called} in process {process}"
            raise self._pairing.error(line, message)
        self._time_ns = max(self._time_ns + 1, time_ns)
        return self._time_ns

    def _argument(self, line: int, fields: dict[str, Any]) -> tuple[str, Any]:
        value = fields.get("value")
        f = _text(fields.get("f"))
        if f is None and isinstance(value, list) and all(isinstance(m, list) for m in value):
            f = "txn"
        if not isinstance(f, str) or not f:
            raise self._pairing.error(line, f"f is {fields.get('f')!r}, not a name")
        return f, _plain_value(value)

    def _tuple(self, line: int, value: Any) -> tuple[Any, Any]:
        if not (isinstance(value, list) and len(value) == 2):
            raise self._pairing.error(line, f"value is {value!r}, not [key value]")
        return value[0], value[1]


def _text(item: Any) -> Any:
    return item.name if isinstance(item, Keyword) else item


def _plain_value(value: Any) -> Any:
    """Objects with names as keys, and micro-operations with names as functions."""
    if isinstance(value, dict):
        return {_text(name): _plain_value(item) for name, item in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return [
                [_text(micro[0]), *micro[1:]] if isinstance(micro, list) and micro else micro
                for micro in value
            ]
        return value
    return value


def write_any(value: Any) -> str:
    """EDN of what came from EDN or JSON."""
    return write(value)


def save_edn(history: History, path: Path | str) -> None:
    """Write a history as Jepsen EDN: an event a line.

    Operations that have a key are written as Jepsen's independent tuples `[key value]`.
    """
    lines = []
    for event in events_of(history):
        key = event.pop("key")
        if event["error"] is None:
            del event["error"]
        if key is not None:
            event["value"] = [key, event["value"]]
        for name in ("process", "type", "f"):
            if isinstance(event[name], str):
                event[name] = Keyword(event[name])
        if event["f"] == Keyword("txn") and isinstance(event["value"], list):
            event["value"] = [[Keyword(micro[0]), *micro[1:]] for micro in event["value"]]
        lines.append(write(event) + "\n")
    Path(path).write_text("".join(lines), encoding="utf-8")
