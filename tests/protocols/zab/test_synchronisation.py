"""Phase 2 (DSN 2011 §IV; Medeiros §4.3): NEWLEADER, ACK-LD, COMMIT-LD; TRUNC, DIFF and SNAP."""

from __future__ import annotations

import pytest

from services.protocols.core import NotLeader, Snapshot
from services.protocols.zab import Limits
from services.protocols.zab.messages import (
    AckNewLeader,
    AckSync,
    CommitNewLeader,
    Diff,
    Epochs,
    NewEpoch,
    NewLeader,
    Propose,
    Snap,
    Trunc,
    Truncate,
    Zxid,
)
from tests.protocols.zab.helpers import (
    Ensemble,
    accepted,
    ack_epoch,
    ack_leader,
    entries,
    epochs_of,
    established,
    events,
    joins,
    node,
    of,
    prospective,
    synchronising,
    tick,
)

# ---- the leader ---------------------------------------------------------------------------------


def test_new_leader_is_proposed_to_the_quorum() -> None:
    """Step l.2.1: to all followers in Q; and the leader accepts itself, as their first."""
    core = prospective([1])
    joins(core, "n2")
    ready = ack_epoch(core, "n2")

    assert of(ready, NewLeader) == [NewLeader("n1", "n2", 2, Zxid(1, 1))]
    assert ready.persist == [Epochs(2, 2)]


def test_diff_brings_what_the_follower_lacks() -> None:
    """§4.3, DIFF; then NEWLEADER."""
    core = prospective([1, 1, 2])
    joins(core, "n2")
    ready = ack_epoch(core, "n2", ends=[(1, 1)])
    assert of(ready, Diff) == [Diff("n1", "n2", 3, Zxid(1, 1), entries([1, 2], first=2))]
    assert not of(ready, NewLeader)
    core.step(AckSync("n2", "n1", 3, Zxid(2, 3), 0))

    assert of(core.ready(), NewLeader) == [NewLeader("n1", "n2", 3, Zxid(2, 3))]


def test_trunc_takes_away_what_the_leader_never_saw() -> None:
    """§4.3, TRUNC: to the last transaction that both have."""
    core = prospective([1, 1, 3, 3])
    joins(core, "n2")
    ready = ack_epoch(core, "n2", ends=[(1, 2), (2, 5)])

    assert of(ready, Trunc) == [Trunc("n1", "n2", 4, Zxid(1, 2))]


def test_trunc_finds_the_common_transaction_in_an_epoch_that_both_have() -> None:
    """Two histories share all of an epoch that both have, up to the shorter one."""
    core = prospective([1, 1, 1, 3], current=4, accepted=4)
    joins(core, "n2")
    ready = ack_epoch(core, "n2", current=3, ends=[(1, 2), (2, 9)])

    assert of(ready, Trunc) == [Trunc("n1", "n2", 5, Zxid(1, 2))]


def test_snap_replaces_what_the_leader_has_compacted() -> None:
    """§4.3, SNAP: the leader no longer has what follows the follower's history."""
    core = established([1, 1, 1], limits=Limits(kept_entries=0, snapshot_chunk_bytes=4))
    core.compact(3, b"abcdef")
    core.ready()
    joins(core, "n3")
    ready = ack_epoch(core, "n3", ends=[(1, 1)])
    assert of(ready, Snap) == [Snap("n1", "n3", 2, Zxid(1, 3), 0, b"abcd", False)]
    core.step(AckSync("n3", "n1", 2, Zxid(1, 1), 4))
    assert of(core.ready(), Snap) == [Snap("n1", "n3", 2, Zxid(1, 3), 4, b"ef", True)]
    core.step(AckSync("n3", "n1", 2, Zxid(1, 3), 0))

    assert of(core.ready(), NewLeader) == [NewLeader("n1", "n3", 2, Zxid(1, 3))]


