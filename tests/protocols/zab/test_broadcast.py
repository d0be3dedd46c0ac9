"""Phase 3 (DSN 2011 §IV), reads, and what is bounded."""

from __future__ import annotations

import pytest

from services.protocols.core import Busy, NotLeader, ReadGrant, ReadRefusal
from services.protocols.zab import Limits
from services.protocols.zab.messages import Ack, Commit, Epochs, Ping, Pong, Propose, Zxid
from tests.protocols.zab.helpers import (
    ELECTION,
    HEARTBEAT,
    Ensemble,
    accepted,
    entries,
    epochs_of,
    established,
    events,
    following,
    node,
    of,
    tick,
)


def ack(src: str, counter: int, *, epoch: int = 2, gap: bool = False) -> Ack:
    return Ack(src, "n1", epoch, counter, gap)


def propose(epochs: list[int], *, after: tuple[int, int], epoch: int = 5) -> Propose:
    return Propose("n2", "n1", epoch, Zxid(*after), entries(epochs, first=after[1] + 1))


# ---- the leader ---------------------------------------------------------------------------------


def test_proposals_have_the_leaders_epoch_and_counters_in_order() -> None:
    """Step l.3.1: in increasing order of zxid, epoch(z) = e'."""
    core = established([1])

    assert [core.propose(command) for command in (b"a", b"b", b"c")] == [(2, 2), (3, 2), (4, 2)]
    for message in of(core.ready(), Propose):
        assert message.prev == Zxid(1, 1)
        assert [(e.index, e.term, e.command) for e in message.entries] == [
            (2, 2, b"a"),
            (3, 2, b"b"),
            (4, 2, b"c"),
        ]


def test_a_proposal_is_committed_by_a_quorum() -> None:
    """Step l.3.2: upon acknowledgements from a quorum, COMMIT to all followers."""
    core = established(size=5)
    core.propose(b"a")
    core.ready()
    core.step(ack("n2", 1, epoch=1))
    assert not core.ready().committed
    core.step(ack("n3", 1, epoch=1))

    ready = core.ready()
    assert [e.command for e in ready.committed] == [b"a"]
    assert {(m.dst, m.counter) for m in of(ready, Commit)} == {(p, 1) for p in core.peers}


def test_acknowledgements_of_another_epoch_are_ignored() -> None:
    """Messages of the past: they were for the same counters, not for the same zxids."""
    core = established([1])
    core.propose(b"a")
    core.ready()
    core.step(ack("n2", 2, epoch=1))

    assert not core.ready()


def test_a_gap_is_filled_once() -> None:
    """Departure: without FIFO channels what was lost is sent again, once for each gap."""
    core = established([], limits=Limits(entries_per_message=1))
    for command in (b"a", b"b", b"c"):
        core.propose(command)
    core.ready()
    core.step(ack("n2", 1, epoch=1, gap=True))
    assert [m.prev.counter for m in of(core.ready(), Propose, "n2")] == [1, 2]
    core.step(ack("n2", 1, epoch=1, gap=True))

    assert not of(core.ready(), Propose)


def test_a_lost_end_is_found_by_a_ping() -> None:
    """Nothing follows that could show a gap; the answer to a ping does."""
    core = established([])
    core.propose(b"a")
    core.ready()
    tick(core, HEARTBEAT)
    (ping,) = of(core.ready(), Ping, "n2")
    core.step(Pong("n2", "n1", 1, ping.round, 0))

    assert [m.entries[0].command for m in of(core.ready(), Propose, "n2")] == [b"a"]


def test_a_leader_without_a_quorum_returns_to_the_election() -> None:
    """§IV: it neither keeps its clients waiting, nor reads."""
    core = established([1], size=5)
    core.read(7)
    core.ready()
    for _ in range(ELECTION):
        core.step(Pong("n2", "n1", core.accepted_epoch, 1, 1))
        core.tick()

    ready = core.ready()
    assert "step_down" in events(ready)
    assert ready.reads == [ReadRefusal(7, None)]
    with pytest.raises(NotLeader):
        core.propose(b"x")


