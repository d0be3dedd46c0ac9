"""The acceptor: *Paxos Made Moderately Complex* (PMMC) §2, invariants A1 to A5."""

from __future__ import annotations

import pytest

from services.protocols.paxos.messages import (
    Accepted,
    Decided,
    Learned,
    P0a,
    P0b,
    P1a,
    P1b,
    P2b,
    Promised,
    PValue,
)
from tests.protocols.paxos.helpers import ELECTION, after, ballot, node, of, p2a, tick, value


def test_a_promise_tells_all_that_was_accepted() -> None:
    """PMMC §2: upon p1a with a higher ballot the acceptor adopts it, and returns p1b with its
    ballot and all the pvalues that it has accepted."""
    core, first = node(), ballot(1, 2)
    after(core, p2a(2, 1, value(1, first), value(3, first)))
    tick(core, ELECTION)

    [p1b] = of(after(core, P1a("n3", "n1", ballot(2, 3))), P1b)

    assert p1b.ballot == ballot(2, 3)
    assert p1b.accepted == [PValue(first, value(1, first)), PValue(first, value(3, first))]


def test_a1_only_strictly_increasing_ballots() -> None:
    """A1: "an acceptor can only adopt strictly increasing ballot numbers"."""
    core = node()
    after(core, P1a("n3", "n1", ballot(2, 3)))

    [p1b] = of(after(core, P1a("n2", "n1", ballot(2, 2))), P1b)

    assert (p1b.ballot, p1b.accepted) == (ballot(2, 3), [])
    assert core.ballot == ballot(2, 3)


def test_a_refusal_that_can_be_taken_for_a_promise_tells_all_the_same() -> None:
    """Seed 30609: n1 has promised 3.n2; a late p1a of 2.n2 is refused with that ballot, which is
    n2's present one. Without the pvalues n2 would take slot 1 for free."""
    core, first = node(), ballot(1, 3)
    after(core, p2a(3, 1, value(1, first)))
    tick(core, ELECTION)
    after(core, P1a("n2", "n1", ballot(3, 2)))

    [p1b] = of(after(core, P1a("n2", "n1", ballot(2, 2))), P1b)

    assert (p1b.ballot, p1b.accepted) == (ballot(3, 2), [PValue(first, value(1, first))])


def test_a_refused_p2a_confirms_no_round() -> None:
    """The rounds of 2.n2 say nothing about those of 3.n2, whose answers confirm reads."""
    core = node()
    after(core, P1a("n2", "n1", ballot(3, 2)))
    late = p2a(2, 2)
    late.round = 50

    assert [(m.ballot, m.round) for m in of(after(core, late), P2b)] == [(ballot(3, 2), 0)]


def test_a2_accepts_only_in_the_ballot_it_has_adopted() -> None:
    """A2: "an acceptor α can only accept ⟨b, s, c⟩ if b = α.ballot_num"."""
    core = node()
    after(core, P1a("n3", "n1", ballot(2, 3)))

    ready = after(core, p2a(2, 1, value(1, ballot(1, 2))))

    assert [(m.ballot, m.slots) for m in of(ready, P2b)] == [(ballot(2, 3), [])]
    assert core.slots.accepted == {}
    assert ready.persist == []


def test_a_higher_ballot_of_a_p2a_is_adopted_with_it() -> None:
    """PMMC §2, the acceptor: on p2a with b ≥ ballot_num it adopts b and accepts."""
    core, later = node(), ballot(2, 3)
    after(core, p2a(2, 1, value(1, ballot(1, 2))))

    ready = after(core, p2a(3, 2, value(1, later)))

    assert ready.persist == [Promised(later), Accepted(later, [value(1, later)])]
    assert [(m.ballot, m.slots) for m in of(ready, P2b)] == [(later, [(1, 1)])]


