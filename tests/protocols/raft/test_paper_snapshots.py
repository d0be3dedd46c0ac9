"""The extended Raft paper on log compaction: §7, figures 12 and 13."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from services.protocols.core import Entry, Snapshot
from services.protocols.raft import Limits, Raft
from services.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    InstallSnapshot,
    InstallSnapshotResponse,
)
from tests.protocols.raft.helpers import (
    HEARTBEAT,
    Cluster,
    accept,
    answer_to_append,
    append_entries,
    chunk,
    entries,
    established,
    events,
    follower,
    leader,
    log_terms,
    of,
    replayed,
)

# ---- Taking a snapshot --------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 2, 1000])
def test_a_snapshot_replaces_the_committed_entries(kept: int) -> None:
    """§7: "The snapshot includes … the last included index … and the last included term … These
    are preserved to support the AppendEntries consistency check for the first log entry following
    the snapshot"; "Once a server completes writing a snapshot, it may delete all log entries up
    through the last included index"; figure 12. The records let the node come back."""
    core = follower([1, 1, 2, 2, 3], committed=4, vote="n3", limits=Limits(kept_entries=kept))
    core.compact(3, b"state of 3")
    ready = core.ready()

    assert ready.persist == [
        Snapshot(3, 2, b"state of 3"),
        HardState(3, "n3"),
        *entries([2, 3], first=4),
    ]
    assert answer_to_append(core, append_entries("n2", 3, prev=(5, 3))).success
    assert len(log_terms(core)) == 2 + min(kept, 3)

    again = replayed(ready.persist)
    assert again.ready().restore == Snapshot(3, 2, b"state of 3")
    status = again.status()
    assert (status["commit_index"], status["applied_index"], status["last_index"]) == (3, 3, 5)
    assert (status["term"], status["vote"]) == (3, "n3")
    assert answer_to_append(again, append_entries("n2", 3, prev=(3, 2))).success
    assert answer_to_append(again, append_entries("n2", 3, prev=(3, 2), new=[2, 3])).success
    assert again.ready().persist == []


def test_an_older_snapshot_is_ignored() -> None:
    """§7: servers "take snapshots independently"; one whose index is behind what is here already
    (the leader's snapshot overtook it) must not take the log back."""
    core = follower([1, 1, 1], committed=3)
    core.compact(3, b"three")
    core.ready()
    core.compact(2, b"two")

    assert not core.ready()
    assert core.status()["snapshot_index"] == 3


# ---- InstallSnapshot, receiver ------------------------------------------------------------------


def answer_to_chunk(core: Raft, message: InstallSnapshot) -> InstallSnapshotResponse:
    core.step(message)
    (response,) = of(core.ready(), InstallSnapshotResponse)
    return response


def test_install_snapshot_rule_1_an_old_term() -> None:
    """Figure 13, receiver 1: "Reply immediately if term < currentTerm"."""
    core = follower([1], term=4)
    answer = answer_to_chunk(core, chunk(b"all", term=3))

    assert (answer.term, answer.done) == (4, False)
    assert log_terms(core) == [1]
    assert core.status()["leader"] is None


def test_install_snapshot_rule_2_an_offset_of_0_begins() -> None:
    """Figure 13, receiver 2: "Create new snapshot file if first chunk (offset is 0)": the pieces of
    another snapshot are not kept with it, and one that misses its beginning is not begun."""
    core = follower(term=3)
    assert answer_to_chunk(core, chunk(b"tail", offset=4)).offset == 0
    assert answer_to_chunk(core, chunk(b"old ", done=False)).offset == 4
    newer = chunk(b"new ", done=False, last=(7, 2))
    assert answer_to_chunk(core, newer).offset == 4
    core.step(chunk(b"tail", offset=4, last=(7, 2)))

    assert core.ready().restore == Snapshot(7, 2, b"new tail")