def test_only_proposals_go_out_before_the_write() -> None:
    """Ready.early: they say nothing of this node's own disk."""
    core = established([])
    core.propose(b"a")
    core.read(1)
    ready = core.ready()

    assert [type(m) for m in ready.messages[: ready.early]] == [Propose, Propose]
    assert not any(isinstance(m, Propose) for m in ready.messages[ready.early :])


def test_nothing_goes_out_early_while_an_epoch_is_unwritten() -> None:
    """Or the leader could forget that it led the epoch, lead it again, and reuse its zxids."""
    core = node(size=1)
    core.tick()
    core.propose(b"a")
    ready = core.ready()

    assert Epochs(1, 1) in ready.persist
    assert ready.early == 0


def test_what_is_uncommitted_is_bounded() -> None:
    """Busy is definite: nothing was appended."""
    core = established([], limits=Limits(uncommitted_bytes=3))
    core.propose(b"ab")
    with pytest.raises(Busy):
        core.propose(b"cd")
    assert core.history.last_index == 1


def test_the_window_of_proposals_is_bounded() -> None:
    """Per follower, by messages."""
    core = established([], limits=Limits(entries_per_message=1, messages_in_flight=2))
    for command in (b"a", b"b", b"c"):
        core.propose(command)
    assert len(of(core.ready(), Propose, "n2")) == 2
    core.step(ack("n2", 1, epoch=1))
    assert [m.prev.counter for m in of(core.ready(), Propose, "n2")] == [2]


# ---- the follower -------------------------------------------------------------------------------


def test_proposals_are_accepted_and_acknowledged() -> None:
    """Step f.3.2: append, on disk before the acknowledgement leaves; one for all that came."""
    core = accepted([1], epoch=5)
    core.step(propose([5], after=(1, 1)))
    core.step(propose([5], after=(5, 2)))

    ready = core.ready()
    assert ready.persist == entries([5, 5], first=2)
    assert of(ready, Ack) == [Ack("n1", "n2", 5, 3, False)]
    assert ready.early == 0


def test_proposals_are_accepted_in_order_only() -> None:
    """Step f.3.2: what comes before its predecessor is not accepted, and the leader is told."""
    core = accepted([1], epoch=5)
    core.step(propose([5], after=(5, 2)))

    ready = core.ready()
    assert not ready.persist
    assert of(ready, Ack) == [Ack("n1", "n2", 5, 1, True)]


def test_a_repeated_proposal_changes_nothing() -> None:
    """It came late or twice: what follows it was acknowledged since."""
    core = accepted([1], epoch=5)
    core.step(propose([5, 5], after=(1, 1)))
    core.ready()
    core.step(propose([5], after=(1, 1)))

    assert not core.ready().persist
    assert epochs_of(core) == [1, 5, 5]


def test_proposals_count_only_after_new_leader() -> None:
    """An acknowledgement in e' from a node whose currentEpoch is older would not protect it."""
    core = following([1])
    core.step(propose([5], after=(1, 1)))

    assert not core.ready()


def test_commits_are_delivered_in_order_and_not_beyond_the_history() -> None:
    """Step f.3.3: only when all transactions before it are committed."""
    core = accepted([1], epoch=5)
    core.step(propose([5], after=(1, 1)))
    core.step(Commit("n2", "n1", 5, 9))
    assert core.ready().committed == entries([1, 5])
    core.step(propose([5], after=(5, 2)))
    core.step(Ping("n2", "n1", 5, 4, 9))

    ready = core.ready()
    assert ready.committed == entries([5], first=3)
    assert of(ready, Pong) == [Pong("n1", "n2", 5, 4, 3)]


# ---- reads --------------------------------------------------------------------------------------


