"""Counters, banks and long forks: what a read may add up to."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise
from typing import Any

from labs.harness.checkers.result import Counterexample, Result, Valid, freeze
from labs.harness.checkers.story import tell
from labs.harness.history import History, Op


def check_counter(history: History, *, explain: bool = True) -> Result:
    """Each read lies between what must have been added and what may have been (Jepsen's counter).

    An add counts for sure when it was acknowledged before the read was called, and may count when
    it was called before the read returned. `stats`: reads, errors (value, least, greatest).

    A bound, not a search: `check_linearizable(model="counter")` decides exactly.
    """
    adds = [op for op in history.ops if op.f == "add" and op.type != "fail"]
    sure = [op for op in adds if op.type == "ok"]
    may_up = _Sums([(op.invoke_ns, max(_amount(op), 0)) for op in adds])
    may_down = _Sums([(op.invoke_ns, min(_amount(op), 0)) for op in adds])
    did_up = _Sums([(op.return_ns or 0, max(_amount(op), 0)) for op in sure])
    did_down = _Sums([(op.return_ns or 0, min(_amount(op), 0)) for op in sure])
    errors: list[tuple[Any, int, int]] = []
    first: Op | None = None
    reads = [op for op in history.ops if op.f == "read" and op.type == "ok"]
    for op in reads:
        called, returned = op.invoke_ns, op.return_ns or 0
        least = did_up.before(called) + may_down.until(returned)
        greatest = did_down.before(called) + may_up.until(returned)
        if not isinstance(op.output, (int, float)) or not least <= op.output <= greatest:
            errors.append((op.output, least, greatest))
            first = first or op
    stats: dict[str, Any] = {"reads": len(reads), "errors": errors}
    if first is None:
        return Result(True, "counter bounds", stats=stats)
    value, least, greatest = errors[0]
    summary = f"{value!r} was read, but the counter was between {least} and {greatest}"
    story = Counterexample("counter out of bounds", summary, [first], first.key)
    return Result(False, "counter bounds", tell(history, story) if explain else None, stats=stats)


def _amount(op: Op) -> int:
    return 1 if op.value is None else int(op.value)


class _Sums:
    """Sums of amounts up to an instant."""

    def __init__(self, changes: list[tuple[int, int]]) -> None:
        changes.sort()
        self._times = [time_ns for time_ns, _ in changes]
        self._sums = [0, *accumulate(amount for _, amount in changes)]

    def before(self, time_ns: int) -> int:
        """Of those strictly before."""
        return self._sums[bisect_left(self._times, time_ns)]

    def until(self, time_ns: int) -> int:
        """Of those up to and including the instant."""
        return self._sums[bisect_right(self._times, time_ns)]


def check_bank(
    history: History,
    *,
    total: int | None = None,
    negative_allowed: bool = False,
    explain: bool = True,
) -> Result:
    """Every read of all balances adds up to the same total, and none is below zero.

    Args:
        total: what it shall be; None: what the first read adds up to.
        negative_allowed: accounts may be overdrawn.

    `stats`: reads, total, wrong_total and negative (counts).
    """
    reads = [op for op in history.ops if op.f == "read" and op.type == "ok"]
    wrong: list[Op] = []
    negative: list[Op] = []
    for op in reads:
        balances = list((op.output or {}).values())
        if not balances or any(type(b) is not int for b in balances):
            wrong.append(op)
            continue
        total = sum(balances) if total is None else total
        if sum(balances) != total:
            wrong.append(op)
        if not negative_allowed and min(balances) < 0:
            negative.append(op)
    stats: dict[str, Any] = {"reads": len(reads), "total": total}
    stats |= {"wrong_total": len(wrong), "negative": len(negative)}
    if wrong:
        found = sum(b for b in (wrong[0].output or {}).values() if type(b) is int)
        summary = f"the balances add up to {found}, not to {total}"
        # The last read that was right: the money went or came after it.
        right = [op for op in reads if op not in wrong and op.invoke_ns < wrong[0].invoke_ns]
        story = Counterexample("read skew", summary, [*right[-1:], wrong[0]])
    elif negative:
        story = Counterexample("negative balance", "an account is below zero", [negative[0]])
    else:
        return Result(True if reads else "unknown", "bank totals", stats=stats)
    return Result(False, "bank totals", tell(history, story) if explain else None, stats=stats)


def check_long_fork(history: History, *, explain: bool = True) -> Result:
    """Two reads of the same keys that each see a write which the other misses (parallel SI).

    Each key is written once. A read is a list of `["r", key, value]`; None: nothing there.
    """
    reads: list[tuple[Op, dict[Any, bool]]] = []
    for op in history.ops:
        if op.f in ("read", "txn") and op.type == "ok":
            micros = [micro for micro in op.output if micro[0] == "r"]
            if micros:
                reads.append((op, {freeze(key): value is not None for _, key, value in micros}))
    groups: dict[frozenset[Any], list[tuple[Op, frozenset[Any]]]] = {}
    for op, seen in reads:
        there = frozenset(key for key, present in seen.items() if present)
        groups.setdefault(frozenset(seen), []).append((op, there))
    stats: dict[str, Any] = {"reads": len(reads), "groups": len(groups)}
    verdict: Valid = True if reads else "unknown"
    for group in groups.values():
        # Sets that are all comparable form a chain: sorted by size, each holds the one before.
        group.sort(key=lambda pair: len(pair[1]))
        for (first, less), (second, more) in pairwise(group):
            if not less <= more:
                summary = "two reads each saw a write that the other missed"
                story = Counterexample("long fork", summary, [first, second])
                told = tell(history, story) if explain else None
                return Result(False, "long fork", told, stats=stats)
    return Result(verdict, "long fork", stats=stats)