def test_install_snapshot_rule_3_data_at_its_offset() -> None:
    """Figure 13, receiver 3: "Write data into snapshot file at given offset"."""
    core = follower(term=3)
    core.step(chunk(b"abc", done=False))
    core.step(chunk(b"d", offset=3, done=False))
    core.step(chunk(b"ef", offset=4))

    assert core.ready().restore == Snapshot(5, 2, b"abcdef")


def test_install_snapshot_rule_4_waits_for_more() -> None:
    """Figure 13, receiver 4: "Reply and wait for more data chunks if done is false"."""
    core = follower([1], term=3)
    core.step(chunk(b"abc", done=False))
    ready = core.ready()

    assert ready.messages == [InstallSnapshotResponse("n1", "n2", 3, 5, 3, False)]
    assert not ready.persist
    assert ready.restore is None
    assert log_terms(core) == [1]


def test_install_snapshot_rule_5_saves_and_discards_a_smaller_one() -> None:
    """Figure 13, receiver 5: "Save snapshot file, discard any existing or partial snapshot with a
    smaller index". The late pieces of the smaller one are ignored then."""
    core = follower(term=3)
    core.step(chunk(b"old ", done=False))
    core.step(chunk(b"new", done=True, last=(7, 2)))
    ready = core.ready()
    assert ready.persist == [Snapshot(7, 2, b"new"), HardState(3, None)]
    core.step(chunk(b"tail", offset=4))
    late = core.ready()

    assert not late.persist
    assert late.restore is None
    assert core.status()["snapshot_index"] == 7


def test_a_smaller_snapshot_does_not_interrupt_a_newer_one() -> None:
    """Figure 13, receiver 5: it is the smaller index that is discarded."""
    core = follower(term=3)
    core.step(chunk(b"new ", done=False, last=(7, 2)))
    core.step(chunk(b"old", done=True))
    assert core.ready().restore is None
    core.step(chunk(b"tail", offset=4, last=(7, 2)))

    assert core.ready().restore == Snapshot(7, 2, b"new tail")


def test_install_snapshot_rule_6_retains_what_follows() -> None:
    """Figure 13, receiver 6: "If existing log entry has same index and term as snapshot's last
    included entry, retain log entries following it and reply"; §7: "entries following the snapshot
    are still valid and must be retained"."""
    core = follower([1, 1, 2, 2, 2, 3], term=3)
    core.step(chunk(b"all", last=(5, 2)))
    ready = core.ready()

    assert of(ready, InstallSnapshotResponse) == [
        InstallSnapshotResponse("n1", "n2", 3, 5, 0, True)
    ]
    assert log_terms(core) == [1, 1, 2, 2, 2, 3]
    assert not ready.persist  # nor is the entry that follows forgotten on disk
    # What the snapshot covers is committed: it is applied from the log, which is the same.
    assert ready.committed == entries([1, 1, 2, 2, 2])
    assert ready.restore is None


@pytest.mark.parametrize("log", [[], [1, 1], [1] * 5, [1] * 9])
def test_install_snapshot_rule_7_discards_the_log(log: list[int]) -> None:
    """Figure 13, receiver 7: "Discard the entire log"; §7: "the follower discards its entire log;
    it is all superseded by the snapshot and may possibly have uncommitted entries that conflict
    with the snapshot". On disk as well."""
    core = follower(log, term=3, vote="n3")
    core.step(chunk(b"all"))
    ready = core.ready()

    assert ready.persist == [Snapshot(5, 2, b"all"), HardState(3, "n3")]
    assert log_terms(core) == []
    assert core.status()["last_index"] == 5
    answer = answer_to_append(core, append_entries("n2", 3, prev=(5, 2), new=[3], commit=6))
    assert (answer.success, answer.match_index) == (True, 6)


def test_install_snapshot_rule_8_resets_the_state_machine() -> None:
    """Figure 13, receiver 8: "Reset state machine using snapshot contents". Only entries after it
    are applied from then on; what was committed and not handed over is part of it."""
    core = follower([1], term=3, committed=1)
    core.step(append_entries("n2", 3, prev=(1, 1), new=[3], commit=2))
    core.step(chunk(b"all"))
    core.step(append_entries("n2", 3, prev=(5, 2), new=[3], commit=6))
    ready = core.ready()

    assert ready.restore == Snapshot(5, 2, b"all")
    assert ready.committed == entries([3], first=6)
    assert "install_snapshot" in events(ready)
    assert core.status()["applied_index"] == 6


