"""Availability: which share of the requests was answered, per side, and how long recovery took.

An answer is a reply that is not an error: `ok`, and a refusal for what the request itself asked (a
cas whose expectation was wrong). An unavailable node, a timeout, a lost connection are none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from labs.harness.checkers.result import Result
from labs.harness.checkers.story import Sides, partitions
from labs.harness.history import History, Op


@dataclass(slots=True)
class Window:
    """A stretch of the run: before, during or after a fault."""

    name: str
    begin_ns: int
    end_ns: int
    answered: dict[str, int] = field(default_factory=dict)  # side -> requests answered
    asked: dict[str, int] = field(default_factory=dict)

    def share(self, side: str) -> float | None:
        """Answered of those asked; None without any."""
        asked = self.asked.get(side, 0)
        return self.answered.get(side, 0) / asked if asked else None


@dataclass(slots=True)
class Recovery:
    """How long after the end of a fault a side answered again; None: not in this history."""

    fault: str
    ended_ns: int
    after_ns: dict[str, int | None] = field(default_factory=dict)


def answered(op: Op) -> bool:
    """The request got an answer."""
    refused = op.f == "cas" and ("current" in op.extra or "mismatch" in op.extra)
    return op.type == "ok" or (op.type == "fail" and refused)


def windows(history: History, side: Callable[[Op], str | None] | None = None) -> list[Window]:
    """The run cut at the begin and the end of every fault, with the answers of each side.

    Args:
        side: names the side of an operation; default: the client's place, else its node.
    """
    of = side or (lambda op: op.client or op.node)
    cuts: list[tuple[int, str]] = [(0, "before")]
    for begin, end, event in partitions(history):
        cuts += [(begin, event.f), (end, f"after {event.f}")]
    cuts.sort(key=lambda cut: cut[0])
    last = max((op.return_ns or op.invoke_ns for op in history.ops), default=0) + 1
    found = [
        Window(name, begin, cuts[at + 1][0] if at + 1 < len(cuts) else last)
        for at, (begin, name) in enumerate(cuts)
    ]
    at = 0
    for op in sorted(history.ops, key=lambda op: op.invoke_ns):
        while at + 1 < len(found) and op.invoke_ns >= found[at].end_ns:
            at += 1
        name = of(op) or "all"
        found[at].asked[name] = found[at].asked.get(name, 0) + 1
        found[at].answered[name] = found[at].answered.get(name, 0) + answered(op)
    return found


def recoveries(history: History, side: Callable[[Op], str | None] | None = None) -> list[Recovery]:
    """For each fault that ended: how long until each side was answered again."""
    of = side or (lambda op: op.client or op.node)
    names = {of(op) or "all" for op in history.ops}
    ends = {(end, event.f) for _, end, event in partitions(history)}
    found = []
    for end, fault in sorted(ends):
        recovery = Recovery(fault, end, dict.fromkeys(sorted(names)))
        for op in history.ops:
            if op.invoke_ns >= end and answered(op) and op.return_ns is not None:
                name, took = of(op) or "all", op.return_ns - end
                before = recovery.after_ns[name]
                recovery.after_ns[name] = took if before is None else min(before, took)
        found.append(recovery)
    return found


def check_availability(
    history: History,
    *,
    at_least: float = 0.99,
    recovered_within_s: float | None = None,
    side: Callable[[Op], str | None] | None = None,
) -> Result:
    """Did every side answer `at_least` of its requests in every window, and recover in time?

    By default the sides are those of the partition ("minority", "majority") where one is known.

    `stats`: windows (list of `Window`), recoveries (list of `Recovery`), worst (share).
    """
    sides = Sides(history)
    of = side or (lambda op: sides.of(op) or op.client or op.node)
    found, healed = windows(history, of), recoveries(history, side)
    shares = [
        share
        for window in found
        for name in window.asked
        if (share := window.share(name)) is not None
    ]
    stats: dict[str, Any] = {
        "windows": found,
        "recoveries": healed,
        "worst": min(shares, default=None),
    }
    if not shares:
        return Result("unknown", "availability", stats=stats)
    valid = min(shares) >= at_least
    if recovered_within_s is not None:
        times = [took for recovery in healed for took in recovery.after_ns.values()]
        valid = valid and all(t is not None and t <= recovered_within_s * 1e9 for t in times)
    return Result(valid, "availability", stats=stats)
