"""Reduce a plan that fails to the fewest faults and operations that still break the same promise.

Goal: a failure that a person can read: two faults and five requests instead of twenty and two
hundred.
Method: delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
Input", 2002), first over the faults, then over the operations, then over the nodes of each fault;
again until nothing can be left out. A plan is data and a run is determined by it, so each attempt
is one more run, and what is found is the truth about that plan. Times stay as they were: what is
left out leaves a silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tests.simulation.service.plan import Fault, Plan
from tests.simulation.service.run import Failure, simulate

T = TypeVar("T")
RUNS_MAX = 600


@dataclass(slots=True)
class Shrunk:
    """The smallest plan found, how it fails, and how many runs that took."""

    plan: Plan
    failure: Failure
    runs: int


def shrink(
    plan: Plan, bug: str, *, runs_max: int = RUNS_MAX, told: Callable[[str], None] = lambda _: None
) -> Shrunk:
    """Raises ValueError when `plan` does not fail at all."""
    first = simulate(plan, bug)
    if first is None:
        raise ValueError("this plan does not fail")
    runs = 1

    def fails(candidate: Plan) -> bool:
        nonlocal runs
        if runs >= runs_max:
            return False
        runs += 1
        failure = simulate(candidate, bug)
        return failure is not None and failure.promise == first.promise

    while True:
        before = plan
        plan = _fewer_faults(plan, fails)
        told(f"{runs} runs: {len(plan.faults)} faults, {len(plan.operations)} operations")
        plan = _fewer_operations(plan, fails)
        told(f"{runs} runs: {len(plan.faults)} faults, {len(plan.operations)} operations")
        plan = _fewer_targets(plan, fails)
        if plan == before or runs >= runs_max:
            break
    failure = simulate(plan, bug, tell=True)
    assert failure is not None, "it failed a moment ago, and a plan determines its run"
    return Shrunk(plan, failure, runs)


def _fewer_faults(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    kept = minimize(plan.faults, lambda faults: fails(replace(plan, faults=tuple(faults))))
    return replace(plan, faults=tuple(kept))


def _fewer_operations(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    kept = minimize(plan.operations, lambda some: fails(replace(plan, operations=tuple(some))))
    return replace(plan, operations=tuple(kept))


def _fewer_targets(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Of every fault: the fewest nodes and links."""
    for number in range(len(plan.faults)):
        for field in ("nodes", "links"):

            def with_targets(targets: Sequence[object], n: int = number, f: str = field) -> Plan:
                faults: list[Fault] = list(plan.faults)  # noqa: B023 - used at once
                faults[n] = replace(faults[n], **{f: tuple(targets)})  # type: ignore[arg-type]
                return replace(plan, faults=tuple(faults))  # noqa: B023 - as above

            targets = getattr(plan.faults[number], field)
            kept = minimize(
                targets, lambda some, make=with_targets: bool(some) and fails(make(some))
            )
            plan = with_targets(kept)
    return plan


def minimize(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """A subset, in order, that still fails and of which no single item can be left out (ddmin).

    `fails(items)` is taken for granted.
    """
    kept = list(items)
    size = max(1, len(kept) // 2)
    while kept:
        start, removed = 0, False
        while start < len(kept):
            candidate = kept[:start] + kept[start + size :]
            if fails(candidate):
                kept, removed = candidate, True
            else:
                start += size
        if size == 1 and not removed:
            break
        size = max(1, size // 2)
    return kept
