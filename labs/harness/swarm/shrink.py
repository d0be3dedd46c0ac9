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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeVar

from labs.harness.swarm.plan import Plan
from labs.harness.swarm.run import Failure, simulate

T = TypeVar("T")
Run = Callable[[Iterable[Plan]], Iterator[Failure | None]]
RUNS_MAX = 600


@dataclass(slots=True)
class Shrunk:
    """The smallest plan found, how it fails, and how many runs that took."""

    plan: Plan
    failure: Failure
    runs: int


def here(plans: Iterable[Plan]) -> Iterator[Failure | None]:
    """Every plan in this process, one after the other."""
    return (simulate(plan, tell=True) for plan in plans)


def shrink(
    plan: Plan,
    *,
    run: Run = here,
    runs_max: int = RUNS_MAX,
    told: Callable[[str], None] = lambda _: None,
) -> Shrunk:
    """`run` carries out plans and gives what came of each, in their order, as long as it is asked.

    Raises ValueError when `plan` does not fail at all.
    """
    failure = next(iter(run([plan])))
    if failure is None:
        raise ValueError("this plan does not fail")
    work = _Work(run, failure, runs_max)
    while True:
        before = plan
        plan = _fewer(plan, "faults", work)
        told(f"{work.runs} runs: {len(plan.faults)} faults, {len(plan.operations)} operations")
        plan = _fewer(plan, "operations", work)
        told(f"{work.runs} runs: {len(plan.faults)} faults, {len(plan.operations)} operations")
        plan = _fewer_targets(plan, work)
        if plan == before or work.runs >= runs_max:
            return Shrunk(plan, work.failure, work.runs)


class _Work:
    """Runs made so far, and the last of them that broke the same promise as the first."""

    def __init__(self, run: Run, first: Failure, runs_max: int) -> None:
        self.failure = first
        self.runs = 1
        self._run = run
        self._runs_max = runs_max

    def fails(self, plans: Iterable[Plan]) -> Iterator[bool]:
        for failure in self._run(plans):
            if self.runs >= self._runs_max:
                return
            self.runs += 1
            if failure is not None and failure.promise == self.failure.promise:
                self.failure = failure
                yield True
            else:
                yield False


def _fewer(plan: Plan, field: str, work: _Work) -> Plan:
    """Of the faults, or of the operations."""

    def only(some: Sequence[Any]) -> Plan:
        changes: dict[str, Any] = {field: tuple(some)}
        return replace(plan, **changes)

    return only(minimize(getattr(plan, field), lambda sets: work.fails(map(only, sets))))


def _fewer_targets(plan: Plan, work: _Work) -> Plan:
    """Of every fault: the fewest nodes and links, one at least."""
    for number, field in product(range(len(plan.faults)), ("nodes", "links")):
        plan = _fewer_at(plan, number, field, work)
    return plan


def _fewer_at(plan: Plan, number: int, field: str, work: _Work) -> Plan:
    def only(some: Sequence[Any]) -> Plan:
        faults = list(plan.faults)
        changes: dict[str, Any] = {field: tuple(some)}
        faults[number] = replace(faults[number], **changes)
        return replace(plan, faults=tuple(faults))

    targets = getattr(plan.faults[number], field)
    if len(targets) <= 1:
        return plan
    return only(minimize(targets, lambda sets: work.fails(only(some) for some in sets if some)))


def transcript(plan: Plan, failure: Failure) -> str:
    """The plan, what happened (if `failure` was told its story), and what was broken."""
    lines = [f"{plan.nodes} nodes; an fdatasync takes, in ms, on each: {plan.disks_ms}"]
    lines += [f"{name}={value}" for name, value in plan.environment]
    lines += ["", *failure.story, "", f"broken: {failure.promise}", failure.detail]
    return "\n".join(lines)


def minimize(
    items: Sequence[T], fails: Callable[[Iterable[Sequence[T]]], Iterator[bool]]
) -> list[T]:
    """A subset, in order, that still fails and of which no single item can be left out (ddmin).

    `fails` says of each candidate, in their order, whether it fails; it is asked for no more once
    one does, so it may look ahead. That `items` fails is taken for granted.
    """
    kept = list(items)
    size = max(1, len(kept) // 2)
    start, removed = 0, False
    while kept:
        places = range(start, len(kept), size)
        candidates = (kept[:at] + kept[at + size :] for at in places)
        found = next((at for at, bad in zip(places, fails(candidates), strict=False) if bad), None)
        if found is not None:
            kept, start, removed = kept[:found] + kept[found + size :], found, True
        elif size == 1 and not removed:
            break
        else:
            size, start, removed = max(1, size // 2), 0, False
    return kept
