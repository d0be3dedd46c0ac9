"""Logical clocks keep what their papers promise, in every execution that hypothesis thinks of."""

from __future__ import annotations

import doctest
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocols.clocks import (
    ClockTooFarAhead,
    HybridClock,
    LamportClock,
    Order,
    Timestamp,
    VectorClock,
    compare,
    hybrid,
    lamport,
    merge,
    vector,
)
from tests.protocols.clocks.executions import PROCESSES, Happening, executions, happened_before

VECTORS = st.dictionaries(st.sampled_from(PROCESSES), st.integers(0, 3))


def lamports(execution: list[Happening]) -> list[int]:
    clocks = {process: LamportClock() for process in PROCESSES}
    dated: list[int] = []
    for event in execution:
        clock = clocks[event.process]
        dated.append(
            clock.tick() if event.receives is None else clock.receive(dated[event.receives])
        )
    return dated


def vectors(execution: list[Happening]) -> list[dict[str, int]]:
    clocks = {process: VectorClock(process) for process in PROCESSES}
    dated: list[dict[str, int]] = []
    for event in execution:
        clock = clocks[event.process]
        dated.append(
            clock.tick() if event.receives is None else clock.receive(dated[event.receives])
        )
    return dated


def hybrids(execution: list[Happening]) -> list[Timestamp]:
    clocks = {process: HybridClock() for process in PROCESSES}
    dated: list[Timestamp] = []
    for event in execution:
        clock = clocks[event.process]
        if event.receives is None:
            dated.append(clock.tick(event.wall))
        else:
            dated.append(clock.receive(event.wall, dated[event.receives]))
    return dated


@given(executions())
def test_lamports_clock_condition(execution: list[Happening]) -> None:
    """Lamport 1978: "for any events a, b: if a → b then C(a) < C(b)"."""
    dated = lamports(execution)
    for effect, causes in enumerate(happened_before(execution)):
        assert all(dated[cause] < dated[effect] for cause in causes)


@given(executions())
def test_lamports_total_order(execution: list[Happening]) -> None:
    """Ties broken by the process's name: no two events are alike."""
    dated = [
        (time, event.process) for time, event in zip(lamports(execution), execution, strict=True)
    ]

    assert len(set(dated)) == len(dated)


@given(executions())
def test_vectors_tell_cause_from_concurrency(execution: list[Happening]) -> None:
    """Mattern 1989, theorem 10: e → f if and only if V(e) < V(f); concurrent otherwise."""
    dated, before = vectors(execution), happened_before(execution)
    for a, b in combinations(range(len(execution)), 2):
        expected = Order.BEFORE if a in before[b] else Order.CONCURRENT
        assert compare(dated[a], dated[b]) is expected
        assert (compare(dated[b], dated[a]) is Order.AFTER) == (expected is Order.BEFORE)


@given(executions())
def test_hybrid_clocks_order_cause_before_effect(execution: list[Happening]) -> None:
    """Kulkarni et al. 2014, theorem 1: e hb f implies (l.e, c.e) < (l.f, c.f); whatever the wall
    clocks say, and packed into one number as well."""
    dated = hybrids(execution)
    for effect, causes in enumerate(happened_before(execution)):
        for cause in causes:
            assert dated[cause] < dated[effect]
            assert dated[cause].packed() < dated[effect].packed()
    assert [Timestamp.unpacked(each.packed()) for each in dated] == dated


@given(executions())
def test_hybrid_clocks_stay_near_wall_time(execution: list[Happening]) -> None:
    """Theorem 2 and its corollary: pt.e ≤ l.e, and l.e is the wall time of some event that happened
    before e, or of e: so it is ahead of e's by no more than clocks are apart. Corollary 2: c counts
    events that share that wall time."""
    for number, (dated, causes) in enumerate(
        zip(hybrids(execution), happened_before(execution), strict=True)
    ):
        known = [execution[each].wall for each in (*causes, number)]
        assert dated.l == max(known)
        assert dated.l >= execution[number].wall
        assert dated.c <= len(causes)


@given(VECTORS, VECTORS, VECTORS)
def test_merging_is_a_join(a: dict[str, int], b: dict[str, int], c: dict[str, int]) -> None:
    """Commutative, associative, idempotent, and the least of all that are at least both."""
    order = {Order.BEFORE, Order.EQUAL}
    assert compare(merge(a, b), merge(b, a)) is Order.EQUAL
    assert compare(merge(a, merge(b, c)), merge(merge(a, b), c)) is Order.EQUAL
    assert compare(merge(a, a), a) is Order.EQUAL
    assert compare(a, merge(a, b)) in order
    if compare(a, c) in order and compare(b, c) in order:
        assert compare(merge(a, b), c) in order


@given(VECTORS, VECTORS, VECTORS)
def test_comparing_is_a_partial_order(
    a: dict[str, int], b: dict[str, int], c: dict[str, int]
) -> None:
    """Reflexive, antisymmetric, transitive; an absent process is one at 0."""
    assert compare(a, {**a, "d": 0}) is Order.EQUAL
    opposite = {Order.BEFORE: Order.AFTER, Order.AFTER: Order.BEFORE}
    forth, back = compare(a, b), compare(b, a)
    assert back is opposite.get(forth, forth)
    if compare(a, b) is Order.BEFORE and compare(b, c) in (Order.BEFORE, Order.EQUAL):
        assert compare(a, c) is Order.BEFORE


def test_every_pair_of_small_vectors() -> None:
    """`compare` by its definition, exhaustively."""
    small = [dict(zip("ab", counts, strict=True)) for counts in product(range(3), repeat=2)]
    for a, b in product(small, repeat=2):
        at_most = all(a[process] <= b[process] for process in "ab")
        at_least = all(a[process] >= b[process] for process in "ab")
        expected = {
            (True, True): Order.EQUAL,
            (True, False): Order.BEFORE,
            (False, True): Order.AFTER,
            (False, False): Order.CONCURRENT,
        }[at_most, at_least]
        assert compare(a, b) is expected


def test_a_clock_that_is_far_ahead_is_refused() -> None:
    """Else one node with a date of next year would date everybody's events there."""
    clock = HybridClock(max_ahead=500)
    clock.tick(1_000)
    with pytest.raises(ClockTooFarAhead, match="501 ahead"):
        clock.receive(1_000, Timestamp(1_501, 0))

    assert clock.receive(1_000, Timestamp(1_500, 0)) == (1_500, 1)


@pytest.mark.parametrize("module", [hybrid, lamport, vector])
def test_examples(module: object) -> None:
    """The docstrings' examples."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
