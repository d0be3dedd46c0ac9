"""Version vectors detect every conflict, and nothing else, between writes at several replicas."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.protocols.clocks import Version, context_of, reconcile, update

REPLICAS = ("a", "b", "c")
# (write, where, had it read there?) or (meet, who takes, from whom)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(REPLICAS), st.booleans()),
        st.tuples(st.just("meet"), st.sampled_from(REPLICAS), st.sampled_from(REPLICAS)),
    ),
    max_size=20,
)


@given(STEPS)
def test_siblings_are_what_nobody_has_overwritten(steps: list[tuple[str, str, object]]) -> None:
    """Against sets of writes, which need no vectors: each write knows all that its client had
    read, directly or not; a replica holds what it was told of and no other such write knows."""
    held: dict[str, list[Version]] = {replica: [] for replica in REPLICAS}
    told: dict[str, set[int]] = {replica: set() for replica in REPLICAS}
    knows: dict[int, set[int]] = {}
    for number, (what, replica, other) in enumerate(steps):
        if what == "write":
            read = held[replica] if other else []  # or blindly
            knows[number] = {each.value for each in read}.union(
                *(knows[each.value] for each in read)
            )
            held[replica] = update(replica, held[replica], context_of(read), number)
            told[replica].add(number)
        else:
            assert isinstance(other, str)
            held[replica] = reconcile(held[replica], held[other])
            told[replica] |= told[other]
        for each, siblings in held.items():
            overwritten = set().union(*(knows[write] for write in told[each]))
            assert {version.value for version in siblings} == told[each] - overwritten


@given(STEPS)
def test_the_order_in_which_replicas_meet_makes_no_difference(
    steps: list[tuple[str, str, object]],
) -> None:
    """Reconciling is commutative, associative and idempotent."""
    held: dict[str, list[Version]] = {replica: [] for replica in REPLICAS}
    for number, (_, replica, read) in enumerate(steps):
        context = context_of(held[replica]) if read is True else {}
        held[replica] = update(replica, held[replica], context, number)
    a, b, c = held.values()

    def values(*replicas: list[Version]) -> set[int]:
        return {version.value for version in reconcile(*replicas)}

    assert values(a, b, c) == values(c, b, a) == values(reconcile(a, b), c)
    assert values(a, a) == values(a)


def test_two_clients_that_had_read_the_same_both_keep_their_write() -> None:
    """At one replica, where a plain version vector takes the first for overwritten; also once
    another replica has heard of both."""
    first = update("a", [], {}, "milk")
    read = context_of(first)
    second = update("a", first, read, "milk, bread")
    both = update("a", second, read, "milk, eggs")

    assert [version.value for version in second] == ["milk, bread"]
    assert {version.value for version in reconcile(both, second)} == {"milk, bread", "milk, eggs"}
    assert [each.value for each in update("b", both, context_of(both), "all")] == ["all"]
