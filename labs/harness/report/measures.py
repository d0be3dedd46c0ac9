"""Rates, availability and latency from *all* operations of a history: counts in bins, percentiles.

An open-loop load measures latency from the moment at which an operation was sent; those that never
ended are counted as unanswered and have no latency: a percentile says so in its count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from labs.harness.checkers.availability import answered as told
from labs.harness.checkers.availability import windows
from labs.harness.history import History, Op
from labs.harness.report.data import ended_ns
from labs.harness.workloads.statistics import percentile

BINS = 60
TYPES = ("ok", "fail", "info")


def place(op: Op) -> str:
    """Where the client of an operation stands."""
    return op.client or "client"


def answered(op: Op) -> bool:
    """Was the client told, be it a refusal of what it asked for (a cas that came too late)?"""
    return told(op) or op.extra.get("refused") is True


def places(history: History) -> list[str]:
    """All of them, sorted."""
    return sorted({place(op) for op in history.ops})


def bin_us(end_us: int, bins: int = BINS) -> int:
    """A width of 1, 2 or 5 times a power of ten that makes about `bins` columns."""
    wanted = max(end_us / bins, 1000)
    power = int(10 ** (len(str(int(wanted))) - 1))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= wanted)


@dataclass(slots=True)
class Bin:
    """What was sent from one place in one stretch of time."""

    count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TYPES, 0))
    answered: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return sum(self.count.values())


def bins(history: History, width_us: int) -> dict[str, dict[int, Bin]]:
    """Per place, per number of the bin (by when an operation was sent)."""
    found: dict[str, dict[int, Bin]] = defaultdict(lambda: defaultdict(Bin))
    for op in history.ops:
        each = found[place(op)][op.invoke_ns // 1000 // width_us]
        each.count[op.type] += 1
        if answered(op):
            each.answered += 1
            if op.return_ns is not None:
                each.latencies_ms.append((op.return_ns - op.invoke_ns) / 1e6)
    return found


@dataclass(slots=True)
class Row:
    """One side in one stretch of the run, as the table has it. Latencies in ms."""

    window: str
    begin_s: float
    end_s: float
    side: str
    asked: int
    answered: int
    p50: float
    p95: float
    p99: float
    longest: float
    unanswered_p50: float

    @property
    def share(self) -> float:
        return self.answered / self.asked if self.asked else float("nan")


def table(history: History, side: Callable[[Op], str] = place) -> list[Row]:
    """Each side before, during and after each fault."""
    cuts = windows(history, side)
    begins = [window.begin_ns for window in cuts]
    # Answers are counted here and not taken from the windows: see `answered`.
    good: dict[tuple[int, str], list[float]] = defaultdict(list)
    bad: dict[tuple[int, str], list[float]] = defaultdict(list)
    for op in history.ops:
        at = max(0, bisect_right(begins, op.invoke_ns) - 1)
        end = ended_ns(op)
        if end is not None:
            (good if answered(op) else bad)[at, side(op)].append((end - op.invoke_ns) / 1e6)
    rows = []
    for at, window in enumerate(cuts):
        for name in sorted(window.asked):
            took = good[at, name]
            assert len(took) <= window.asked[name], "an answer to a question that was not asked"
            p50, p95, p99 = (of_rank(took, rank) for rank in (50, 95, 99))
            rows.append(
                Row(
                    window.name,
                    window.begin_ns / 1e9,
                    window.end_ns / 1e9,
                    name,
                    window.asked[name],
                    len(took),
                    p50,
                    p95,
                    p99,
                    max(took, default=float("nan")),
                    of_rank(bad[at, name], 50),
                )
            )
    return rows


def of_rank(values: Sequence[float], rank: float) -> float:
    """The nearest-rank percentile; NaN of nothing."""
    return percentile(list(values), rank)