def test_a_longer_history_that_is_not_the_snapshots_has_not_arrived() -> None:
    """Found by the simulation (seed 223 of its first day): the counter of what the follower still
    has to give up was beyond the snapshot's, so it was sent from the beginning again and again."""
    core = established([1, 1, 1], limits=Limits(kept_entries=0, snapshot_chunk_bytes=4))
    core.compact(3, b"abcdef")
    joins(core, "n3")
    ack_epoch(core, "n3", current=0, ends=[(0, 9)])
    core.step(AckSync("n3", "n1", 2, Zxid(0, 9), 4))

    (chunk,) = of(core.ready(), Snap)
    assert chunk.offset == 4


def test_a_repeated_answer_sends_nothing() -> None:
    """However often the network repeats itself, one message is under way."""
    core = prospective([1, 1, 1], limits=Limits(entries_per_message=1))
    joins(core, "n2")
    ack_epoch(core, "n2", ends=[(1, 1)])
    core.step(AckSync("n2", "n1", 2, Zxid(1, 2), 0))
    assert len(of(core.ready(), Diff)) == 1
    core.step(AckSync("n2", "n1", 2, Zxid(1, 2), 0))
    core.step(AckSync("n2", "n1", 2, Zxid(1, 1), 0))

    assert not core.ready()


def test_a_step_without_an_answer_is_repeated() -> None:
    """It, or its answer, may be lost."""
    core = prospective([1, 1])
    joins(core, "n2")
    first = of(ack_epoch(core, "n2", ends=[(1, 1)]), Diff)
    tick(core, 6)

    assert first[0] in of(core.ready(), Diff)


def test_a_follower_that_is_not_where_it_was_is_measured_again() -> None:
    """Found by the simulation (seed 1802): a late TRUNC took a follower back; the leader believed
    the better answer it had had before, and said NEWLEADER for ever."""
    core = established([1, 1, 2])
    joins(core, "n3")
    ack_epoch(core, "n3", ends=[(1, 2)])
    core.step(AckSync("n3", "n1", 3, Zxid(2, 3), 0))
    assert of(core.ready(), NewLeader)
    tick(core, 6)
    core.ready()
    core.step(AckSync("n3", "n1", 3, Zxid(1, 2), 0))

    assert of(core.ready(), NewEpoch)


def test_a_follower_beyond_the_snapshot_is_measured_again() -> None:
    """Found by the simulation (seed 4869): it had more than the snapshot that was sent to it, and
    the leader had compacted where it ended."""
    core = established([1, 1, 1], limits=Limits(kept_entries=0))
    core.compact(3, b"abcdef")
    core.ready()
    joins(core, "n3")
    ack_epoch(core, "n3", current=0, ends=[(0, 0)])
    tick(core, 6)
    assert of(core.ready(), Snap)
    core.step(AckSync("n3", "n1", 2, Zxid(1, 5), 0))
    assert not core.history.holds(Zxid(1, 5))

    assert of(core.ready(), NewEpoch)


def test_the_initial_history_is_committed_with_the_acceptance_of_a_quorum() -> None:
    """Step l.2.2: COMMIT-LD after ACK-LD of a quorum; the leader delivers all of it."""
    core = prospective([1, 2], size=5)
    joins(core, "n2", "n3")
    ack_epoch(core, "n2")
    ack_epoch(core, "n3")
    assert not ack_leader(core, "n2").committed, "two of five"
    ready = ack_leader(core, "n3")

    assert ready.committed == entries([1, 2])
    assert {(m.dst, m.counter) for m in of(ready, CommitNewLeader)} == {("n2", 2), ("n3", 2)}
    assert "become_leader" in events(ready)


def test_nothing_of_an_old_epoch_is_committed_by_counting() -> None:
    """Step l.2.2 (Raft's figure 8): all have it by DIFF, nobody has accepted the leader."""
    core = prospective([1, 2], size=5)
    joins(core, *core.peers)
    for peer in core.peers:
        ack_epoch(core, peer)
        core.step(AckSync(peer, "n1", 3, Zxid(2, 2), 0))

    assert not core.ready().committed
    assert core.commit_index == 0


