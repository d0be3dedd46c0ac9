"""Dotted version vectors: the laws of merging, and Dynamo's example of a conflict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.protocols.quorum.versions import Siblings, latest, merge, put

Step = tuple[int, str, bool, int]  # replica, coordinator's name, has the client read, stamp


@st.composite
def replicas(draw: st.DrawFn) -> list[Siblings]:
    """Three replicas of a key after some writes, each at one of them, and some merges."""
    states = {name: Siblings() for name in ("n1", "n2", "n3")}
    for number in range(draw(st.integers(0, 8))):
        name = draw(st.sampled_from(sorted(states)))
        other = draw(st.sampled_from(sorted(states)))
        if draw(st.booleans()):
            states[name] = merge(states[name], states[other])
            continue
        context = states[other].context if draw(st.booleans()) else {}
        stamp = draw(st.integers(0, 3))
        states[name] = put(states[name], name, b"%d" % number, stamp, context)
    return list(states.values())


@given(replicas())
def test_merging_is_a_join(states: list[Siblings]) -> None:
    """Commutative, associative, idempotent: in whatever order replicas hear of each other, and
    however often, they end with the same."""
    a, b, c = states
    for join in (merge, latest):
        assert join(a, b) == join(b, a)
        assert join(join(a, b), c) == join(a, join(b, c))
        assert join(a, join(a, b)) == join(a, b)


@given(replicas())
def test_a_merge_forgets_only_what_the_other_had_replaced(states: list[Siblings]) -> None:
    """A version is gone only if the side that lacks it knows of it."""
    a, b, _ = states
    merged = [version.dot for version in merge(a, b).versions]
    for here, there in ((a, b), (b, a)):
        for version in here.versions:
            assert version.dot in merged or version.covered_by(there.context)


def test_a_write_replaces_what_its_client_has_read() -> None:
    """Dynamo §4.4: one that has read D1 writes D2 in its place."""
    first = put(Siblings(), "sx", b"D1", 1, {})
    second = put(first, "sx", b"D2", 2, first.context)
    assert [version.value for version in second.versions] == [b"D2"]
    assert second.context == {"sx": 2}


def test_the_paper_s_figure_3() -> None:
    """Dynamo figure 3: D3 by Sy and D4 by Sz, both after D2, are in conflict; who has read both
    reconciles them into D5 by Sx."""
    d2 = put(put(Siblings(), "sx", b"D1", 1, {}), "sx", b"D2", 2, {"sx": 1})
    d3 = put(d2, "sy", b"D3", 3, d2.context)
    d4 = put(d2, "sz", b"D4", 3, d2.context)
    both = merge(d3, d4)
    assert [version.value for version in both.versions] == [b"D3", b"D4"]
    assert both.context == {"sx": 2, "sy": 1, "sz": 1}
    d5 = put(both, "sx", b"D5", 4, both.context)
    assert [version.value for version in d5.versions] == [b"D5"]
    assert merge(d5, d3) == merge(d5, d4) == d5


def test_two_blind_writes_at_one_node_are_siblings() -> None:
    """What plain version vectors get wrong: the second would seem to have seen the first."""
    state = put(put(Siblings(), "n1", b"a", 1, {}), "n1", b"b", 2, {})
    assert [version.value for version in state.versions] == [b"a", b"b"]


def test_last_write_wins_by_the_clock_and_not_by_what_was_seen() -> None:
    """A client reads b"new", writes b"newer" at a node whose clock is behind, and is told "ok":
    nobody will ever read it."""
    first = put(Siblings(), "n1", b"new", 100, {})
    second = put(first, "n2", b"newer", 50, first.context)
    assert [version.value for version in latest(first, second).versions] == [b"new"]
