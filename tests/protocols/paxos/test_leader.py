"""Scouts, commanders and leaders: PMMC §2 and §3, PMS §3."""

from __future__ import annotations

import itertools

import pytest

from services.protocols.core import Busy, NotLeader
from services.protocols.paxos import Limits
from services.protocols.paxos.messages import (
    Accepted,
    Decisions,
    Learn,
    P0a,
    P0b,
    P1a,
    P1b,
    P2a,
    P2b,
    Promised,
    PValue,
)
from tests.protocols.paxos.helpers import (
    ELECTION,
    HEARTBEAT,
    accept,
    after,
    ballot,
    leader,
    node,
    of,
    p2a,
    promise,
    scout,
    tick,
    value,
)

# ---- scouts -------------------------------------------------------------------------------------


def test_the_ballot_is_on_record_before_it_is_asked_for() -> None:
    """A4 rests on it: a ballot that was forgotten would be taken again, for other values."""
    core = node()
    ready = scout(core)

    assert ready.persist == [Promised(ballot(1, 1))]
    assert ready.early == 0
    again = node(records=ready.persist)
    tick(again, ELECTION)
    assert of(scout(again), P1a)[0].ballot > ballot(1, 1)


def test_a_majority_adopts() -> None:
    """PMMC §2: the scout waits for p1b from a majority of acceptors; and an acceptor that answers
    twice is one."""
    core = node(5)
    scout(core)
    for _ in range(3):
        promise(core, "n2")
    assert core.status()["role"] == "candidate"

    promise(core, "n3")

    assert core.status()["role"] == "leader"


def test_pmax_and_no_ops() -> None:
    """PMMC §2, pmax: for each slot the command of the pvalue with the highest ballot; PMS §3: in
    the gaps "a special “no-op” command that leaves the state unchanged". Each value keeps the
    ballot that it was first proposed in."""
    core = node(5, records=[Promised(ballot(4, 2, 5))])
    scout(core)
    low, high = ballot(1, 2, 5), ballot(2, 3, 5)
    promise(core, "n2", accepted=[PValue(low, value(1, low, b"low"))])
    again = PValue(ballot(3, 2, 5), value(3, low, b"kept"))
    ready = promise(core, "n3", accepted=[PValue(high, value(1, high, b"high")), again])

    [proposed] = [m.entries for m in of(ready, P2a, "n4") if m.entries]

    assert proposed == [value(1, high, b"high"), (no_op := proposed[1]), value(3, low, b"kept")]
    assert (no_op.index, no_op.term, no_op.command) == (2, core.ballot, b"")
    assert core.propose(b"new") == (4, core.ballot)


def test_a_promise_that_knows_of_more_decisions_is_not_counted_yet() -> None:
    """scout.py: its pvalues begin after slot 2, so slots 1 and 2 have to be learned first."""
    core = node()
    scout(core)

    [learn] = of(promise(core, "n2", decided=2), Learn)
    assert (learn.dst, learn.after) == ("n2", 0)
    assert core.status()["role"] == "candidate"
    decisions = [value(1, 4), value(2, 5)]
    after(core, Decisions("n2", "n1", decisions, 2))

    assert core.status()["role"] == "leader"
    assert core.propose(b"new")[0] == 3


def test_a_preempted_scout() -> None:
    """PMMC §2: on a higher ballot the leader becomes passive, and its next ballot is above it."""
    core = node()
    scout(core)
    after(core, P1b("n2", "n1", ballot(7, 3), 0, []))

    assert core.status()["role"] == "follower"
    assert of(scout(core), P1a)[0].ballot == ballot(8, 1)


def test_phase_0_takes_no_ballot() -> None:
    """A node that nobody would promise keeps its old ballot, however often it asks."""
    core = node()
    for _ in range(10 * ELECTION):
        core.tick()
        for request in of(core.ready(), P0a):
            core.step(P0b(request.dst, "n1", 0, False))

    assert core.ballot == 0
    assert core.status()["pre_vote"]


def test_phase_0_is_asked_once_in_a_campaign() -> None:
    """scout.py: a majority gathered from different moments would depose a leader that is well."""
    core, asked = node(5), []
    for tick_number in range(10 * ELECTION):
        core.tick()
        asked += [tick_number for _ in of(core.ready(), P0a)]

    campaigns = sorted(set(asked))
    assert len(asked) == 4 * len(campaigns)
    assert all(b - a >= ELECTION for a, b in itertools.pairwise(campaigns))


def test_lost_requests_are_repeated_to_those_who_have_not_answered() -> None:
    """PMMC assumes reliable links; here the heartbeat period stands in for them."""
    core = node(5)
    scout(core)
    promise(core, "n2")
    tick(core, HEARTBEAT)

    assert {m.dst for m in of(core.ready(), P1a)} == {"n3", "n4", "n5"}


