"""A proof that a register history is not linearizable, from the few operations where it breaks.

A depth-first search that has met a violation goes back through all that came before: no choice
made there helps, but it has to try each. Most violations show in a stretch of the history, though,
whatever came before. So when no path gets beyond the return of some operation, the operations of
the last while before that instant are searched alone, and from every start: with any value, and
with any of the operations then under way done or not. They are a superset of what any order of the
whole can do: if none of them gets beyond that instant, there is no order of the whole.
"""

from __future__ import annotations

from bisect import bisect_right

from labs.harness.checkers.register_codes import INITIAL
from labs.harness.checkers.register_search import FEW, RegisterSearch
from labs.harness.checkers.zones import BEFORE_ALL

ELSEWHERE = 1 << 40
"""A value that no operation of the stretch needs."""

BEFORE = 8
"""Operations before the stretch, for each one in it, that make this worth while."""

EFFORT = 32
"""Nodes that the search may visit for each operation of the stretch."""


def refuted(search: RegisterSearch) -> bool:
    """No order can get beyond the operation that `search` is stuck on. False says nothing."""
    return _overwritten(search) if search.count <= FEW else _stretch_refuted(search)


def _overwritten(search: RegisterSearch) -> bool:
    """What the operation found had been overwritten for good before it was called."""
    stuck, calls, returns, puts = search.stuck_on, search.calls, search.returns, search.puts
    value, start, end = search.needs[stuck], calls[stuck], returns[stuck]
    if value < 0 or any(put == value and call <= end for call, _, put, _ in search.pending):
        return False
    called = range(bisect_right(calls, end))
    writers = [returns[j] for j in called if puts[j] == value and j != stuck]
    if not writers and value != INITIAL:
        return True
    since = bisect_right(calls, max(writers, default=BEFORE_ALL))
    between = [j for j in range(since, stuck) if returns[j] < start]
    # Each of these made or found another value (a failed cas: if it says so).
    others = [search.needs[j] if puts[j] < 0 else ELSEWHERE for j in between]
    return any(need == -2 - value or (need >= 0 and need != value) for need in others)


def _stretch_refuted(search: RegisterSearch) -> bool:
    """Nothing gets beyond the instant at which `search` is stuck, in the last `span` operations."""
    end, span = search.deepest, search.patience // 2
    last = bisect_right(search.calls, end)
    begin = last - span
    if begin <= BEFORE * span:
        return False  # to search all of them is as good
    start = search.calls[begin]
    done = [j for j in range(begin, last) if search.returns[j] <= end]
    # What was under way at one of both ends may be in the stretch or not, as if it were pending.
    maybe = [j for j in range(begin) if search.returns[j] >= start]
    maybe += [j for j in range(begin, last) if search.returns[j] > end]
    pending = [search.ops[j] for j in maybe if search.puts[j] >= 0]
    pending += [op for call, _, _, op in search.pending if call <= end]
    stretch = RegisterSearch([search.ops[j] for j in done], pending)
    needed = {need for need in stretch.needs if need >= 0} | stretch.pending_sources
    stretch.start_from([*needed, ELSEWHERE])
    return stretch.run(EFFORT * span) is False