def test_state_reduction() -> None:
    """PMMC §4: an acceptor keeps for each slot only the pvalue of the highest ballot."""
    core, later = node(), ballot(2, 3)
    after(core, p2a(2, 1, value(1, ballot(1, 2), b"old")))
    after(core, p2a(3, 2, value(1, later, b"new")))

    assert core.slots.pvalues() == [PValue(later, value(1, later, b"new"))]


def test_a_ballot_belongs_to_its_leader() -> None:
    """PMMC §2: a ballot is a pair (r, λ), so no other leader than λ may use it."""
    core = node()

    for foreign in (ballot(2, 3), 1, 0):
        assert not after(core, P1a("n2", "n1", foreign)).messages
    assert core.ballot == 0


def test_ballots_are_ordered_by_round_then_leader() -> None:
    """PMMC §2: ballot numbers are ordered lexicographically."""
    pairs = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (10, 1)]
    assert sorted(ballot(*pair) for pair in pairs) == [ballot(*pair) for pair in pairs]


def test_the_records_come_with_the_answer_and_survive() -> None:
    """PMS §2.2: "an acceptor must remember this information even if it fails and then restarts"."""
    core = node()
    promised = after(core, P1a("n2", "n1", ballot(1, 2)))
    accepted = after(core, p2a(2, 1, value(1, ballot(1, 2))))
    assert promised.persist
    assert accepted.persist
    assert of(promised, P1b)
    assert promised.early == accepted.early == 0

    again = node(records=[*promised.persist, *accepted.persist])

    assert again.ballot == ballot(1, 2)
    assert again.slots.pvalues() == core.slots.pvalues()


def test_any_prefix_of_the_records_is_a_state_that_could_have_been() -> None:
    """core.py: a torn write keeps a prefix."""
    core, first, later = node(), ballot(1, 2), ballot(2, 3)
    core.step(p2a(2, 1, value(1, first), value(2, first)))
    core.step(p2a(2, 1, value(3, first), decided=2))
    core.step(p2a(3, 2, value(3, later), value(4, later)))
    records = core.ready().persist
    assert len(records) >= 4

    for length in range(len(records) + 1):
        node(records=records[:length]).check_invariants()


@pytest.mark.parametrize(
    "records",
    [
        [Decided(1)],
        [Learned([value(2, 4)])],
        [Promised(ballot(2, 2)), Accepted(ballot(1, 2), [value(1, ballot(1, 2))])],
        ["nonsense"],
    ],
)
def test_records_that_cannot_be(records: list[object]) -> None:
    """Raises ValueError: the node stops rather than forget."""
    with pytest.raises(ValueError, match=r"slot 1|decision 2|accepted in|not a record"):
        node(records=records)


# ---- the rule that is added ---------------------------------------------------------------------


def test_who_hears_a_leader_promises_nobody_else() -> None:
    """acceptor.py: "while it hears a leader it neither promises another ballot nor says that it
    would"; after an election timeout without one it does."""
    core = node()
    after(core, p2a(2, 1))
    tick(core, ELECTION - 1)

    [p0b] = of(after(core, P0a("n3", "n1", ballot(2, 3))), P0b)
    assert (p0b.granted, p0b.ballot) == (False, ballot(1, 2))
    assert not after(core, P1a("n3", "n1", ballot(2, 3))).messages
    assert core.ballot == ballot(1, 2)

    tick(core, 1)
    [p0b] = of(after(core, P0a("n3", "n1", ballot(2, 3))), P0b)
    assert p0b.granted
    assert core.ballot == ballot(1, 2)  # which promises nothing
    assert of(after(core, P1a("n3", "n1", ballot(2, 3))), P1b)
    assert core.ballot == ballot(2, 3)


def test_a_restarted_acceptor_may_have_answered_a_heartbeat() -> None:
    """reads.py: a lease may stand on an answer that the restarted node does not remember."""
    core = node(records=[Promised(ballot(1, 2))])
    assert not after(core, P1a("n3", "n1", ballot(2, 3))).messages

    tick(core, ELECTION)
    assert of(after(core, P1a("n3", "n1", ballot(2, 3))), P1b)
