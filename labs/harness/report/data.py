"""A run as the report sees it: lines, messages, roles, faults and operations on one time axis.

Times are microseconds since the variant's history began, on the machine's monotonic clock, which no
fault touches. What happened before (nodes that start) has negative times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from labs.harness.history import History, Op
from labs.harness.lab.verdict import FaultRecord, VariantResult, Verdict
from labs.harness.lab.watched import Watched

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")

VALUE_SHOWN = 200
"""Letters of a key, a value or an error that are shown; more is cut, with an ellipsis."""


class RunError(ValueError):
    """A run directory that cannot be shown; the message is one line for the user."""


class Line(NamedTuple):
    """One line of the merged logs. With a `span_id` it is a span, too, and ended at `at_us`."""

    at_us: int
    node: str
    level: Level
    event: str
    text: str
    trace_id: str | None = None
    request_id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None
    duration_us: int | None = None
    bad: bool = False
    peer: str = ""  # whom a call was made to


class Message(NamedTuple):
    """A frame between two nodes. `received_us` is None when it was lost on the way."""

    sent_us: int
    received_us: int | None
    src: str
    dst: str
    names: str
    messages: int
    term: int | None


class Stay(NamedTuple):
    """A node kept a role, in one term, for a while."""

    node: str
    begin_us: int
    end_us: int
    role: str
    term: int | None


@dataclass(slots=True)
class VariantRun:
    """One variant. `first`: the number of its first operation, counted through the whole run.

    `omitted`: what is too much for one page and was left out, in words, by what it is.
    """

    result: VariantResult
    outcome: str
    directory: Path
    history: History
    first: int
    faults: list[FaultRecord]
    lines: list[Line] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    omitted: dict[str, str] = field(default_factory=dict)
    end_us: int = 0
    watched: Watched | None = None

    @property
    def name(self) -> str:
        return self.result.name

    def number(self, position: int) -> int:
        """What the report calls the operation at this position of the history."""
        return self.first + position


@dataclass(slots=True)
class Run:
    """A whole run, read."""

    directory: Path
    verdict: Verdict
    variants: list[VariantRun]
    unreadable: int = 0  # lines of logs that are no JSON or not of the known form


def shown(value: Any, most: int = VALUE_SHOWN) -> str:
    """A value as text for a reader: control characters spelled out, at most so many letters."""
    text = value if isinstance(value, str) else _plain(value)
    if not text.isprintable():  # hardly ever, and there are a million texts in a report
        text = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )
    return text if len(text) <= most else text[: most - 1] + "…"


def _plain(value: Any) -> str:
    return "nothing" if value is None else repr(value)


def ended_ns(op: Op) -> int | None:
    """When the client stopped waiting, with or without an answer; None if it never did."""
    if op.return_ns is not None:
        return op.return_ns
    gave_up = op.extra.get("gave_up_ns")
    return gave_up if isinstance(gave_up, int) else None


def asked(op: Op) -> str:
    """What a call wanted, before anybody knew how it ends: `write register-1 = 7`."""
    key = "" if op.key is None else f" {shown(op.key)}"
    if op.f == "cas" and isinstance(op.value, list | tuple) and len(op.value) == 2:
        return f"cas{key}: {shown(op.value[0])} → {shown(op.value[1])}"
    return shown(op.f) + key + ("" if op.value is None else f" = {shown(op.value)}")


def did(op: Op) -> str:
    """`write register-1 = 7`, `read register-1 → 7`, `cas register-1: 7 → 8`."""
    key = "" if op.key is None else f" {shown(op.key)}"
    if op.f == "read":
        return f"read{key}" + (f" → {shown(op.output)}" if op.type == "ok" else "")
    if op.f == "cas" or op.type != "ok" or op.output is None:
        return asked(op)
    return f"{shown(op.f)}{key} = {shown(op.output)}"
