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

from labs.harness.checkers.register_search import RegisterSearch

ELSEWHERE = 1 << 40
"""A value that no operation of the stretch needs."""

EFFORT = 32
"""Nodes that the search may visit for each operation of the stretch."""


def refuted(search: RegisterSearch) -> bool:
    """Nothing can get beyond the instant at which `search` is stuck, in the last `span` operations.

    False says nothing.
    """
    end, span = search.deepest, 16 * search.patience // 32
    last = bisect_right(search.calls, end)
    begin = last - span
    if begin < 8 * span:
        return False
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
