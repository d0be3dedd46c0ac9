"""Replicas, garbage collection and reads: PMMC §2 and §4; reads.py, replica.py."""

from __future__ import annotations

from services.protocols.core import ReadGrant, ReadRefusal, Snapshot
from services.protocols.paxos import Limits, Paxos
from services.protocols.paxos.messages import (
    Decisions,
    Learn,
    P2a,
    P2b,
    Promised,
    PValue,
    SnapshotChunk,
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

FIRST, LATER = ballot(1, 2), ballot(2, 3)

# ---- learning -----------------------------------------------------------------------------------


def test_what_was_accepted_in_the_ballot_of_the_leader_is_the_decision() -> None:
    """replica.py (1): a leader proposes one value per slot and ballot."""
    core = node()
    after(core, p2a(2, 1, value(1, FIRST), value(2, FIRST)))

    ready = after(core, p2a(2, 1, decided=2))

    assert ready.committed == [value(1, FIRST), value(2, FIRST)]
    assert not of(ready, Learn)
    assert ready.persist == []  # no write for that


def test_what_was_accepted_in_another_ballot_is_not() -> None:
    """R1: the slot may have been decided with another value; so it is asked for."""
    core = node()
    after(core, p2a(2, 1, value(1, FIRST, b"old")))

    ready = after(core, p2a(3, 2, decided=1))
    assert not ready.committed
    assert [(m.dst, m.after) for m in of(ready, Learn)] == [("n3", 0)]

    ready = after(core, Decisions("n3", "n1", [value(1, LATER, b"new")], 1))
    assert [entry.command for entry in ready.committed] == [b"new"]


def test_a_gap_is_not_skipped() -> None:
    """R2: all commands up to slot_out are in the set of decisions."""
    core = node()
    after(core, p2a(2, 1, value(2, FIRST)))
    assert not after(core, p2a(2, 1, decided=2)).committed
    assert not after(core, Decisions("n2", "n1", [value(2, FIRST)], 2)).committed

    ready = after(core, Decisions("n2", "n1", [value(1, FIRST), value(2, FIRST)], 2))

    assert [entry.index for entry in ready.committed] == [1, 2]


def test_an_answer_with_nothing_new_asks_for_nothing() -> None:
    """Seed 137: repeated answers and repeated requests would multiply."""
    core = node()
    after(core, p2a(2, 1, decided=9))
    answer = Decisions("n2", "n1", [value(1, FIRST)], 9)
    assert len(of(after(core, answer), Learn)) == 1

    assert not of(after(core, answer), Learn)


def test_decisions_heard_of_and_decisions_learned_make_no_hole_on_the_disk() -> None:
    """Seed 6: slot 1 is known from a p2a alone when slot 2 is learned and recorded."""
    core = node()
    records = after(core, p2a(2, 1, value(1, FIRST))).persist
    records += after(core, p2a(2, 1, decided=2)).persist
    records += after(core, Decisions("n2", "n1", [value(2, FIRST)], 2)).persist

    again = node(records=records)

    assert again.slots.decided == 2
    assert again.slots.between(0, 2) == core.slots.between(0, 2)


# ---- teaching and garbage collection ------------------------------------------------------------


def decided(count: int, **limits: int) -> Paxos:
    """n1 leads and has decided this many slots."""
    core = leader(limits=Limits(**limits))
    for slot in range(1, count + 1):
        core.propose(b"c%d" % slot)
        core.ready()
        accept(core, "n2", slot)
    return core


def test_any_node_teaches_decisions() -> None:
    """replica.py (2): at most `entries_per_message`, and how many there are."""
    core = decided(5, entries_per_message=2)

    [answer] = of(after(core, Learn("n3", "n1", 1, 0, 0)), Decisions)

    assert [entry.index for entry in answer.entries] == [2, 3]
    assert answer.decided == 5
    assert not after(core, Learn("n3", "n1", 5, 0, 0)).messages


def test_collected_decisions_are_replaced_by_the_state() -> None:
    """PMMC §4: what is collected is not sent any more; the state goes in chunks, one snapshot to
    its end even if a newer one is taken meanwhile."""
    core = decided(3, kept_entries=0, snapshot_chunk_bytes=4)
    core.compact(2, b"state2")
    core.ready()
    replica = node()
    after(replica, p2a(2, 1, decided=3))

    [first] = of(after(core, Learn("n3", "n1", 0, 0, 0)), SnapshotChunk)
    core.compact(3, b"state3")
    [second] = of(after(core, Learn("n3", "n1", 0, 2, 4)), SnapshotChunk)
    assert (first.data, first.done, second.data, second.done) == (b"stat", False, b"e2", True)

    for chunk in (first, second):
        chunk.src, chunk.dst = "n2", "n1"
        ready = after(replica, chunk)
    assert ready.restore == Snapshot(2, first.last_term, b"state2")
    assert isinstance(ready.persist[0], Snapshot)
    assert replica.slots.decided == replica.applied_index == 2


def test_a_snapshot_leaves_later_pvalues_alone() -> None:
    """A3: an acceptance beyond the snapshot may be what makes its value chosen."""
    core = node()
    after(core, p2a(2, 1, value(1, FIRST), value(5, FIRST)))
    ready = after(core, SnapshotChunk("n2", "n1", 3, FIRST, 0, b"state", True))

    assert core.slots.pvalues() == [PValue(FIRST, value(5, FIRST))]
    again = node(records=ready.persist)
    assert (again.ballot, again.slots.decided) == (core.ballot, 3)
    assert again.slots.pvalues() == core.slots.pvalues()


def test_the_rest_of_a_snapshot_that_decisions_overtook_is_not_asked_for() -> None:
    """Seed 216: it would be answered, and thrown away, for ever."""
    core = node()
    after(core, p2a(2, 1, decided=9))
    after(core, SnapshotChunk("n2", "n1", 1, FIRST, 0, b"stat", False))
    after(core, Decisions("n3", "n1", [value(1, FIRST), value(2, FIRST)], 2))
    tick(core, 2 * HEARTBEAT)

    [learn] = of(after(core, p2a(2, 1, decided=9)), Learn)

    assert (learn.after, learn.snapshot_index, learn.offset) == (2, 0, 0)


def test_compaction_writes_everything_that_must_survive() -> None:
    """core.py: a Snapshot replaces the storage, so promise, decisions and pvalues follow it."""
    core = decided(3)
    core.propose(b"undecided")
    core.ready()
    core.compact(2, b"state")
    again = node(records=core.ready().persist)

    assert again.ballot == core.ballot
    assert (again.slots.snapshot_index, again.slots.decided) == (2, 3)
    assert [pvalue.entry.command for pvalue in again.slots.pvalues()] == [b"undecided"]


# ---- reads --------------------------------------------------------------------------------------


def test_a_read_needs_answers_to_a_heartbeat_sent_after_it() -> None:
    """reads.py (2): an answer that was under way before proves nothing about now."""
    core = decided(1)
    core.read(7)
    [heartbeat] = of(core.ready(), P2a, "n2")

    assert not accept(core, "n2", round=heartbeat.round - 1).reads
    assert accept(core, "n2", round=heartbeat.round).reads == [ReadGrant(7, 1)]


def test_a_read_waits_for_what_was_taken_over() -> None:
    """reads.py (1): the last leader may have decided slot 1, and answered its client."""
    core, earlier = node(records=[Promised(ballot(1, 3))]), ballot(1, 3)
    scout(core)
    ready = promise(core, "n2", accepted=[PValue(earlier, value(1, earlier))])
    core.read(7)
    heartbeat = max(m.round for m in of(ready, P2a))
    assert not accept(core, "n2", round=heartbeat).reads

    ready = accept(core, "n2", 1, round=heartbeat)
    [asked] = {m.round for m in of(ready, P2a)}
    assert accept(core, "n2", round=asked).reads == [ReadGrant(7, 1)]


def test_a_take_over_that_found_nothing_serves_reads_at_once() -> None:
    """reads.py: no no-op is needed to know what is decided."""
    core = leader()
    core.read(7)
    [heartbeat] = of(core.ready(), P2a, "n2")

    assert accept(core, "n2", round=heartbeat.round).reads == [ReadGrant(7, 0)]


def test_a_lease_is_counted_from_when_the_heartbeat_was_sent() -> None:
    """reads.py: for `lease_ticks`, less than the acceptors' `election_ticks`."""
    core = decided(1)
    tick(core, HEARTBEAT)
    heartbeat = of(core.ready(), P2a, "n2")[-1]
    tick(core, 2)
    accept(core, "n2", round=heartbeat.round)
    core.read(1, lease=True)
    assert core.ready().reads == [ReadGrant(1, 1)]
    tick(core, ELECTION * 3 // 4 - 2)
    assert not core.has_lease()

    core.read(2, lease=True)
    assert not core.ready().reads  # it falls back to asking
    refused = after(core, P2b("n2", "n1", ballot(5, 2), [], 0)).reads
    assert refused == [ReadRefusal(2, None)]
