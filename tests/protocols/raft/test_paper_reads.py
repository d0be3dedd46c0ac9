"""The extended Raft paper on read-only operations: §8, and dissertation §6.4 for the steps."""

from __future__ import annotations

import pytest

from services.protocols.core import Busy, NotLeader, ReadGrant, ReadRefusal
from services.protocols.raft import Limits
from services.protocols.raft.messages import AppendEntries, AppendEntriesResponse
from tests.protocols.raft.helpers import (
    HEARTBEAT,
    Cluster,
    accept,
    append_entries,
    established,
    follower,
    leader,
    of,
    replayed,
    tick,
)


def test_a_read_waits_for_the_no_op() -> None:
    """§8: "a leader must have the latest information on which entries are committed … at the start
    of its term, it may not know which those are. To find out, it needs to commit an entry from its
    term"."""
    core = leader([1, 1], size=3)
    core.read(7)
    accept(core, "n2", match=2)
    for _ in range(2 * HEARTBEAT):
        core.tick()
        ready = core.ready()
        assert not ready.reads
        for message in of(ready, AppendEntries, "n2"):
            accept(core, "n2", match=2, round=message.round)
    assert not core.ready().reads
    accept(core, "n2", match=3)
    core.ready()
    accept(core, "n2", match=3)

    assert core.ready().reads == [ReadGrant(7, 3)]


