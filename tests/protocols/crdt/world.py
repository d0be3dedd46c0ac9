"""Replicas of one data type: updates, states sent and delivered in any order, twice or never.

Beside each state stands what it should be: the set of updates that are *visible* in it. What a type
must answer is told by that set alone (specification §3), and knows nothing of dots or vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import strategies as st

from services.protocols.crdt import (
    GCounter,
    IdempotentCounter,
    LWWRegister,
    MVRegister,
    ORSet,
    PNCounter,
    Sequence,
)

NODES = ("a", "b", "c")
Step = tuple[int, int, int, int]  # kind, replica, and two numbers for whatever the kind needs
STEPS = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, len(NODES) - 1), st.integers(0, 9), st.integers(0, 9)
    ),
    max_size=30,
)


class Update(NamedTuple):
    """One update that was made: what, and which others were visible to it."""

    what: tuple[Any, ...]
    saw: frozenset[int]


Updates = dict[int, Update]


@dataclass(frozen=True)
class Kind:
    """A data type under test.

    `update(state, node, first, second, number)` gives the new state and what was done;
    `observe(state)` is to equal `expected(the visible updates by their numbers)`.
    """

    initial: Any
    update: Callable[[Any, str, int, int, int], tuple[Any, tuple[Any, ...]]]
    observe: Callable[[Any], Any]
    expected: Callable[[Updates], Any]


class Seen(NamedTuple):
    """A state, and the updates that are visible in it."""

    state: Any
    updates: frozenset[int]


@dataclass
class World:
    """Runs steps on replicas; every state that there ever was is in `states`."""

    kind: Kind
    replicas: list[Seen] = field(default_factory=list)
    sent: list[Seen] = field(default_factory=list)
    states: list[Seen] = field(default_factory=list)
    updates: Updates = field(default_factory=dict)

    def run(self, steps: Iterable[Step]) -> World:
        self.replicas = [Seen(self.kind.initial, frozenset())] * len(NODES)
        self.states = [self.replicas[0]]
        for kind, replica, first, second in steps:
            mine = self.replicas[replica]
            if kind <= 2:
                self.update(replica, mine, first, second)
            elif kind == 3:
                self.sent.append(mine)
            elif self.sent:
                self.replicas[replica] = merged(
                    mine, self.sent[(first * 10 + second) % len(self.sent)]
                )
            self.states.append(self.replicas[replica])
            self.check(self.replicas[replica])
        return self

    def update(self, replica: int, mine: Seen, first: int, second: int) -> None:
        number = len(self.updates)
        state, what = self.kind.update(mine.state, NODES[replica], first, second, number)
        assert mine.state.merge(state) == state, "an update only moves up"
        self.updates[number] = Update(what, mine.updates)
        self.replicas[replica] = Seen(state, mine.updates | {number})

    def check(self, seen: Seen) -> None:
        """What the state says is what its visible updates say."""
        visible = {number: self.updates[number] for number in seen.updates}
        observed, expected = self.kind.observe(seen.state), self.kind.expected(visible)
        assert observed == expected, f"{observed} is not {expected}, of {visible}"


def merged(one: Seen, other: Seen) -> Seen:
    return Seen(one.state.merge(other.state), one.updates | other.updates)


def unseen(updates: Updates, by: Callable[[Update], bool]) -> list[Update]:
    """The updates that no other one, of those that `by` names, has seen."""
    return [
        update
        for number, update in updates.items()
        if not any(number in other.saw for other in updates.values() if by(other))
    ]


# ---------------------------------------------------------------------- the types


def count_up(state: GCounter, node: str, first: int, _: int, __: int) -> Any:
    return state.increment(node, first), (first,)


def count(state: PNCounter, node: str, first: int, second: int, _: int) -> Any:
    return state.add(node, first - second), (first - second,)


def total(updates: Updates) -> int:
    return sum(update.what[0] for update in updates.values())


def count_once(state: IdempotentCounter, node: str, first: int, second: int, _: int) -> Any:
    """Ten names, each with an amount of its own; and a tenth of the additions without one."""
    name, by = (None, first) if second == 0 else (f"name {first}", first - 4)
    return state.add(node, by, name), (name, by)


def total_of_names(updates: Updates) -> int:
    unnamed = [int(update.what[1]) for update in updates.values() if update.what[0] is None]
    named = {update.what for update in updates.values() if update.what[0] is not None}
    return sum(unnamed) + sum(int(by) for _, by in named)


def insert_once(state: Sequence, node: str, first: int, second: int, _: int) -> Any:
    order = state.order()
    left = order[second % len(order)] if order and second else None
    return state.insert_after(node, left, first, f"name {first}"), (first,)


def assign_lww(state: LWWRegister, node: str, first: int, _: int, number: int) -> Any:
    # `first` is a clock that runs as it likes; a node never uses the same time twice.
    time = first + number / 1_000
    return state.assign(node, number, time), (time, node, number)


def last(updates: Updates) -> Any:
    return max((update.what for update in updates.values()), default=(0, "", None))[2]


def assign_mv(state: MVRegister, node: str, first: int, _: int, __: int) -> Any:
    return state.assign(node, first), (first,)


def siblings(updates: Updates) -> list[Any]:
    return sorted(update.what[0] for update in unseen(updates, lambda _: True))


def change_set(state: ORSet, node: str, first: int, second: int, _: int) -> Any:
    element = first % 3
    if second < 6:
        return state.add(node, element), ("add", element)
    return state.remove(element), ("remove", element)


def members(updates: Updates) -> frozenset[Any]:
    """In the set: added, and no remove has seen that add."""
    found = set()
    for element in range(3):
        mine = {n: each for n, each in updates.items() if each.what[1] == element}
        kept = unseen(mine, lambda update: update.what[0] == "remove")
        if any(update.what[0] == "add" for update in kept):
            found.add(element)
    return frozenset(found)


def edit(state: Sequence, node: str, first: int, second: int, number: int) -> Any:
    before = state.value
    if second < 7 or not before:
        index = first % (len(before) + 1)
        after = state.insert(node, index, number)
        assert after.value == [*before[:index], number, *before[index:]], "as its author saw it"
        return after, ("insert", number)
    index = first % len(before)
    after = state.delete(index)
    assert after.value == [*before[:index], *before[index + 1 :]], "as its author saw it"
    return after, ("delete", before[index])


def letters(updates: Updates) -> list[Any]:
    inserted = {each.what[1] for each in updates.values() if each.what[0] == "insert"}
    return sorted(inserted - {u.what[1] for u in updates.values() if u.what[0] == "delete"})


KINDS: dict[str, Kind] = {
    "G-counter": Kind(GCounter(), count_up, lambda state: state.value, total),
    "PN-counter": Kind(PNCounter(), count, lambda state: state.value, total),
    "idempotent counter": Kind(
        IdempotentCounter(), count_once, lambda state: state.value, total_of_names
    ),
    "sequence of names": Kind(
        Sequence(),
        insert_once,
        lambda state: sorted(state.value),
        lambda updates: sorted({update.what[0] for update in updates.values()}),
    ),
    "LWW register": Kind(LWWRegister(), assign_lww, lambda state: state.value, last),
    "MV register": Kind(MVRegister(), assign_mv, lambda state: sorted(state.values), siblings),
    "OR-set": Kind(ORSet(), change_set, lambda state: state.value, members),
    "sequence": Kind(Sequence(), edit, lambda state: sorted(state.value), letters),
}
