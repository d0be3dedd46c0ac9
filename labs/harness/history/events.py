"""From single events to operations: the rules that every reader enforces.

A history is judged whole or not at all: the first event that breaks a rule raises `HistoryError`
with its file and line, because a verdict on half a history is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from labs.harness.history.op import History, HistoryError, NemesisEvent, Op

TYPES = ("invoke", "ok", "fail", "info")


@dataclass(slots=True)
class Event:
    """One line of a history, already checked for types."""

    line: int
    index: int
    time_ns: int
    process: int
    type: str
    f: str
    key: str | None
    value: Any
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Pairing:
    """Pairs calls with completions, per process."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._ops: list[Op] = []
        self._lines: list[int] = []
        self._nemesis: list[NemesisEvent] = []
        self._open: dict[int, tuple[Op, int]] = {}
        self._retired: dict[int, int] = {}

    def error(self, line: int, message: str) -> HistoryError:
        """An error that names the file and the line."""
        return HistoryError(f"{self.source}:{line}: {message}")

    def add_nemesis(self, event: NemesisEvent) -> None:
        """An event of the nemesis; it belongs to no operation."""
        self._nemesis.append(event)

    def add(self, event: Event) -> None:
        """The next client event, in the order of the file."""
        if event.type == "invoke":
            self._invoke(event)
        else:
            self._complete(event)

    def history(self) -> History:
        """Everything read; calls without completion are pending (`info`)."""
        # Events come in time order, hence so do the calls: nothing to sort.
        return History(self._ops, self._nemesis, self.source, self._lines)

    def _invoke(self, event: Event) -> None:
        process = event.process
        if process in self._open:
            before = self._open[process][1]
            message = f"process {process} has two open operations (the other: line {before})"
            raise self.error(event.line, message)
        if process in self._retired:
            before = self._retired[process]
            message = f"process {process} is used again after its info in line {before}"
            raise self.error(event.line, message)
        extra = dict(event.extra)
        op = Op(
            process,
            event.f,
            event.key,
            event.value,
            event.time_ns,
            None,
            "info",
            index=event.index,
        )
        self._name(op, extra, event.line)
        self._ops.append(op)
        self._lines.append(event.line)
        self._open[process] = (op, event.line)

    def _name(self, op: Op, extra: dict[str, Any], line: int) -> None:
        """Move node, client and version of an event into their fields; the rest is `extra`."""
        for name in ("node", "client"):
            if (text := extra.pop(name, None)) is not None:
                if not isinstance(text, str):
                    raise self.error(line, f"{name} is {text!r}, not a string")
                setattr(op, name, text)
        if (version := extra.pop("version", None)) is not None:
            if type(version) is not int:
                raise self.error(line, f"version is {version!r}, not an integer")
            op.version = version
        op.extra.update(extra)

    def _complete(self, event: Event) -> None:
        opened = self._open.pop(event.process, None)
        if opened is None:
            raise self.error(
                event.line, f"process {event.process}: {event.type} without an invoke before it"
            )
        op, line = opened
        if op.f != event.f or op.key != event.key:
            said = f"{event.f} of {event.key!r}"
            message = f"{said} completes {op.f} of {op.key!r}, invoked in line {line}"
            raise self.error(event.line, message)
        if event.time_ns < op.invoke_ns:
            raise self.error(event.line, f"returns before its invoke in line {line}")
        self._name(op, dict(event.extra), event.line)
        op.error = event.error
        if event.type == "info":
            op.extra["gave_up_ns"] = event.time_ns
            self._retired[event.process] = event.line
            return
        op.type = "ok" if event.type == "ok" else "fail"
        op.return_ns = event.time_ns
        if event.type == "ok":
            if op.f == "write" and event.value != op.value:
                message = f"write of {op.value!r} (line {line}) acknowledged as {event.value!r}"
                raise self.error(event.line, message)
            op.output = event.value