def test_a_snapshot_of_what_is_committed_here_changes_nothing() -> None:
    """§7: "If instead the follower receives a snapshot that describes a prefix of its log (due to
    retransmission or by mistake)", nothing is taken back; the leader is told that it is here."""
    core = follower([1, 1, 2, 2, 2, 2], term=3, committed=6)
    core.step(chunk(b"older", last=(5, 2)))
    ready = core.ready()

    assert of(ready, InstallSnapshotResponse) == [
        InstallSnapshotResponse("n1", "n2", 3, 5, 0, True)
    ]
    assert not ready.persist
    assert ready.restore is None
    assert core.status()["commit_index"] == 6


def test_chunks_out_of_order_and_repeated() -> None:
    """Figure 13 and §5.5: chunks are sent "in order", but the network repeats, loses and reorders
    them. Three chunks, each twice, in every order: no wrong state, and the answers lead there."""
    data = b"abcdef"
    parts = [chunk(data[at : at + 2], offset=at, done=at == 4) for at in (0, 2, 4)]
    for order in set(itertools.permutations([0, 0, 1, 1, 2, 2])):
        core = follower(term=3)
        restored = []
        wanted = 0
        for which in order:
            core.step(replace(parts[which]))
            ready = core.ready()
            restored += [ready.restore] if ready.restore else []
            (answer,) = of(ready, InstallSnapshotResponse)
            wanted = answer.offset
        while not answer.done:
            answer = answer_to_chunk_and_note(core, parts[wanted // 2], restored)
            wanted = answer.offset
        assert restored == [Snapshot(5, 2, data)], order


def answer_to_chunk_and_note(
    core: Raft, message: InstallSnapshot, restored: list[Snapshot]
) -> InstallSnapshotResponse:
    core.step(replace(message))
    ready = core.ready()
    restored += [ready.restore] if ready.restore else []
    return of(ready, InstallSnapshotResponse)[0]


def test_pieces_of_two_leaders_are_not_mixed() -> None:
    """§7: each server writes its own snapshot, so the bytes of two need not fit together, even of
    the same last included index."""
    core = follower(term=3)
    core.step(chunk(b"of n2", done=False))
    core.ready()
    answer = answer_to_chunk(core, chunk(b"-n3", offset=5, src="n3", term=4))
    assert (answer.offset, answer.done) == (0, False)
    core.step(chunk(b"of n3", src="n3", term=4))

    assert core.ready().restore == Snapshot(5, 2, b"of n3")


# ---- InstallSnapshot, sender --------------------------------------------------------------------


def compacted_leader(data: bytes = b"abcdefgh", size: int = 3) -> Raft:
    """n1 leads; its log begins after entry 4; n2 has everything, n3 was not heard of."""
    limits = Limits(kept_entries=0, snapshot_chunk_bytes=3)
    core = leader([1, 1, 1], limits=limits, size=size)
    accept(core, "n2")
    core.ready()
    core.compact(4, data)
    core.ready()
    return core


def test_the_leader_sends_a_snapshot_when_the_entry_is_gone() -> None:
    """§7: "the leader must occasionally send snapshots to followers that lag behind. This happens
    when the leader has already discarded the next log entry that it needs to send"; figure 13:
    chunks in order, "done: true if this is the last chunk". Then replication goes on."""
    core = compacted_leader()
    core.propose(b"x")
    core.ready()
    core.step(AppendEntriesResponse("n3", "n1", 2, False, 0, 3, 1, 0, 0))
    got, sent = b"", []
    for _ in range(4):
        ready = core.ready()
        for message in of(ready, InstallSnapshot):
            assert (message.dst, message.offset) == ("n3", len(got))
            assert (message.last_included_index, message.last_included_term) == (4, 2)
            sent.append(message)
            got += message.data
            offset = 0 if message.done else len(got)
            core.step(InstallSnapshotResponse("n3", "n1", 2, 4, offset, message.done))

    assert (got, [m.done for m in sent]) == (b"abcdefgh", [False, False, True])
    assert core.status()["peers"]["n3"]["match_index"] == 4
    (onward,) = of(ready, AppendEntries)
    assert (onward.dst, onward.prev_log_index, len(onward.entries)) == ("n3", 4, 1)


def test_a_lost_chunk_is_sent_again_and_a_repeated_answer_is_not_answered() -> None:
    """§7 with §5.5: "Raft handles these failures by retrying indefinitely": the chunk under way
    is repeated until answered; a repeated answer does not double the traffic."""
    core = compacted_leader()
    core.step(AppendEntriesResponse("n3", "n1", 2, False, 0, 3, 1, 0, 0))
    (first,) = of(core.ready(), InstallSnapshot)
    again: list[InstallSnapshot] = []
    for _ in range(3 * HEARTBEAT):  # lost: the same again
        core.tick()
        accept(core, "n2")
        again = of(core.ready(), InstallSnapshot)
        if again:
            break
    assert again == [first]
    answer = InstallSnapshotResponse("n3", "n1", 2, 4, 3, False)
    core.step(answer)
    assert [m.offset for m in of(core.ready(), InstallSnapshot)] == [3]
    core.step(answer)
    assert not of(core.ready(), InstallSnapshot)


def test_a_follower_far_behind_is_brought_up_by_chunks() -> None:
    """§7, end to end: n3 slept through more than the leader kept; it gets the snapshot in pieces
    and the rest as entries, and comes back from its own disk."""
    limits = Limits(kept_entries=0, snapshot_chunk_bytes=4)
    cluster = Cluster(3, limits=limits)
    cluster.elect("n1")
    cluster.deliver()
    cluster.isolate("n3")
    for i in range(6):
        cluster.cores["n1"].propose(b"%d" % i)
        cluster.deliver()
    cluster.cores["n1"].compact(5, b"0 1 2 3")
    cluster.cores["n1"].propose(b"after")
    cluster.deliver()
    cluster.heal()
    cluster.tick(6 * HEARTBEAT)

    assert [e.command for e in cluster.applied["n3"]] == [b"4", b"5", b"after"]
    assert cluster.cores["n3"].status()["snapshot_index"] == 5
    assert cluster.disks["n3"][0] == Snapshot(5, 1, b"0 1 2 3")
    assert log_terms(replayed(cluster.disks["n3"])) == [1, 1, 1]


def test_the_snapshot_under_way_is_not_exchanged_for_a_newer_one() -> None:
    """Figure 13: chunks of one snapshot make a state; the leader may compact again meanwhile."""
    core = compacted_leader()
    core.step(AppendEntriesResponse("n3", "n1", 2, False, 0, 3, 1, 0, 0))
    core.propose(b"x")
    assert [m.offset for m in of(core.ready(), InstallSnapshot)] == [0]
    accept(core, "n2")
    core.ready()
    core.compact(5, b"ABCDEFGH")
    core.step(InstallSnapshotResponse("n3", "n1", 2, 4, 3, False))
    (second,) = of(core.ready(), InstallSnapshot)

    assert (second.data, second.last_included_index) == (b"def", 4)


def test_entries_kept_behind_the_snapshot_spare_a_follower_the_snapshot() -> None:
    """§7: a follower "keeping up" gets entries; `kept_entries` holds some back for one that is a
    little late."""
    core = established([1, 1, 1], limits=Limits(kept_entries=2))
    index, _ = core.propose(b"x")
    core.ready()
    accept(core, "n2")
    core.ready()
    core.compact(index, b"state")
    core.step(AppendEntriesResponse("n3", "n1", 2, False, 0, index, index, 0, 1))
    (message,) = core.ready().messages

    assert isinstance(message, AppendEntries)
    assert (message.dst, message.entries) == ("n3", [Entry(index, 2, b"x")])
