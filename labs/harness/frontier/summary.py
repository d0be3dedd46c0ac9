"""Figures of all seeds of a setting, with intervals, and the table on the console."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from rich import box
from rich.table import Table

from labs.harness.frontier.run import Outcome
from labs.harness.frontier.settings import Setting
from labs.harness.lab.repeat import wilson
from labs.harness.workloads.statistics import percentile

RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, form: str = "{:.1f}") -> str:
        """`99.1 (98.7–99.4)`."""
        value, low, high = (form.format(each) for each in (self.value, self.low, self.high))
        return f"{value} ({low}–{high})"


@dataclass(frozen=True, slots=True)
class Point:
    """One setting. `available`: percent of operations answered; `stale`: percent of reads; `lost`:
    percent of acknowledged writes; `not_linearizable`: percent of runs."""

    setting: Setting
    runs: int
    available: Figure
    p99_ms: Figure
    stale: Figure
    lost: Figure
    not_linearizable: Figure
    undecided: int


def point(setting: Setting, outcomes: Sequence[Outcome]) -> Point:
    """The figures of its runs, one for each seed.

    The intervals of shares are bootstrapped over whole runs (Efron 1979): operations of one run met
    the same faults and are not independent. That of the share of runs is Wilson's.
    """
    judged = [each for each in outcomes if each.linearizable is not None]
    broken = sum(not each.linearizable for each in judged)
    low, high = wilson(broken, len(judged)) if judged else (0.0, 1.0)
    return Point(
        setting=setting,
        runs=len(outcomes),
        available=_bootstrap(outcomes, _share("answered", "asked")),
        p99_ms=_bootstrap(outcomes, lambda some: sum(e.p99_ms for e in some) / len(some)),
        stale=_bootstrap(outcomes, _share("stale", "reads")),
        lost=_bootstrap(outcomes, _share("lost", "acknowledged")),
        not_linearizable=Figure(
            100 * broken / len(judged) if judged else 100.0, 100 * low, 100 * high  # no praise
        ),
        undecided=len(outcomes) - len(judged),
    )


def frontier(points: Sequence[Point]) -> set[str]:
    """The settings that are on it: no other is as good in every figure and better in one (Pareto).

    By the figures themselves, whatever their intervals: with few seeds chance has a say.
    """

    def goods(each: Point) -> tuple[float, ...]:
        worse = (each.p99_ms, each.stale, each.lost, each.not_linearizable)
        return each.available.value, *(-figure.value for figure in worse)

    def beats(one: Point, other: Point) -> bool:
        pairs = list(zip(goods(one), goods(other), strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return {
        each.setting.name for each in points if not any(beats(other, each) for other in points)
    }


def _share(part: str, whole: str) -> Callable[[Sequence[Outcome]], float]:
    def share(some: Sequence[Outcome]) -> float:
        total = sum(getattr(each, whole) for each in some)
        return 100.0 * sum(getattr(each, part) for each in some) / total if total else 0.0

    return share


def _bootstrap(
    outcomes: Sequence[Outcome], figure: Callable[[Sequence[Outcome]], float]
) -> Figure:
    random = Random(0)  # the same runs give the same interval
    found = [figure(random.choices(outcomes, k=len(outcomes))) for _ in range(RESAMPLES)]
    return Figure(figure(outcomes), percentile(found, 2.5), percentile(found, 97.5))


def table(points: Sequence[Point]) -> Table:
    """A row for each setting; a star where it is on the frontier."""
    shown = Table(title="What quorums cost and give (95 % intervals; ★ on the frontier)",
                  title_justify="left", box=box.SIMPLE_HEAD)  # fmt: skip
    for name in ("", "setting", "default of"):
        shown.add_column(name, no_wrap=True)
    for name in ("answered %", "p99 ms", "stale reads %", "lost writes %", "not linearizable %"):
        shown.add_column(name, justify="right", no_wrap=True)
    best = frontier(points)
    for each in points:
        shown.add_row(
            "★" if each.setting.name in best else "",
            each.setting.name,
            each.setting.mark,
            each.available.text(),
            each.p99_ms.text("{:.0f}"),
            each.stale.text(),
            each.lost.text(),
            each.not_linearizable.text("{:.0f}"),
            style="bold" if each.setting.mark else None,
        )
    return shown