def test_no_proposals_before_phase_3() -> None:
    """Primary integrity (§III): what comes before is delivered before anything is broadcast."""
    core = prospective([1])
    joins(core, "n2")
    ack_epoch(core, "n2")

    with pytest.raises(NotLeader):
        core.propose(b"x")
    with pytest.raises(NotLeader):
        core.read(1)


def test_a_follower_that_joins_later_is_committed_to_by_itself() -> None:
    """Step l.3.4: upon its acknowledgement, COMMIT to it; and from there on proposals."""
    core = established([1])
    core.propose(b"a")
    core.ready()
    joins(core, "n3")
    ready = ack_epoch(core, "n3", ends=[(1, 1)])
    assert of(ready, NewLeader)
    ready = ack_leader(core, "n3", counter=1)

    assert [m.dst for m in of(ready, CommitNewLeader)] == ["n3"]
    assert [m.entries[0].command for m in of(ready, Propose, "n3")] == [b"a"]


def test_a_follower_whose_storage_was_wiped_is_filled_again() -> None:
    """Outside of the assumptions; but less is believed of it from then on, and it is told."""
    core = established([1, 1])
    joins(core, "n3", promised=0)
    ready = ack_epoch(core, "n3", current=0, ends=[])

    assert "log_lost" in events(ready)
    assert core.learners["n3"].match_counter == 0
    assert of(ready, Diff)


# ---- the follower -------------------------------------------------------------------------------


def test_new_leader_is_accepted_when_the_history_is_there() -> None:
    """Step f.2.1: f.a ← e', and acknowledge."""
    core = synchronising([1, 1], epoch=5)
    core.step(NewLeader("n2", "n1", 5, Zxid(1, 2)))

    ready = core.ready()
    assert ready.persist == [Epochs(5, 5)]
    assert of(ready, AckNewLeader) == [AckNewLeader("n1", "n2", 5, 2)]


def test_new_leader_is_not_accepted_before_the_history_is_there() -> None:
    """ZOOKEEPER-4646: who acknowledges counts as one that has the initial history."""
    core = synchronising([1, 1], epoch=5)
    core.step(NewLeader("n2", "n1", 5, Zxid(1, 3)))

    ready = core.ready()
    assert not ready.persist
    assert not of(ready, AckNewLeader)
    assert of(ready, AckSync) == [AckSync("n1", "n2", 5, Zxid(1, 2), 0)]


def test_new_leader_of_another_epoch_than_promised_is_ignored() -> None:
    """Step f.2.1: if f.p = e'."""
    core = synchronising([1], epoch=5)
    core.step(NewLeader("n2", "n1", 4, Zxid(1, 1)))

    assert not core.ready()


def test_the_history_is_written_before_the_current_epoch() -> None:
    """ZOOKEEPER-4643: a crash in between must not leave the claim without the history."""
    core = synchronising([1], epoch=5)
    core.step(Diff("n2", "n1", 5, Zxid(1, 1), entries([3], first=2)))
    core.step(NewLeader("n2", "n1", 5, Zxid(3, 2)))

    assert core.ready().persist == [*entries([3], first=2), Epochs(5, 5)]


def test_trunc_drops_what_follows() -> None:
    """§4.3, on disk before it is answered."""
    core = synchronising([1, 2, 2], epoch=5)
    core.step(Trunc("n2", "n1", 5, Zxid(1, 1)))

    ready = core.ready()
    assert ready.persist == [Truncate(1)]
    assert of(ready, AckSync) == [AckSync("n1", "n2", 5, Zxid(1, 1), 0)]
    assert epochs_of(core) == [1]


def test_a_late_trunc_does_not_take_back_what_was_acknowledged() -> None:
    """After NEWLEADER everything here is the leader's, and counted."""
    core = accepted([1, 1], epoch=5)
    core.step(Trunc("n2", "n1", 5, Zxid(1, 1)))

    assert not core.ready().persist
    assert epochs_of(core) == [1, 1]


