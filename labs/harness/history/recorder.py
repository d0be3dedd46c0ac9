"""The recorder: one JSON line per event, on disk before the request leaves the client.

The order matters. If the line were written after sending, a run that dies in between would leave
an effect in the store without a call in the history, and the checker would call a correct store
wrong ("read a value that nobody wrote").
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from labs.harness.history.jsonl import events_of, load, parse
from labs.harness.history.op import HistoryError, Op

_SAME: Final = object()
"""Default of `ok(value=…)`: the completion repeats the value of the call."""

NEMESIS: Final = "nemesis"


class Recorder:
    """Appends events to `path`; safe to use from several threads.

    Times are nanoseconds since the recorder was made, by `clock_ns` (monotonic). Misuse by the
    harness itself (two open operations of one process, a process used again after `info`) is a
    bug and asserts.
    """

    def __init__(self, path: Path | str, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._path = Path(path)
        # O_EXCL is not wanted: a lab may repeat a run into the same directory. O_TRUNC is.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644)
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        self._index = 0
        self._processes = 0
        self._open: dict[int, tuple[int, str, str | None, Any]] = {}  # handle -> its call
        self._busy: set[int] = set()
        self._retired: set[int] = set()
        self._closed = False
        self._start_ns = clock_ns()
        self._last_ns = 0

    @property
    def start_ns(self) -> int:
        """The clock's reading at time 0 of the history."""
        return self._start_ns

    def now_ns(self) -> int:
        """The time of an event that would be recorded now."""
        return self._clock_ns() - self._start_ns

    def new_process(self) -> int:
        """An id that no process of this history has had: several workloads write into one."""
        with self._lock:
            self._processes += 1
            return self._processes - 1

    def invoke(self, process: int, f: str, key: str | None, value: Any, **extra: Any) -> int:
        """Record a call and return its handle; the line is in the file when this returns."""
        with self._lock:
            assert process not in self._busy, f"process {process} has an open operation"
            assert process not in self._retired, f"process {process} ended with info"
            handle = self._write(process, "invoke", f, key, value, None, extra)
            self._busy.add(process)
            self._open[handle] = (process, f, key, value)
            return handle

    def ok(self, handle: int, value: Any = _SAME, version: int | None = None, **extra: Any) -> None:
        """It happened. For a read `value` is what was read (None: the key was absent)."""
        if version is not None:
            extra["version"] = version
        self._complete(handle, "ok", value, None, extra)

    def fail(self, handle: int, error: str, **extra: Any) -> None:
        """It definitely did not happen. `current=` tells the value that refused a cas."""
        self._complete(handle, "fail", _SAME, error, extra)

    def info(self, handle: int, error: str, **extra: Any) -> None:
        """Nobody knows whether it happened; the process id is spent."""
        self._complete(handle, "info", _SAME, error, extra)

    def nemesis(self, type: str, f: str, value: Any = None) -> None:  # noqa: A002 - the field's name
        """Record what the nemesis did (`info`), or plans to do (`invoke`)."""
        with self._lock:
            self._write(NEMESIS, type, f, None, value, None, {})

    def merge(self, ops: Iterable[Op]) -> None:
        """Add operations that were not the harness's own: what services told of their doing.

        The file is written anew, in the order of time. Processes must be others than those used
        here. Raises HistoryError: together they are no history; the file stays as it was.
        """
        with self._lock:
            assert not self._open, "operations are open, and would change their place"
            history = load(self._path)
            history.ops = sorted([*history.ops, *ops], key=lambda op: op.invoke_ns)
            events = events_of(history)
            data = self._encoder.encode_lines(events)
            parse(data, str(self._path))
            self._path.write_bytes(data)  # in place: the open descriptor goes on behind its end
            self._index = len(events)

    def close(self) -> None:
        """Close the file. Operations still open stay without completion: they are `info`."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._file)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _complete(
        self, handle: int, kind: str, value: Any, error: str | None, extra: dict[str, Any]
    ) -> None:
        with self._lock:
            assert handle in self._open, f"operation {handle} is not open"
            process, f, key, argument = self._open.pop(handle)
            self._busy.discard(process)
            if kind == "info":
                self._retired.add(process)
            self._write(process, kind, f, key, argument if value is _SAME else value, error, extra)

    def _write(
        self,
        process: int | str,
        kind: str,
        f: str,
        key: str | None,
        value: Any,
        error: str | None,
        extra: dict[str, Any],
    ) -> int:
        if self._closed:
            raise HistoryError("the recorder is closed")
        index = self._index
        # A clock that steps back would make a history that no loader accepts; hold it instead.
        self._last_ns = max(self._last_ns, self._clock_ns() - self._start_ns)
        event = {
            "index": index,
            "time": self._last_ns,
            "process": process,
            "type": kind,
            "f": f,
            "key": key,
            "value": value,
            "error": error,
        }
        for name, item in extra.items():
            assert name not in event, f"extra field {name!r} hides the event's own"
            event[name] = item
        line = self._encoder.encode(event) + b"\n"
        written = os.write(self._file, line)
        if written != len(line):  # a full disk: the rest of the line is missing
            raise HistoryError(f"wrote {written} of {len(line)} bytes of event {index}")
        self._index = index + 1
        return index
