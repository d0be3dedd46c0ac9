"""A register with any values: depth-first search that hardly ever branches.

Theory of operation. The search builds a linearization from left to right. A state is (operations
taken, current value). An operation may come next iff no untaken completed operation returned
before it was called. On top of Wing & Gong's search with Lowe's memory of states seen:

1. *Key.* Taken operations are a prefix of the call order plus a window of bits: small integers
   for any length of history.
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

Why 4 is complete: let x be the next operation of some linearization to change the value, not
waited for, not the next deadline, not a cas. Whatever follows x directly is not an observer of its
value (it would be waiting), so it is another plain write: x is hidden before that one. A failed
cas that only says "the value was not a" waits for any other value while the value is a.

Brute force has checked all of this against every order of small histories (tests/checkers).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from labs.harness.checkers.register_codes import ANY, encode
from labs.harness.checkers.zones import NEVER
from labs.harness.history import Op

LONGEST_TURN = 1_000
"""States that are gone through before the caller looks at its budget again."""

MAX_LOOK_AHEAD = 64
"""Operations to come that are looked at for an observer of a write, before it is tried in vain."""

MAX_MEMORY = 1_000_000
"""States remembered per key before the verdict is "unknown"."""

# How a state was reached: (path before, what was taken), newest first. What: an operation j;
# ~j: j was hidden before the latest plain write; count + p: the pending operation p.
Path = tuple[Any, int] | None
# (prefix length, window of bits, value, bits of pending operations taken, hide, path)
State = tuple[int, int, int, int, int, Path]


# What the scan of a state found among the operations that may come next: the least return of them;
# the first operation in call order that may not come yet; the values that one of them needs; does a
# failed cas wait for any value but the present one; value -> the write of it with the earliest
# deadline; the legal cas; the operation with the least return.
Scan = tuple[int, int, set[int], bool, dict[int, int], list[int], int]


_NONE: dict[int, list[tuple[int, int]]] = {}


class RegisterSearch:
    """The search over one key; `run` may be called again to go on with a new budget."""

    def __init__(self, completed: Sequence[Op], pending: Sequence[Op], initial: Any = None) -> None:
        self.ops = sorted(completed, key=attrgetter("invoke_ns"))
        self.count = len(self.ops)
        self.calls: list[int] = [op.invoke_ns for op in self.ops]
        self.calls.append(NEVER + 1)
        self.returns: list[int] = [op.return_ns for op in self.ops]  # type: ignore[misc]
        self.needs, self.puts, self.pending = encode(self.ops, pending, initial)
        self.observers: dict[int, list[int]] = {}
        self.writers: dict[int, list[int]] = {}
        # put -> need -> (call, number) of those that are alike but for their calls, in their order
        self.pending_by_put: dict[int, dict[int, list[tuple[int, int]]]] = {}
        self.pending_writes: set[int] = set()
        self.pending_swaps: set[int] = set()
        self.pending_sources: set[int] = set()
        for p, (call, need, put, _) in enumerate(self.pending):
            if need == ANY:
                self.pending_writes.add(put)
            else:
                self.pending_swaps.add(put)
                self.pending_sources.add(need)
            alike = self.pending_by_put.setdefault(put, {})
            if need in alike:
                insort(alike[need], (call, p))
            else:
                alike[need] = [(call, p)]
        self.memory: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        self.remembered = 0
        self.nodes = 0
        self.deepest = -1  # the furthest that any path got, in call order
        self.deepest_path: Path = None
        self.solution: Path = None
        self._stack: list[State] = [(0, 0, 0, 0, 0, None)]

    @property
    def exhausted_memory(self) -> bool:
        """The cap on memory was reached: another budget will not help."""
        return self.remembered > MAX_MEMORY

    def _index(self) -> None:
        """Who observes and who writes each value: only made when first asked for."""
        for j, (need, put) in enumerate(zip(self.needs, self.puts, strict=True)):
            if need >= 0:
                self.observers.setdefault(need, []).append(j)
            if put >= 0:
                self.writers.setdefault(put, []).append(j)

    def forget(self) -> None:
        """Free what only the search itself needed."""
        self.memory.clear()
        self._stack.clear()

    def run(self, budget: int) -> bool | None:
        """Search on. True, False, or None when `budget` nodes were visited without a verdict."""
        stack = self._stack
        last = self.nodes + budget
        while stack:
            if self.nodes >= last or self.remembered > MAX_MEMORY:
                return None
            if self._advance(stack.pop()):
                return True
        return False

    def _advance(self, state: State) -> bool:
        """Go on from a state while there is one choice only, then push the choices; True: done."""
        calls, returns, needs, puts = self.calls, self.returns, self.needs, self.puts
        some_pending = bool(self.pending)
        base, window, value, used, hide, path = state
        nodes = 0
        while nodes < LONGEST_TURN:
            nodes += 1
            deadline, earliest, other = NEVER, -1, False
            waited: set[int] = set()
            plain: dict[int, int] = {}
            swaps: list[int] = []
            j, rest = base, window
            while calls[j] <= deadline:
                if not rest & 1:
                    need, put = needs[j], puts[j]
                    if put < 0 and (need == value or (need < ANY and need != -2 - value)):
                        window |= 1 << j - base
                    else:
                        if returns[j] < deadline:
                            deadline, earliest = returns[j], j
                        if need >= 0:
                            waited.add(need)  # a legal cas, too: see 3
                            if need == value and put >= 0:
                                swaps.append(j)
                        elif need < ANY:
                            other = True
                        elif put not in plain or returns[j] < returns[plain[put]]:
                            plain[put] = j
                rest >>= 1
                j += 1
            if window & 1:
                base, window = shift(base, window)
            if base > self.deepest:
                self.deepest, self.deepest_path = base, path
                if base == self.count:
                    self.solution, self.nodes = path, self.nodes + nodes
                    return True
            if earliest < hide and not other and self._unseen(earliest, waited, j):
                window |= 1 << earliest - base
                path = (path, ~earliest)
                continue
            # Pending operations matter only for a waited value that no candidate write makes.
            simple = not swaps and earliest >= hide
            if simple and some_pending and (waited or other):
                unmade = waited - plain.keys()
                simple = not (other or waited & self.pending_swaps or unmade & self.pending_writes)
            one = swaps[0] if len(swaps) == 1 and not plain and not some_pending else -2
            if simple:
                one = -1
                for put, k in plain.items():
                    if k == earliest or put in waited or (other and put != value):
                        one = k if one == -1 else -2
            if one >= 0:
                window |= 1 << one - base
                hide = j if needs[one] == ANY else hide
                value, path = puts[one], (path, one)
                continue
            if one == -1:
                break
            scan = (deadline, j, waited, other, plain, swaps, earliest)
            after = self._branch((base, window, value, used, hide, path), scan)
            if after is None:
                break
            base, window, value, used, hide, path = after
        else:
            self._stack.append((base, window, value, used, hide, path))
        self.nodes += nodes
        return False

    def _unseen(self, write: int, waited: set[int], beyond: int) -> bool:
        """Nobody can observe a plain write that has to come before `beyond` is called.

        Between it and the first observer of its value another operation must find another value.
        So of all orders with this write some have it hidden.
        """
        value = self.puts[write]
        if self.needs[write] != ANY or value in waited or value in self.pending_sources:
            return False
        calls, returns, needs = self.calls, self.returns, self.needs
        between = NEVER
        for j in range(beyond, min(beyond + MAX_LOOK_AHEAD, self.count)):
            if calls[j] > between:
                return True
            need = needs[j]
            if need == value or (need < ANY and need != -2 - value):
                return False
            if need >= 0 and returns[j] < between:
                between = returns[j]
        return beyond + MAX_LOOK_AHEAD >= self.count

    def _branch(self, state: State, scan: Scan) -> State | None:
        """The state to go on with; the others go on the stack. None: all was tried before."""
        found = self._children(state, scan)
        if not found:
            return None
        if len(found) > 1:
            base, window, value, used, hide, _ = state
            # A state that used fewer pending operations and may hide more can do all of this.
            seen = self.memory.setdefault((base, window, value), [])
            for more, reach in seen:
                if more & used == more and reach >= hide:
                    return None
            seen.append((used, hide))
            self.remembered += 1
        after = found.pop()
        self._stack += found
        return after

    def _children(self, state: State, scan: Scan) -> list[State]:
        """The states to try, the most promising last."""
        base, window, value, used, hide, path = state
        _, beyond, waited, other, plain, swaps, earliest = scan
        needs, puts = self.needs, self.puts
        found: list[State] = []
        chosen = swaps if len(swaps) < 2 else _distinct(swaps, puts, self.returns)
        may_go = value in plain or self._may_overwrite(base, window, value, beyond, swaps)
        wanted = waited
        if self.pending and (waited or other):
            found, wanted = self._pending(state, scan, may_go)
        if may_go and plain:
            urgent = puts[earliest] if needs[earliest] == ANY else -1
            chosen = chosen + [
                j
                for put, j in plain.items()
                if put == urgent or put in wanted or (other and put != value)
            ]
        if len(chosen) > 1:
            chosen.sort(key=self.returns.__getitem__, reverse=True)
        for j in chosen:
            bits = window | 1 << j - base
            at, bits = shift(base, bits) if bits & 1 else (base, bits)
            reach = beyond if needs[j] == ANY else hide
            found.append((at, bits, puts[j], used, reach, (path, j)))
        if earliest < hide and needs[earliest] == ANY:
            at, bits = shift(base, window | 1 << earliest - base)
            found.append((at, bits, value, used, hide, (path, ~earliest)))
        return found

    def _may_overwrite(
        self, base: int, window: int, value: int, beyond: int, swaps: list[int]
    ) -> bool:
        """No observer of the current value still to come would be left without a write of it."""
        if value in self.pending_by_put:
            return True
        if not self.observers and not self.writers:
            self._index()
        observers = self.observers.get(value)
        if not observers or (observers[-1] < beyond and not swaps):
            return True
        # Operations from `beyond` on are all untaken; before it, only a legal cas observes.
        limit = NEVER
        if observers[-1] >= beyond:
            limit = self.returns[observers[bisect_left(observers, beyond)]]
        for j in swaps:
            limit = min(limit, self.returns[j])
        writers = self.writers.get(value, [])
        for j in writers[bisect_left(writers, base) :]:
            if j >= beyond:
                return self.calls[j] <= limit
            if not window >> j - base & 1:
                return True
        return False

    def _pending(self, state: State, scan: Scan, may_go: bool) -> tuple[list[State], set[int]]:
        """Pending operations whose value is waited for, and all values waited for because of them.

        A pending cas whose value is wanted wants its own source in turn.
        """
        base, window, value, used, hide, path = state
        deadline, beyond, waited, other, plain, _, _ = scan
        wanted = set(waited)
        if other:
            wanted |= self.pending_by_put.keys() - {value}
        found: list[State] = []
        queue = list(wanted)
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
                if need >= 0 and need not in wanted:
                    wanted.add(need)
                    queue.append(need)
                if need == value or (need == ANY and may_go and put not in plain):
                    reach = beyond if need == ANY else hide
                    after = (path, self.count + p)
                    found.append((base, window, put, used | 1 << p, reach, after))
        return found, wanted


def _distinct(swaps: list[int], puts: Sequence[int], returns: Sequence[int]) -> list[int]:
    """Of legal cas with one target only the one with the earliest deadline."""
    best: dict[int, int] = {}
    for j in swaps:
        put = puts[j]
        if put not in best or returns[j] < returns[best[put]]:
            best[put] = j
    return list(best.values())


def shift(base: int, window: int) -> tuple[int, int]:
    """Move taken operations at the front of the window into the prefix."""
    if window & 1:
        taken = ((window + 1) & ~window).bit_length() - 1
        return base + taken, window >> taken
    return base, window


def order(search: RegisterSearch, path: Path) -> list[Op]:
    """The operations of a path in their order, with the reads and hidden writes put in.

    The path holds the choices only; the reads between them follow from the values.
    """
    choices: list[int] = []
    while path is not None:
        path, what = path
        choices.append(what)
    choices.reverse()
    taken: set[int] = set()
    result: list[Op] = []
    value, first, last_plain = 0, 0, 0

    def settle() -> None:
        """Take the reads that are legal now, as the search did."""
        nonlocal first
        while first in taken:
            first += 1
        j, deadline = first, NEVER
        while search.calls[j] <= deadline:
            if j not in taken:
                need, put = search.needs[j], search.puts[j]
                if put < 0 and (need == value or (need < ANY and need != -2 - value)):
                    taken.add(j)
                    result.append(search.ops[j])
                else:
                    deadline = min(deadline, search.returns[j])
            j += 1

    for what in choices:
        settle()
        if what < 0:
            taken.add(~what)
            result.insert(last_plain, search.ops[~what])
            last_plain += 1
            continue
        if what < search.count:
            taken.add(what)
            need, value, op = search.needs[what], search.puts[what], search.ops[what]
        else:
            _, need, value, op = search.pending[what - search.count]
        if need == ANY:
            last_plain = len(result)
        result.append(op)
    settle()
    return result