def test_diff_that_does_not_join_is_not_appended() -> None:
    """Messages may overtake each other: a gap, a conflict, a repetition."""
    core = synchronising([1, 2], epoch=5)
    for prev, epochs in (
        (Zxid(1, 3), [1]),
        (Zxid(1, 2), [1]),
        (Zxid(1, 1), [2]),
        (Zxid(1, 1), [3]),
    ):
        core.step(Diff("n2", "n1", 5, prev, entries(epochs, first=prev.counter + 1)))
    assert not core.ready().persist
    assert epochs_of(core) == [1, 2]


def test_the_initial_history_is_delivered_on_commit() -> None:
    """Step f.2.2: in the order of the zxids; then phase 3."""
    core = accepted([1, 1, 2], epoch=5)
    core.step(CommitNewLeader("n2", "n1", 5, 3))

    assert core.ready().committed == entries([1, 1, 2])
    assert core.status()["phase"] == "broadcast"


def test_a_snapshot_in_chunks_replaces_history_and_state() -> None:
    """§4.3, SNAP: late, repeated and missing chunks do no harm."""
    core = synchronising([1, 2, 2], epoch=5)

    def chunk(offset: int, data: bytes, *, done: bool) -> Snap:
        return Snap("n2", "n1", 5, Zxid(4, 9), offset, data, done)

    core.step(chunk(2, b"cd", done=True))
    core.step(chunk(0, b"ab", done=False))
    core.step(chunk(0, b"ab", done=False))
    assert [m.offset for m in of(core.ready(), AckSync)] == [0, 2, 2]
    core.step(chunk(2, b"cd", done=True))

    ready = core.ready()
    snapshot = Snapshot(9, 4, b"abcd")
    assert ready.persist == [snapshot, Epochs(5, 2)], "the epoch only with NEWLEADER"
    assert ready.restore == snapshot
    assert core.commit_index == core.applied_index == 9


def test_any_prefix_of_what_synchronisation_writes_is_a_state_to_restart_from() -> None:
    """A torn write: the history may be ahead of currentEpoch, never the other way round."""
    core = synchronising([1, 2, 2], epoch=5)
    before = [Epochs(5, 2), *entries([1, 2, 2])]
    core.step(Trunc("n2", "n1", 5, Zxid(1, 1)))
    core.step(Diff("n2", "n1", 5, Zxid(1, 1), entries([3, 4], first=2)))
    core.step(NewLeader("n2", "n1", 5, Zxid(4, 3)))
    written = core.ready().persist

    for kept in range(len(written) + 1):
        again = type(core)("n1", core.peers, random=core.random, records=[*before, *written[:kept]])
        again.check_invariants()
        assert again.current_epoch == (5 if kept == len(written) else 2)


def test_records_that_cannot_be_are_refused() -> None:
    """A gap, a cut behind the end, an epoch that was never promised."""
    core = node()
    for records in (
        [Epochs(1, 1), *entries([1], first=2)],
        [Epochs(1, 1), *entries([1]), Truncate(2)],
        [Epochs(1, 1), *entries([2])],
        [Epochs(1, 2)],
        ["nonsense"],
    ):
        with pytest.raises(ValueError, match=r"follow|end at|promise|not a record"):
            type(core)("n1", ("n2",), random=core.random, records=records)


# ---- together -----------------------------------------------------------------------------------


def test_what_the_old_leader_alone_had_goes_and_what_a_quorum_had_stays() -> None:
    """§III, agreement, and §IV: three histories become one."""
    ensemble = Ensemble(3, histories={"n1": [1, 1, 1], "n2": [1, 1, 2], "n3": [1, 1]})
    ensemble.leader()
    ensemble.until(lambda: all(len(a) == 3 for a in ensemble.applied.values()))

    assert {tuple(epochs_of(core)) for core in ensemble.cores.values()} == {(1, 1, 2)}
