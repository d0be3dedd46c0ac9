"""Any sequential specification: Wing & Gong's search with Lowe's memory of states seen.

An operation may come next iff no untaken completed operation returned before it was called. States
seen are remembered as (prefix of the call order, window of bits, state, pending ones taken): the
same set of operations with the same state need not be searched twice. Operations that do not
change the state are taken as soon as they are legal. A pending operation may come at any time after
its call, or never; it is tried last. A failed operation did not happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labs.harness.checkers.models import Model
from labs.harness.checkers.register_search import Path, shift
from labs.harness.checkers.zones import NEVER
from labs.harness.history import Op

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
        self.nodes = 0
        self.deepest = -1
        self.deepest_path: Path = None
        self.deepest_state: Any = model.init
        self.solution: Path = None
        self._memory: set[Any] = set()
        self._stack: list[tuple[int, int, Any, int, Path]] = [(0, 0, model.init, 0, None)]

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
            base, window, state, used, path = stack.pop()
            found = self._children(base, window, state, used, path)
            if found is None:
                self.solution = self.deepest_path
                return True
            if len(found) > 1:
                key = (base, window, state, used)
                if key in memory:
                    continue
                memory.add(key)
            stack += found
        return False

    def _children(
        self, base: int, window: int, state: Any, used: int, path: Path
    ) -> list[tuple[int, int, Any, int, Path]] | None:
        step, ops, calls, returns = self.model.step, self.ops, self.calls, self.returns
        found: list[tuple[int, tuple[int, int, Any, int, Path]]] = []
        deadline = NEVER
        j, rest = base, window
        after: list[tuple[int, Any]] = []
        while calls[j] <= deadline:
            if not rest & 1:
                legal, then = step(state, ops[j])
                if legal and then == state and ops[j].f in self.model.read_only:
                    window |= 1 << j - base
                    path = (path, j)
                else:
                    deadline = min(deadline, returns[j])
                    if legal:
                        after.append((j, then))
            rest >>= 1
            j += 1
        base, window = shift(base, window)
        if base > self.deepest:
            self.deepest, self.deepest_path, self.deepest_state = base, path, state
        if base == self.count:
            self.deepest_path = path
            return None
        for j, then in after:
            at, bits = shift(base, window | 1 << j - base)
            found.append((returns[j], (at, bits, then, used, (path, j))))
        for p, op in enumerate(self.pending):
            if op.invoke_ns <= deadline and not used >> p & 1:
                legal, then = step(state, op)
                if legal and then != state:
                    child = (base, window, then, used | 1 << p, (path, self.count + p))
                    found.append((NEVER, child))
        if len(found) > 1:
            found.sort(key=lambda item: item[0], reverse=True)
        return [child for _, child in found]

    def order(self, path: Path) -> list[Op]:
        """The operations of a path, oldest first."""
        taken: list[Op] = []
        while path is not None:
            path, j = path
            taken.append(self.ops[j] if j < self.count else self.pending[j - self.count])
        return taken[::-1]