def test_a_read_waits_for_a_quorum_to_answer_a_later_round() -> None:
    """reads.py: each of them followed this leader after the read was asked for."""
    core = established([1], size=5)
    tick(core, HEARTBEAT)
    core.ready()
    core.read(7)
    (ping,) = of(core.ready(), Ping, "n2")
    for src in ("n2", "n3", "n4"):
        core.step(Pong(src, "n1", 2, ping.round - 1, 1))
    assert not core.ready().reads, "these answered what was asked before"
    core.step(Pong("n2", "n1", 2, ping.round, 1))
    assert not core.ready().reads
    core.step(Pong("n3", "n1", 2, ping.round, 1))

    assert core.ready().reads == [ReadGrant(7, 1)]


def test_one_round_serves_all_reads_that_wait() -> None:
    """While it is out, later ones gather for the next."""
    core = established([1])
    core.read(1)
    core.read(2, lease=True)
    (first,) = of(core.ready(), Ping, "n2")
    core.read(3)
    assert not of(core.ready(), Ping)
    core.step(Pong("n2", "n1", 2, first.round, 1))
    ready = core.ready()
    assert ready.reads == [ReadGrant(1, 1), ReadGrant(2, 1)]
    assert of(ready, Ping, "n2")[0].round == first.round + 1, "for read 3"


def test_a_follower_does_not_read() -> None:
    """It may be behind; its reads are `local` ones, which the service serves without the core."""
    core = accepted([1], epoch=5)
    core.step(Ping("n2", "n1", 5, 1, 1))
    with pytest.raises(NotLeader) as refused:
        core.read(1)
    assert refused.value.leader == "n2"


def test_waiting_reads_are_bounded() -> None:
    """Busy."""
    core = established([], limits=Limits(waiting_reads=1))
    core.read(1)
    with pytest.raises(Busy):
        core.read(2)


def test_a_deposed_leader_does_not_read() -> None:
    """The others have elected a new one, which has committed more; the old one does not know."""
    ensemble = Ensemble(3)
    old = ensemble.leader()
    ensemble.isolate(old)
    others = [name for name in ensemble.names if name != old]
    ensemble.cores[old].read(1)
    new = ensemble.until(
        lambda: next((name for name in others if ensemble.cores[name].leads()), None)
    )
    ensemble.cores[new].propose(b"x")
    ensemble.tick()

    assert all(isinstance(answer, ReadRefusal) for answer in ensemble.reads[old])


# ---- the whole ----------------------------------------------------------------------------------


def test_one_node_is_an_ensemble() -> None:
    """A quorum of one."""
    core = node(size=1)
    core.tick()
    core.propose(b"a")
    core.read(1)
    ready = core.ready()

    assert [e.command for e in ready.committed] == [b"a"]
    assert ready.reads == [ReadGrant(1, 1)]


def test_a_crashed_leader_comes_back_with_what_it_had() -> None:
    """§IV: recovery. Its records are all it needs."""
    ensemble = Ensemble(3)
    old = ensemble.leader()
    ensemble.cores[old].propose(b"a")
    ensemble.tick()
    ensemble.crash(old)
    new = ensemble.leader()
    ensemble.cores[new].propose(b"b")
    ensemble.tick()
    ensemble.start(old)
    ensemble.until(lambda: len(ensemble.applied[old]) == 2)

    assert [e.command for e in ensemble.applied[old]] == [b"a", b"b"]
    assert ensemble.leader() == new


@pytest.mark.parametrize(
    "wrong",
    [
        {"peers": ("n1",)},
        {"peers": ("n2", "n2")},
        {"heartbeat_ticks": 11},
        {"heartbeat_ticks": 0},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    """ValueError, with what is wrong."""
    given = {"peers": ("n2", "n3"), "election_ticks": 20, "heartbeat_ticks": 3, **wrong}
    peers = given.pop("peers")
    with pytest.raises(ValueError, match=r"peers|heartbeat_ticks"):
        type(node())("n1", peers, random=node().random, **given)
