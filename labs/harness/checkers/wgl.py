"""Any sequential specification: Wing & Gong's search with Lowe's memory of states seen.

An operation may come next iff no untaken completed operation returned before it was called. States
seen are remembered as (prefix of the call order, window of bits, state, pending ones taken): the
same set of operations with the same state need not be searched twice. Operations that do not
change the state are taken as soon as they are legal. A pending operation may come at any time after
its call, or never; it is tried last. A failed operation did not happen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

from labs.harness.checkers.models import Model
from labs.harness.checkers.register_search import Path
from labs.harness.checkers.zones import NEVER
from labs.harness.history import Op

# (prefix length, window of bits, state, bits of pending operations taken, path)
Place = tuple[int, int, Any, int, Path]

MAX_MEMORY = 1_000_000
"""States remembered per part of the history before the verdict is "unknown"."""


class Search:
    """The search over one part of a history; `run` may be called again with a new budget."""

    def __init__(self, model: Model, completed: Sequence[Op], pending: Sequence[Op]) -> None:
        self.model = model
        self.ops = sorted(completed, key=lambda op: op.invoke_ns)
        self.pending = [op for op in pending if op.f not in model.read_only]
        self.count = len(self.ops)
        self.calls = [*(op.invoke_ns for op in self.ops), NEVER + 1]
        self.returns = [NEVER if op.return_ns is None else op.return_ns for op in self.ops]
        self._read_only = [op.f in model.read_only for op in self.ops]
        self._resets = [j for j, op in enumerate(self.ops) if op.f in model.resets]
        self._guides = self._find_guides()
        self.nodes = 0
        self.deepest = -1
        self.deepest_path: Path = None
        self.deepest_state: Any = model.init
        self.solution: Path = None
        self._memory: set[Any] = set()
        self._stack: list[Place] = [(0, 0, model.init, 0, None)]

    @property
    def exhausted_memory(self) -> bool:
        """The cap on memory was reached: another budget will not help."""
        return len(self._memory) > MAX_MEMORY

    @property
    def remembered(self) -> int:
        """States in memory."""
        return len(self._memory)

    def forget(self) -> None:
        """Free what only the search itself needed."""
        self._memory.clear()
        self._stack.clear()

    def run(self, budget: int) -> bool | None:
        """Search on. True, False, or None when `budget` nodes were visited without a verdict."""
        stack, memory = self._stack, self._memory
        last = self.nodes + budget
        while stack:
            if self.nodes >= last or len(memory) > MAX_MEMORY:
                return None
            self.nodes += 1
            place = stack.pop()
            found = self._children(place)
            if found is None:
                self.solution = self.deepest_path  # no path got as far before
                return True
            if len(found) > 1:
                key = place[:4]
                if key in memory:
                    continue
                memory.add(key)
            stack += found
        return False

    def _children(self, place: Place) -> list[Place] | None:
        """The states to try, the most promising last; None: all operations are taken."""
        base, window, state, used, path = place
        step, ops, calls, returns = self.model.step, self.ops, self.calls, self.returns
        read_only, may_follow = self._read_only, self.model.may_follow
        deadline = doomed = NEVER  # doomed: the least return of reads that need a reset first
        after: list[tuple[int, int, Any]] = []
        j, rest = base, window
        while calls[j] <= deadline:
            if not rest & 1:
                legal, then = step(state, ops[j])
                if legal and read_only[j]:
                    window |= 1 << j - base
                    path = (path, j)
                else:
                    ends = returns[j]
                    if ends < deadline:
                        deadline = ends
                    if legal:
                        after.append((ends, j, then))
                    elif may_follow is not None and ends < doomed and read_only[j]:
                        doomed = doomed if may_follow(state, ops[j]) else ends
            rest >>= 1
            j += 1
        if window & 1:
            base, window = shift(base, window)
        if base > self.deepest:
            self.deepest, self.deepest_path, self.deepest_state = base, path, state
            if base == self.count:
                return None
        if doomed < NEVER and not self._reset_before(doomed, base, window, used):
            return []
        if may_follow is not None and after and (guide := self._guide(base, window)) is not None:
            resets = self.model.resets
            after = [one for one in after if ops[one[1]].f in resets or may_follow(one[2], guide)]
        if len(after) > 1:
            after.sort(key=itemgetter(0), reverse=True)
        found: list[Place] = []
        for p, op in enumerate(self.pending):
            if op.invoke_ns <= deadline and not used >> p & 1:
                legal, then = step(state, op)
                if legal and then != state:
                    found.append((base, window, then, used | 1 << p, (path, self.count + p)))
        for _, j, then in after:
            at, bits = shift(base, window | 1 << j - base)
            found.append((at, bits, then, used, (path, j)))
        return found

    def _find_guides(self) -> list[int]:
        """For each reset, and for the end: the latest read that is over before it begins."""
        guides: list[int] = []
        if self.model.may_follow is None or any(op.f in self.model.resets for op in self.pending):
            return guides
        reads = [j for j, alone in enumerate(self._read_only) if alone]
        reads.sort(key=self.returns.__getitem__)
        ends = [self.returns[j] for j in reads]
        latest = list(accumulate(reads, max))
        for k in [*self._resets, self.count]:
            over = bisect_left(ends, self.calls[k])
            guides.append(latest[over - 1] if over else -1)
        return guides

    def _guide(self, base: int, window: int) -> Op | None:
        """A read that all of the next steps must lead to, because no reset can come before it."""
        if not self._guides:
            return None
        at = bisect_left(self._resets, base)
        while at < len(self._resets) and window >> self._resets[at] - base & 1:
            at += 1
        guide = self._guides[at]
        if guide < base or window >> guide - base & 1:
            return None
        return self.ops[guide]

    def _reset_before(self, end: int, base: int, window: int, used: int) -> bool:
        """An operation that resets the state is left, and may come before `end`."""
        for j in self._resets[bisect_left(self._resets, base) :]:
            if self.calls[j] > end:
                break
            if not window >> j - base & 1:
                return True
        return any(
            op.f in self.model.resets and op.invoke_ns <= end and not used >> p & 1
            for p, op in enumerate(self.pending)
        )

    def order(self, path: Path) -> list[Op]:
        """The operations of a path, oldest first."""
        taken: list[Op] = []
        while path is not None:
            path, j = path
            taken.append(self.ops[j] if j < self.count else self.pending[j - self.count])
        return taken[::-1]


def shift(base: int, window: int) -> tuple[int, int]:
    """Move taken operations at the front of the window into the prefix."""
    if window & 1:
        taken = ((window + 1) & ~window).bit_length() - 1
        return base + taken, window >> taken
    return base, window
