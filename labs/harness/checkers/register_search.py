"""A register with any values: depth-first search that hardly ever branches.

Theory of operation. The search builds a linearization from left to right. A state is (operations
taken, current value). An operation may come next iff no untaken completed operation returned
before it was called. On top of Wing & Gong's search with Lowe's memory of states seen:

1. *State.* Of the operations called so far, in call order, only those not taken are kept: a
   handful for any length of history.
2. *Reads are taken at once* when the value is right: an early read constrains nothing.
3. *Of candidate writes of one value only the one with the earliest deadline* is tried. A legal cas
   waits for a write of the value that is there: before it that write changes nothing, after it, it
   does.
4. *Hidden writes.* A write that nobody observes can stand right before any later plain write. So
   it stays untaken until its own deadline comes; if a plain write was taken since it was called,
   it is then put right before that one, at no cost. `hide` is the number of operations (in call
   order) that may still be hidden so. Therefore the next operation to change the value is one of:
   a write of a value that somebody waits for, the operation whose deadline is next, or a legal cas.
5. *A value with an observer to come but no write of it in time* may not be overwritten.
6. *Pending operations* are taken only directly before an operation that waits for their value.
7. *A write whose deadline is next is hidden at once* if nobody can observe it: before the first
   operation that looks for its value is called, another must find another value.
8. *One choice at a time.* Where several are possible the most promising one is taken: the one that
   lets the operation with the next deadline come next. The others are worked out only when the
   search comes back to that state, which for most states it never does.

Why 4 is complete: let x be the next operation of some linearization to change the value, not
waited for, not the next deadline, not a cas. Whatever follows x directly is not an observer of its
value (it would be waiting), so it is another plain write: x is hidden before that one. A failed
cas that only says "the value was not a" waits for any other value while the value is a.

Brute force has checked all of this against every order of small histories (tests/checkers).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from labs.harness.checkers.register_codes import ANY
from labs.harness.checkers.register_ops import RegisterOps
from labs.harness.checkers.zones import NEVER
from labs.harness.history import Op

LONGEST_TURN = 1_000
"""States that are gone through before the caller looks at its budget again."""

SHORT_LOOK_AHEAD = 8
"""Operations to come that are looked at for a first guess whether a write was observed."""

MAX_MEMORY = 1_000_000
"""States remembered per key before the verdict is "unknown"."""

FEW = 200
"""Operations of a key up to which looking at all of them costs less than one choice more."""

PATIENCE = 16
"""Choices gone back to without getting any further, after which a key is looked at another way."""

# How a state was reached: (path before, what was taken), newest first. What: an operation j;
# ~j: j was hidden before the latest plain write; count + p: the pending operation p.
Path = tuple[Any, int] | None
# (operations called, those of them not taken, value, bits of pending operations taken, hide, path)
State = tuple[int, list[int], int, int, int, Path]


_NONE: dict[int, list[tuple[int, int]]] = {}


class RegisterSearch(RegisterOps):
    """The search over one key; `run` may be called again to go on with a new budget."""

    def __init__(self, completed: Sequence[Op], pending: Sequence[Op], initial: Any = None) -> None:
        super().__init__(completed, pending, initial)
        self.memory: dict[tuple[int, int, tuple[int, ...]], list[tuple[int, int]]] = {}
        self.remembered = 0
        self.known = -1  # of all states in memory the most operations called
        self.nodes = 0
        self.deepest = -1  # the latest return before which some path could take no more
        self.deepest_path: Path = None
        self.stuck_on = -1  # the operation with that return
        self.stuck = False  # `run` gave up early: no path had got any further for long
        self.patience = PATIENCE if self.count > FEW else 0
        self._in_vain = 0  # choices gone back to since any path got further
        self.solution: Path = None
        # States to go on from, and the choice that was tried there (None: not looked at so far).
        self._stack: list[tuple[State, int | None]] = [((0, [], 0, 0, 0, None), None)]

    @property
    def exhausted_memory(self) -> bool:
        """The cap on memory was reached: another budget will not help."""
        return self.remembered > MAX_MEMORY

    def start_from(self, values: Iterable[int]) -> None:
        """Begin with any of these values; give up when nothing was found, stuck or not."""
        self._stack = [((0, [], value, 0, 0, None), None) for value in values]
        self.patience = NEVER

    def forget(self) -> None:
        """Free what only the search itself needed."""
        self.memory.clear()
        self._stack.clear()

    def run(self, budget: int) -> bool | None:
        """Search on. True, False, or None when `budget` nodes were visited without a verdict.

        Also None when no path has got any further for long (`stuck`): see `register_refute.py`.
        """
        stack = self._stack
        last = self.nodes + budget
        self.stuck = False
        while stack:
            if self.nodes >= last or self.remembered > MAX_MEMORY:
                return None
            if self._in_vain > self.patience:
                self.stuck = True
                self.patience += self.patience + 1
                return None
            state, tried = stack.pop()
            after = state if tried is None else self._branch(state, tried)
            if after is not None and self._advance(after):
                return True
        return False

    def _advance(self, state: State) -> bool:
        """Take what seems best in state after state, and keep the others for later; True: done."""
        calls, ends, needs, puts = self.calls, self.returns, self.needs, self.puts
        reads, keep, pending = self.reads, self._stack.append, self.pending_by_put
        called, waiting, value, used, hide, path = state
        choice = -1
        for nodes in range(LONGEST_TURN):
            deadline, first, absent, finders = NEVER, -1, -2 - value, 0
            before, waiting = waiting, []
            for j in before:
                need = reads[j]
                if need != value and (need >= ANY or need == absent) and j != choice:
                    waiting.append(j)
                    if need != ANY:
                        finders += 1
                    if ends[j] < deadline:
                        deadline, first = ends[j], j
            while calls[called] <= deadline:
                need = reads[called]
                if need != value and (need >= ANY or need == absent):
                    waiting.append(called)
                    if need != ANY:
                        finders += 1
                    if ends[called] < deadline:
                        deadline, first = ends[called], called
                called += 1
            if first < 0:
                self.solution, self.nodes = path, self.nodes + nodes + 1
                return True
            if not finders and first >= hide:  # nothing but writes, and this one has to come now
                path, value, hide, choice = (path, first), puts[first], called, first
                continue
            best = self._best(first, called, waiting, value, hide)
            state = called, waiting, value, used, hide, path
            if best is None or (called <= self.known and self._seen(state)):
                after = self._branch(state, None)
                if after is None:
                    self.nodes += nodes + 1
                    return False
                called, waiting, value, used, hide, path = after
                choice = -1
                continue
            choice = best
            need = needs[first]
            # Else there is no other choice.
            if (
                first < hide
                or finders > 1
                or need == ANY
                or need in pending
                or (puts[first] >= 0 and len(waiting) > 1)
            ):
                keep((state, choice))
            path = (path, choice)
            if choice < 0:
                choice = first
                continue
            value = puts[choice]
            if needs[choice] == ANY:
                hide = called
        state = called, [j for j in waiting if j != choice], value, used, hide, path
        keep((state, None))
        self.nodes += LONGEST_TURN
        return False

    def _best(
        self, first: int, called: int, waiting: list[int], value: int, hide: int
    ) -> int | None:
        """The most promising choice, as in a path: `first`, or what lets it come next.

        None: there is none among the completed operations, or it takes more than one of them.
        """
        needs, puts = self.needs, self.puts
        need, put = needs[first], puts[first]
        if need == ANY:
            hidden, best = first < hide, first
            for j in waiting:
                if needs[j] == value:
                    best = j  # a cas, before its value is gone
                elif needs[j] == put:
                    hidden = False
            if not hidden:
                return best
            for need in needs[called : called + SHORT_LOOK_AHEAD]:
                if need == value:
                    break
                if need == put:
                    return best
            return ~first
        if need == value:
            return first
        found, end, ends = None, NEVER, self.returns
        for j in waiting:
            if puts[j] == need and ends[j] < end and (needs[j] == ANY or needs[j] == value):
                found, end = j, ends[j]
        return found

    def _seen(self, state: State) -> bool:
        """Another state that can do all that this one can do was looked at before."""
        called, waiting, value, used, hide, _ = state
        for more, reach in self.memory.get((called, value, tuple(waiting)), ()):
            if more & used == more and reach >= hide:
                return True
        return False

    def _branch(self, state: State, tried: int | None) -> State | None:
        """The state to go on with; the others go on the stack. None: all was tried before."""
        called, waiting, value, used, hide, path = state
        first = min(waiting, key=self.returns.__getitem__)
        self._in_vain += 1
        if self.returns[first] > self.deepest:
            self.deepest, self.deepest_path, self._in_vain = self.returns[first], path, 1
            self.stuck_on = first
        found = self._children(state, first, tried)
        if not found or self._seen(state):
            return None
        if len(found) > 1 or tried is not None:
            self.memory.setdefault((called, value, tuple(waiting)), []).append((used, hide))
            self.remembered += 1
            self.known = max(self.known, called)
        after = found.pop()
        self._stack += [(child, None) for child in found]
        return after

    def _children(self, state: State, first: int, tried: int | None) -> list[State]:
        """The states to try, but for the choice that was tried, the most promising last."""
        called, waiting, value, used, hide, path = state
        needs, puts, returns = self.needs, self.puts, self.returns
        waited: set[int] = set()
        other = False
        plain: dict[int, int] = {}  # value -> the write of it with the earliest deadline
        swaps: dict[int, int] = {}  # the same, of legal cas
        for j in waiting:
            need, put = needs[j], puts[j]
            group = plain
            if need != ANY:
                if need >= 0:
                    waited.add(need)  # by a legal cas, too: see 3
                else:
                    other = True
                if need != value:
                    continue
                group = swaps
            if put not in group or returns[j] < returns[group[put]]:
                group[put] = j
        hidden = needs[first] == ANY and first < hide
        if hidden and not other and self.unseen(first, waited, called):
            plain.clear()
            swaps.clear()
            waited.clear()
        chosen = [j for j in swaps.values() if j != tried]
        found: list[State] = []
        wanted = waited
        if self.pending and (waited or other):
            found, wanted = self._pending(state, waited, other, plain, swaps)
        urgent = puts[first] if needs[first] == ANY else -1
        writes = [
            j
            for put, j in plain.items()
            if j != tried and (put == urgent or put in wanted or (other and put != value))
        ]
        if writes and (value in plain or self.may_overwrite(called, waiting, value, swaps)):
            chosen += writes
        if len(chosen) > 1:
            chosen.sort(key=returns.__getitem__, reverse=True)
        for j in chosen:
            rest = [k for k in waiting if k != j]
            reach = called if needs[j] == ANY else hide
            found.append((called, rest, puts[j], used, reach, (path, j)))
        if hidden and tried != ~first:
            rest = [k for k in waiting if k != first]
            found.append((called, rest, value, used, hide, (path, ~first)))
        return found

    def _pending(
        self,
        state: State,
        waited: set[int],
        other: bool,
        plain: dict[int, int],
        swaps: dict[int, int],
    ) -> tuple[list[State], set[int]]:
        """Pending operations whose value is waited for, and all values waited for because of them.

        A pending cas whose value is wanted wants its own source in turn.
        """
        called, waiting, value, used, hide, path = state
        found: list[State] = []
        wanted = set(waited)
        if other:
            wanted |= self.pending_by_put.keys() - {value}
        queue = [put for put in wanted if put in self.pending_by_put]
        if not queue:
            return found, wanted
        deadline = min([self.returns[j] for j in waiting])
        may_go: bool | None = None
        while queue:
            put = queue.pop()
            for need, group in self.pending_by_put.get(put, _NONE).items():
                for call, p in group:  # of several alike, one is enough
                    if call > deadline or not used >> p & 1:
                        break
                else:
                    continue
                if call > deadline:
                    continue
                reach = hide
                if need == ANY:
                    if put in plain:
                        continue
                    if may_go is None:
                        may_go = self.may_overwrite(called, waiting, value, swaps)
                    if not may_go:
                        continue
                    reach = called
                elif need != value:
                    if need not in wanted:
                        wanted.add(need)
                        queue.append(need)
                    continue
                elif need not in wanted:
                    wanted.add(need)
                    queue.append(need)
                found.append((called, waiting, put, used | 1 << p, reach, (path, self.count + p)))
        return found, wanted