@pytest.mark.parametrize(("size", "needed"), [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_read_exchanges_heartbeats_with_a_majority(size: int, needed: int) -> None:
    """§8: "a leader must check whether it has been deposed before processing a read-only request …
    Raft handles this by having the leader exchange heartbeat messages with a majority of the
    cluster before responding to read-only requests"."""
    core = established(size=size)
    core.read(1)
    ready = core.ready()
    assert not ready.reads
    assert [m.dst for m in of(ready, AppendEntries)] == list(core.peers)
    for peer in core.peers[: needed - 1]:
        accept(core, peer)
        accept(core, peer)
    assert not core.ready().reads
    accept(core, core.peers[needed - 1])

    assert core.ready().reads == [ReadGrant(1, 1)]


def test_an_answer_from_before_the_read_does_not_count() -> None:
    """Dissertation §6.4: the leader "issues a new round of heartbeats" after the read was asked
    for. An answer to an older one, late on its way, says nothing about now."""
    core = established()
    tick(core, HEARTBEAT)
    (old,) = of(core.ready(), AppendEntries, "n2")
    core.read(1)
    (new,) = of(core.ready(), AppendEntries, "n2")
    assert new.round > old.round
    accept(core, "n2", round=old.round)
    assert not core.ready().reads
    accept(core, "n2", round=new.round)
    assert core.ready().reads == [ReadGrant(1, 1)]


def test_a_read_asked_while_a_round_is_out_waits_for_the_next() -> None:
    """Dissertation §6.4: the commit index is saved, then the round issued: a read that came after
    the round began is not proved by it. One round serves all reads that waited."""
    core = established()
    core.read(1)
    (first,) = of(core.ready(), AppendEntries, "n2")
    core.read(2)
    core.read(3)
    core.ready()
    accept(core, "n2", round=first.round)
    ready = core.ready()
    assert ready.reads == [ReadGrant(1, 1)]
    (second,) = of(ready, AppendEntries, "n2")
    accept(core, "n2", round=second.round)

    assert core.ready().reads == [ReadGrant(2, 1), ReadGrant(3, 1)]


def test_the_read_index_is_the_commit_index_when_asked() -> None:
    """Dissertation §6.4: "The leader saves its current commit index in a local variable readIndex.
    This will be used as a lower bound for the version of the state that the query operates
    against": all that was answered before the read is in it."""
    core = established()
    index, _ = core.propose(b"x")
    core.ready()
    accept(core, "n2")
    core.read(1)
    core.ready()
    accept(core, "n2")

    (grant,) = core.ready().reads
    assert isinstance(grant, ReadGrant)
    assert grant.index == index


def test_a_deposed_leader_serves_no_read() -> None:
    """§8: "a more recent leader" may have been elected: the read is refused, with the leader if it
    is known, and never granted by late answers."""
    core = established()
    core.read(1)
    (beat,) = of(core.ready(), AppendEntries, "n2")
    core.read(2)
    core.step(append_entries("n3", 9, prev=(1, 1)))
    assert core.ready().reads == [ReadRefusal(1, "n3"), ReadRefusal(2, "n3")]
    core.step(AppendEntriesResponse("n2", "n1", 1, True, 1, 1, 0, 0, beat.round))
    assert not core.ready().reads
    with pytest.raises(NotLeader) as refused:
        core.read(3)
    assert refused.value.leader == "n3"


def test_a_leader_cut_off_does_not_read_stale_data() -> None:
    """§8: linearizability: a write through the new leader is answered; the old one, which does not
    know, must not answer a read any more."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.deliver()
    cluster.isolate("n1")
    old = cluster.cores.pop("n1")  # its clock stands still meanwhile
    cluster.elect("n2")
    cluster.deliver()
    cluster.cores["n2"].propose(b"new")
    cluster.deliver()
    assert [e.command for e in cluster.applied["n2"]] == [b"new"]

    cluster.cores["n1"] = old
    old.read(1)
    cluster.tick(HEARTBEAT)
    assert sorted(cluster.leaders()) == ["n1", "n2"]
    assert cluster.reads["n1"] == []
    cluster.heal()
    cluster.tick(2 * HEARTBEAT)
    assert [r for r in cluster.reads["n1"] if isinstance(r, ReadGrant)] == []
    assert [r.read_id for r in cluster.reads["n1"]] == [1]


def test_a_lost_round_is_made_good_by_the_next_heartbeat() -> None:
    """§8 with §5.5: the read's heartbeats may be lost; later ones prove as much and more."""
    core = established()
    core.read(1)
    core.ready()  # lost
    tick(core, HEARTBEAT)
    (later,) = of(core.ready(), AppendEntries, "n3")
    accept(core, "n3", round=later.round)

    assert core.ready().reads == [ReadGrant(1, 1)]


def test_a_read_writes_nothing() -> None:
    """§8: "Read-only operations can be handled without writing anything into the log." """
    core = established()
    core.read(1)
    ready = core.ready()
    accept(core, "n2")
    granted = core.ready()

    assert granted.reads
    assert not ready.persist
    assert not granted.persist
    assert core.status()["last_index"] == 1


def test_a_server_alone_reads_by_itself() -> None:
    """§8: it is its own majority."""
    core = replayed([], size=1)
    tick(core, 40)
    core.ready()
    core.read(1)

    assert core.ready().reads == [ReadGrant(1, 1)]


def test_followers_refuse_reads() -> None:
    """§8: "Clients of Raft send all of their requests to the leader." Others name it."""
    with pytest.raises(NotLeader) as refused:
        follower(leader="n2").read(1)
    assert refused.value.leader == "n2"
    with pytest.raises(NotLeader) as refused:
        follower().read(1)
    assert refused.value.leader is None


def test_waiting_reads_are_bounded() -> None:
    """A leader that cannot reach a majority must not gather reads without end: Busy, definite."""
    core = established(limits=Limits(waiting_reads=2))
    core.read(1)
    core.ready()
    core.read(2)
    with pytest.raises(Busy):
        core.read(3)
    accept(core, "n2")
    core.ready()
    core.read(4)


def test_a_refusal_in_this_term_proves_leadership_too() -> None:
    """§8 needs the follower to recognise the leader, not to match its log."""
    core = established()
    core.read(1)
    (beat,) = of(core.ready(), AppendEntries, "n2")
    answer = AppendEntriesResponse("n2", "n1", 1, False, 0, 1, 1, 0, beat.round)
    core.step(answer)

    assert core.ready().reads == [ReadGrant(1, 1)]
