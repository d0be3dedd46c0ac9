"""The laws of every type, by hypothesis; and that they catch a type that breaks them.

CRDT_CASES=10000 takes longer.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.protocols.clocks import vector
from services.protocols.crdt import Dot, Dots, GCounter, IdempotentCounter, LWWRegister, Sequence
from services.protocols.crdt.sequence import Element, Identifier
from tests.protocols.crdt.world import KINDS, STEPS, Kind, Seen, Step, World, merged

CASES = int(os.environ.get("CRDT_CASES", "200"))
LAWS = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def hold(kind: Kind, steps: list[Step], draw: Any) -> World:
    """One world of `kind`, and the laws on states that were reached in it."""
    world = World(kind).run(steps)
    index = st.integers(0, len(world.states) - 1)
    a, b, c = (world.states[draw(index)].state for _ in range(3))

    assert a.merge(a) == a, "idempotent"
    assert a.merge(b) == b.merge(a), "commutative"
    assert a.merge(b).merge(c) == a.merge(b.merge(c)), "associative"
    assert a.merge(a.merge(b)) == a.merge(b), "a merge only moves up"
    # Everything that was ever sent, late, twice and in any order, and then each other's state.
    ends = [deliver(world, mine, draw) for mine in world.replicas]
    for end in ends[1:]:
        assert end == ends[0], "convergence"
    world.check(ends[0])
    return world


def deliver(world: World, mine: Seen, draw: Any) -> Seen:
    """`mine`, after all states that are about have arrived in an order of their own."""
    rest = [*world.sent[-5:], *world.sent[:3], *world.replicas]
    for at in draw(st.permutations(range(len(rest)))):
        mine = merged(mine, rest[at])
    return mine


@pytest.mark.parametrize("name", KINDS)
@LAWS
@given(steps=STEPS, data=st.data())
def test_the_laws(name: str, steps: list[Step], data: st.DataObject) -> None:
    """Study §2.2: merge is commutative, associative and idempotent, updates are inflations; hence
    replicas converge under any delivery. And each answers what its specification says."""
    hold(KINDS[name], steps, data.draw)


@LAWS
@given(steps=STEPS, data=st.data())
def test_a_sequence_has_one_order(steps: list[Step], data: st.DataObject) -> None:
    """What anybody has ever seen is a part of one order of all elements, deleted ones included."""
    world = hold(KINDS["sequence"], steps, data.draw)
    whole = Sequence()
    for seen in world.states:
        whole = whole.merge(seen.state)
    places = {value: at for at, value in enumerate(Sequence(whole.elements).value)}
    for seen in world.states:
        shown = [places[value] for value in seen.state.value]
        assert shown == sorted(shown)


# ---------------------------------------------------------------------- types that break them


def add_up(self: GCounter, other: GCounter) -> GCounter:
    """Twice delivered is twice counted."""
    both = {**self.counts, **other.counts}
    return GCounter({n: self.counts.get(n, 0) + other.counts.get(n, 0) for n in both})


def last_to_arrive(self: LWWRegister, other: LWWRegister) -> LWWRegister:
    """Last writer wins, by arrival."""
    return self if other.stamp is None else other


def no_tie_break(self: LWWRegister, other: LWWRegister) -> LWWRegister:
    """Times alone, to the second: equal ones leave it to the order of arrival."""
    if other.stamp is None or (self.stamp and int(other.stamp.time) <= int(self.stamp.time)):
        return self
    return other


def no_context(self: Dots, other: Dots) -> Dots:
    """What was replaced or removed comes back."""
    return Dots({**self.values, **other.values}, vector.merge(self.context, other.context))


def removes_unseen(self: Dots, other: Dots) -> Dots:
    """Only what both have stays: a remove takes adds that it never saw."""
    both = {dot: value for dot, value in self.values.items() if dot in other.values}
    return Dots(both, vector.merge(self.context, other.context))


def context_forgets(self: Dots, node: str, value: Any, replaced: Any) -> Dots:
    """A new dot each time the values are empty: an old number is given out again."""
    number = max((dot.number for dot in self.values if dot.node == node), default=0) + 1
    kept = self.drop(replaced)
    context = {**self.context, node: max(number, self.context.get(node, 0))}
    return Dots({**kept.values, Dot(node, number): value}, context)


def own_clock(self: Sequence, node: str, index: int, value: Any) -> Sequence:
    """Identifiers count the node's own inserts alone: an insert behind a newer one goes astray."""
    order = self.order()
    own = Identifier(sum(each.node == node for each in self.elements) + 1, node)
    left = order[index - 1] if index else None
    return Sequence({**self.elements, own: Element(left, value)}, self.deleted)


def forgets_tombstones(self: Sequence, other: Sequence) -> Sequence:
    """A deletion that one side has not heard of is undone."""
    return Sequence({**self.elements, **other.elements}, self.deleted & other.deleted)


def names_by_node(self: IdempotentCounter, node: str, by: int, name: Any = None) -> Any:
    """Each node remembers what it was asked itself: repeated at another, it counts twice."""
    own = f"{node} {name}"
    unnamed = self.unnamed if name and own in self.named else self.unnamed.add(node, by)
    return IdempotentCounter(unnamed, {**self.named, own: 0} if name else self.named)


def both_elements_stay(self: Sequence, other: Sequence) -> Sequence:
    """Of one name the later stays known, and of its two elements both stay."""
    elements = {**self.elements, **other.elements}
    named = {
        name: max(each.named[name] for each in (self, other) if name in each.named)
        for name in {*self.named, *other.named}
    }
    return Sequence(elements, self.deleted | other.deleted, named)


BROKEN: dict[str, tuple[str, type, str, Any]] = {
    "merge by adding": ("G-counter", GCounter, "merge", add_up),
    "merge of halves by adding": ("PN-counter", GCounter, "merge", add_up),
    "names kept by each node": ("idempotent counter", IdempotentCounter, "add", names_by_node),
    "both elements of a name": ("sequence of names", Sequence, "merge", both_elements_stay),
    "last to arrive": ("LWW register", LWWRegister, "merge", last_to_arrive),
    "no tie-break": ("LWW register", LWWRegister, "merge", no_tie_break),
    "register without a context": ("MV register", Dots, "merge", no_context),
    "set without a context": ("OR-set", Dots, "merge", no_context),
    "remove wins over the unseen": ("OR-set", Dots, "merge", removes_unseen),
    "a dot given out twice": ("OR-set", Dots, "put", context_forgets),
    "identifiers by the own clock": ("sequence", Sequence, "insert", own_clock),
    "tombstones forgotten": ("sequence", Sequence, "merge", forgets_tombstones),
}


@pytest.mark.parametrize("bug", BROKEN)
def test_a_broken_type_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The laws can fail: each bug is found within a thousand cases."""
    name, broken, method, instead = BROKEN[bug]
    monkeypatch.setattr(broken, method, instead)

    @settings(LAWS, max_examples=1_000, derandomize=True, phases=[Phase.generate])
    @given(steps=STEPS, data=st.data())
    def laws(steps: list[Step], data: st.DataObject) -> None:
        hold(KINDS[name], steps, data.draw)

    with pytest.raises(AssertionError) as found:
        laws()
    print(f"{bug}: {str(found.value).splitlines()[0]}")
