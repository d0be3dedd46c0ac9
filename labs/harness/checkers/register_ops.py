"""The operations of one key as a search needs them: coded, and in the order of their calls."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from labs.harness.checkers.register_codes import ANY, encode
from labs.harness.checkers.zones import NEVER
from labs.harness.history import Op

MAX_LOOK_AHEAD = 64
"""Operations to come that are looked at for an observer of a write, before it is tried in vain."""


class RegisterOps:
    """Calls, returns, needs and puts by number; and what a look at the operations to come tells."""

    def __init__(self, completed: Sequence[Op], pending: Sequence[Op], initial: Any = None) -> None:
        self.ops = sorted(completed, key=attrgetter("invoke_ns"))
        self.count = len(self.ops)
        self.calls: list[int] = [op.invoke_ns for op in self.ops]
        self.calls.append(NEVER + 1)
        self.returns: list[int] = [op.return_ns for op in self.ops]  # type: ignore[misc]
        self.needs, self.reads, self.puts, self.pending = encode(self.ops, pending, initial)
        # put -> need -> (call, number) of those that are alike but for their calls, in their order
        self.pending_by_put: dict[int, dict[int, list[tuple[int, int]]]] = {}
        self.pending_sources = {need for _, need, _, _ in self.pending if need != ANY}
        for p, (call, need, put, _) in enumerate(self.pending):
            alike = self.pending_by_put.setdefault(put, {})
            if need in alike:
                insort(alike[need], (call, p))
            else:
                alike[need] = [(call, p)]

    def unseen(self, write: int, waited: set[int], beyond: int) -> bool:
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

    def may_overwrite(
        self, called: int, waiting: list[int], value: int, swaps: dict[int, int]
    ) -> bool:
        """No observer of the current value still to come would be left without a write of it."""
        calls, returns, needs, puts = self.calls, self.returns, self.needs, self.puts
        if value in self.pending_by_put or any(puts[j] == value for j in waiting):
            return True
        # Of the operations called before, only a legal cas observes this value.
        limit = min((returns[j] for j in swaps.values()), default=NEVER)
        for j in range(called, min(called + MAX_LOOK_AHEAD, self.count)):
            if calls[j] > limit:
                return False
            if puts[j] == value:
                return True
            if needs[j] == value and returns[j] < limit:
                limit = returns[j]
        return limit == NEVER or called + MAX_LOOK_AHEAD < self.count