def test_patience_is_multiplied_by_failure_and_shrinks_by_steps() -> None:
    """PMMC §3: AIMD, against two leaders that preempt each other for ever."""
    core = node()
    assert core.patience == ELECTION
    scout(core)
    after(core, P1b("n2", "n1", ballot(7, 3), 0, []))
    once = core.patience
    assert once > ELECTION * 4 // 3
    scout(core)
    after(core, P1b("n2", "n1", ballot(9, 3), 0, []))
    assert core.patience == 2 * ELECTION  # and not more

    for expected in range(2 * ELECTION - 1, 2 * ELECTION - 6, -1):
        after(core, p2a(3, 9))
        assert core.patience == expected


# ---- commanders ---------------------------------------------------------------------------------


def test_a_majority_decides_and_an_acceptor_counts_once() -> None:
    """PMMC §2: the commander waits for p2b from a majority; `waitfor` is a set."""
    core = leader(5)
    core.propose(b"x")
    core.ready()
    for _ in range(3):
        assert not accept(core, "n2", 1).committed

    [entry] = accept(core, "n3", 1).committed

    assert (entry.index, entry.term, entry.command) == (1, core.ballot, b"x")


def test_acceptances_of_another_ballot_do_not_count() -> None:
    """PMMC §2: a p2b counts if its ballot is the commander's; a lower one is late."""
    core = leader()
    core.propose(b"x")
    core.ready()

    assert not accept(core, "n2", 1, ballot=0).committed
    assert core.status()["role"] == "leader"


def test_a_preempted_commander() -> None:
    """PMMC §2: a p2b with a higher ballot preempts; the client is not answered here."""
    core = leader()
    core.propose(b"x")
    core.read(1)
    core.ready()

    ready = after(core, P2b("n2", "n1", ballot(3, 3), [], 1))

    assert core.status()["role"] == "follower"
    assert "step_down" in [event.name for event in ready.events]
    assert [read.read_id for read in ready.reads] == [1]
    with pytest.raises(NotLeader):
        core.propose(b"y")
    assert core.slots.accepted[1].entry.command == b"x"  # A3: what is accepted stays


def test_slots_are_decided_in_any_order_and_applied_in_theirs() -> None:
    """PMS §3: "The leader can propose command 142 before it learns that its proposed command 141
    has been chosen"; R2: applied without a gap."""
    core = leader()
    for command in (b"x", b"y", b"z"):
        core.propose(command)
        core.ready()

    assert not accept(core, "n2", 3).committed
    assert not accept(core, "n2", 2).committed
    committed = accept(core, "n2", 1).committed

    assert [entry.command for entry in committed] == [b"x", b"y", b"z"]


def test_the_window() -> None:
    """PMMC §2: a slot beyond the window has to wait until an earlier one is decided."""
    core = leader(limits=Limits(window=2))
    for command in (b"x", b"y", b"z"):
        core.propose(command)
    [first] = [m.entries for m in of(core.ready(), P2a, "n2")]
    assert [entry.index for entry in first] == [1, 2]
    accept(core, "n2", 2)
    assert not core.commanders.get(3)

    [then] = [m.entries for m in of(accept(core, "n2", 1), P2a, "n2")]

    assert [entry.index for entry in then] == [3]


def test_what_comes_together_goes_together_and_early() -> None:
    """One p2a per acceptor and one record; the p2a may leave before the leader's own write."""
    core = leader()
    for command in (b"x", b"y"):
        core.propose(command)
    ready = core.ready()

    assert [len(m.entries) for m in of(ready, P2a)] == [2, 2]
    assert ready.early == 2
    assert [type(record) for record in ready.persist] == [Accepted]
    assert not ready.committed


def test_early_means_p2a_of_a_ballot_on_record() -> None:
    """`Paxos._propose_early`: nothing else, and nothing while all is written anew."""
    core = leader()
    core.propose(b"x")
    core.ready()
    accept(core, "n2", 1)
    core.compact(1, b"state")
    core.propose(b"y")

    assert core.ready().early == 0


def test_a_lost_p2a_is_sent_again_to_those_who_have_not_answered() -> None:
    """The heartbeat carries what seems to be lost."""
    core = leader()
    core.propose(b"x")
    core.ready()
    tick(core, 2 * HEARTBEAT)
    resent = of(core.ready(), P2a)

    assert {m.dst for m in resent if m.entries} == {"n2", "n3"}


def test_undecided_bytes_are_bounded() -> None:
    """Busy: definite, nothing was proposed."""
    core = leader(limits=Limits(uncommitted_bytes=5))
    core.propose(b"12345")
    with pytest.raises(Busy):
        core.propose(b"6")
    core.ready()
    accept(core, "n2", 1)

    assert core.propose(b"6") == (2, core.ballot)


def test_a_leader_that_nobody_hears_steps_down() -> None:
    """Its clients would wait for ever otherwise."""
    core = leader()
    tick(core, ELECTION)

    assert core.status()["role"] == "follower"
    assert core.status()["leader"] is None


def test_one_node_is_a_majority_of_one() -> None:
    """Decided in the Ready that writes it: `persist` comes before `committed`."""
    core = node(1)
    tick(core, 2 * ELECTION)
    core.ready()
    core.propose(b"x")
    ready = core.ready()

    assert [entry.command for entry in ready.committed] == [b"x"]
    assert any(isinstance(record, Accepted) for record in ready.persist)
