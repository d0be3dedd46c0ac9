"""A register whose written values are unique: near-linear, by zones (Gibbons & Korach 1997).

Theory of operation. The *cluster* of a value is its write and every read of it. In a linearization
a cluster stands together: once overwritten, a unique value never returns. Let f be the least
return and s the greatest call in a cluster. Cluster A must stand before B iff f(A) < s(B): some
operation of A was over before some operation of B began. So the history is linearizable iff

1. every value read was written (the initial value counts as written before time itself),
2. no operation of a cluster returns before its write is called,
3. no two clusters must each stand before the other.

Longer cycles need no check: a cycle of the relation f(A) < s(B) always contains one of two. A zone
is *forward* when f < s (it then occupies the interval), else *backward*; (3) says that forward
zones are disjoint and no backward zone lies inside a forward one: sort, and sweep once.

A compare-and-set glues the cluster of the value it wrote behind that of the value it found
(`chains.py`). Pending writes: one that nobody observed is dropped (it may never have happened);
one that was observed happened, but returns "never". Repeated values, deletes, and a failed cas
that did not report the current value are not for zones: the caller falls back to search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import lt
from typing import Any

from labs.harness.checkers.result import PLAIN, freeze
from labs.harness.checkers.values import found, left
from labs.harness.history import Op

BEFORE_ALL = -(1 << 62)
"""When the initial value was written; earlier than any time of a history."""
NEVER = 1 << 62
"""When a pending operation returns."""


@dataclass(slots=True)
class Conflict:
    """Where a register history breaks: which rule, and the operations that show it."""

    rule: str  # "unwritten" | "early" | "order" | "two-cas" | "cas-order" | "cas-cycle"
    ops: list[Op]
    first: list[Op] = field(default_factory=list)  # "order": those of the first of two clusters


NotApplicable = None


def check_zones(
    writes: Sequence[Op], reads: Sequence[Op], pending: Sequence[Op], initial: Any
) -> bool | Conflict | None:
    """Reads and writes of one key: True, a conflict, or None when values repeat.

    `initial` must be of a type in `PLAIN`.

    Args:
        writes: acknowledged ones.
        reads: completed ones, `output` being what was read.
        pending: writes of unknown fate.
        initial: the value before any write.

    Raises:
        TypeError: a value written or read is not of a type in `PLAIN` (`check_chains` takes it).
    """
    first: dict[Any, int] = {op.value: op.return_ns for op in writes}  # type: ignore[misc]
    last = {op.value: op.invoke_ns for op in writes}
    if not set(map(type, first)) <= PLAIN:
        raise TypeError("a value that is no plain dictionary key")
    if len(first) != len(writes) or initial in first:
        return NotApplicable
    if pending and not _observed(pending, {op.output for op in reads}, initial, first, last):
        return NotApplicable
    first[initial] = last[initial] = BEFORE_ALL
    calls = list(last.values())
    try:
        for op in reads:  # this loop is most of the time of a check
            value, returned = op.output, op.return_ns
            if value is True or value is False:
                raise TypeError("a truth value, which Python takes for 0 or 1")
            if first[value] > returned:  # type: ignore[operator]
                first[value] = returned  # type: ignore[assignment]
            invoked = op.invoke_ns
            if last[value] < invoked:
                last[value] = invoked
    except KeyError:
        return Conflict("unwritten", [op for op in reads if op.output not in first][:1])
    if any(map(lt, first.values(), calls)):
        return _early(writes, reads, pending, dict(zip(first, calls, strict=True)))
    clash = sweep(list(first.values()), list(last.values()))
    if clash is None:
        return True
    return _order(clash, first, last, [*writes, *pending], reads)


def _observed(
    pending: Sequence[Op],
    seen: set[Any],
    initial: Any,
    first: dict[Any, int],
    last: dict[Any, int],
) -> bool:
    """Count the pending writes that somebody observed; False if their values repeat."""
    for op in pending:
        value = freeze(op.value)
        if value in seen:
            if value in first or value == initial:
                return False
            first[value], last[value] = NEVER, op.invoke_ns
    return True


def sweep(fs: list[int], ss: list[int]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Two zones (f, s) that must each stand before the other, or None.

    In order of f. While no clash was found the forward zones seen so far are disjoint, so the
    latest of them is the only one that can reach beyond the next f.
    """
    forward_f = forward_s = BEFORE_ALL - 1
    for at in sorted(range(len(fs)), key=fs.__getitem__):
        f, s = fs[at], ss[at]
        if f < forward_s and (f < s or forward_f < s):
            return (forward_f, forward_s), (f, s)
        if f < s:
            forward_f, forward_s = f, s
    return None


def _early(
    writes: Sequence[Op], reads: Sequence[Op], pending: Sequence[Op], calls: dict[Any, int]
) -> Conflict:
    """A value that was read before its write was called."""
    for read in reads:
        value = freeze(read.output)
        if read.return_ns is not None and read.return_ns < calls[value]:
            writer = [op for op in (*writes, *pending) if freeze(op.value) == value]
            return Conflict("early", [read, *writer[:1]])
    raise AssertionError("some read returned before its write was called")


def _order(
    clash: tuple[tuple[int, int], tuple[int, int]],
    first: dict[Any, int],
    last: dict[Any, int],
    writers: Sequence[Op],
    reads: Sequence[Op],
) -> Conflict:
    """Operations of the two clusters that cannot be reconciled, with the two writes."""
    groups: list[list[Op]] = []
    told: set[Any] = set()
    for f, s in clash:
        value = next(v for v in first if (first[v], last[v]) == (f, s) and v not in told)
        told.add(value)
        members = [op for op in writers if freeze(op.value) == value]
        groups.append(members + [op for op in reads if freeze(op.output) == value])
    return clashing(clash, groups)


def clashing(clash: tuple[tuple[int, int], tuple[int, int]], groups: list[list[Op]]) -> Conflict:
    """At most six operations of two clusters that each must stand before the other.

    x of the one returned before y of the other was called, and z of the other before w of the one.
    There may be many such; writes are preferred to reads, then what returned first. With a read
    comes the write of its value, if there is one.
    """
    late = [_pick([op for op in groups[n] if op.invoke_ns > clash[1 - n][0]]) for n in (0, 1)]
    chosen: list[list[Op]] = []
    for number in (0, 1):
        mine = late[number]
        writers = [op for op in groups[number] if op is mine or left(op) == found(mine)]
        soon = [op for op in groups[number] if ended(op) < late[1 - number].invoke_ns]
        best = [op for op in writers if op in soon] or soon
        chosen.append([mine, *writers[:2], *([_pick(best)] if best else [])])
    unique = {id(op): op for op in (*chosen[0], *chosen[1])}
    ops = sorted(unique.values(), key=lambda op: (op.invoke_ns, op.index))
    return Conflict("order", ops, chosen[0])


def _pick(ops: list[Op]) -> Op:
    return min(ops, key=lambda op: (op.f == "read", ended(op)))


def ended(op: Op) -> int:
    """When an operation returned; `NEVER` for a pending one."""
    return NEVER if op.return_ns is None else op.return_ns
