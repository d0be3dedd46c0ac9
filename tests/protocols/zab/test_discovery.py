"""Phase 1 (DSN 2011 §IV): CEPOCH, NEWEPOCH, ACK-E. Each test names its step."""

from __future__ import annotations

from services.protocols.zab.messages import AckEpoch, CEpoch, Diff, Epochs, NewEpoch, Zxid
from tests.protocols.zab.helpers import (
    ELECTION,
    accepted,
    ack_epoch,
    established,
    events,
    following,
    joins,
    node,
    of,
    prospective,
    synchronising,
    tick,
)


def test_a_follower_tells_the_prospective_leader_its_last_promise() -> None:
    """Step f.1.1: CEPOCH(f.p)."""
    core = node([1, 2], accepted=7)
    core.follow("n2")

    assert of(core.ready(), CEpoch) == [CEpoch("n1", "n2", 7)]


def test_cepoch_is_said_again_until_it_is_answered() -> None:
    """Departure: messages may be lost, and the leader may not know yet that it is elected."""
    core = following([1])
    tick(core, 9)
    assert len(of(core.ready(), CEpoch)) == 3
    core.step(NewEpoch("n2", "n1", 5))
    core.ready()
    tick(core, 9)
    assert not of(core.ready(), CEpoch)


def test_the_new_epoch_is_later_than_any_that_a_quorum_promised() -> None:
    """Step l.1.1: after CEPOCH of a quorum, NEWEPOCH, later than each epoch in them."""
    core = prospective([1], accepted=3, size=5)
    assert not of(joins(core, "n2", promised=9), NewEpoch), "two of five are no quorum"
    ready = joins(core, "n3", promised=5)

    assert {(m.dst, m.epoch) for m in of(ready, NewEpoch)} == {("n2", 10), ("n3", 10)}
    assert ready.persist == [Epochs(10, 1)], "the leader's own promise"


def test_the_leader_promises_on_disk_before_it_asks() -> None:
    """Or it opens the same epoch again after a crash, and gives its zxids to other transactions."""
    core = prospective([1])
    ready = joins(core, "n2", promised=1)

    assert ready.persist == [Epochs(2, 1)]
    assert ready.early == 0
    again = node([1], accepted=2, current=1)
    again.lead()
    assert of(joins(again, "n2", promised=1), NewEpoch)[0].epoch == 3


def test_a_follower_promises_a_later_epoch_only() -> None:
    """Step f.1.2: if f.p < e', f.p ← e', and ACK-E(f.a, h)."""
    core = following([1, 1, 2], accepted=4)
    core.step(NewEpoch("n2", "n1", 3))
    assert not core.ready(), "older than its promise"
    core.step(NewEpoch("n2", "n1", 5))

    ready = core.ready()
    assert ready.persist == [Epochs(5, 2)]
    ends = [Zxid(1, 2), Zxid(2, 3)]
    assert of(ready, AckEpoch) == [AckEpoch("n1", "n2", 5, True, 2, ends)]


def test_a_repeated_new_epoch_is_answered_again() -> None:
    """Departure: the first answer may be lost; the promise stands as long as it is remembered."""
    core = synchronising([1], epoch=5)
    core.step(NewEpoch("n2", "n1", 5))

    ready = core.ready()
    assert not ready.persist
    assert [m.promised for m in of(ready, AckEpoch)] == [True]


def test_a_promise_given_before_a_crash_is_not_given_again() -> None:
    """Step f.1.2, f.p < e' is strict: it may have been given to another. But it wants to be brought
    up to date."""
    core = following([1], accepted=5)
    core.step(NewEpoch("n2", "n1", 5))

    assert [m.promised for m in of(core.ready(), AckEpoch)] == [False]


def test_new_epoch_of_somebody_else_is_ignored() -> None:
    """A follower follows one prospective leader."""
    core = following([1])
    core.step(NewEpoch("n3", "n1", 5))

    assert not core.ready()


def test_discovery_ends_with_the_promises_of_a_quorum() -> None:
    """Step l.1.2: ACK-E from each follower in Q."""
    core = prospective([1], size=5)
    joins(core, "n2", "n3")
    ack_epoch(core, "n2")
    assert core.status()["phase"] == "discovery"
    ack_epoch(core, "n3")
    assert core.status()["phase"] == "synchronisation"


def test_who_gives_no_promise_is_not_counted() -> None:
    """Two leaders might get beyond discovery with the same epoch."""
    core = prospective([1], size=5)
    joins(core, "n2", "n3", "n4")
    ack_epoch(core, "n2")
    ack_epoch(core, "n3", promised=False)
    assert core.status()["phase"] == "discovery"
    ack_epoch(core, "n4")
    assert core.status()["phase"] == "synchronisation"


def test_the_initial_history_is_the_most_recent_of_the_quorum() -> None:
    """Step l.1.2: f.a first, then the last zxid. Here it must be the leader's own: who is ahead of
    it is not counted."""
    for current, last in ((2, (1, 1)), (1, (1, 3))):
        core = prospective([1, 1], size=5)
        joins(core, "n2", "n3", "n4")
        ack_epoch(core, "n2")
        ack_epoch(core, "n3", current=current, ends=[last])
        assert core.status()["phase"] == "discovery", (current, last)
        ack_epoch(core, "n4")
        assert core.status()["phase"] == "synchronisation", (current, last)


def test_a_leader_that_cannot_do_without_a_more_recent_history_looks_again() -> None:
    """Departure: it does not fetch that history; the election finds who has it."""
    core = prospective([1])
    joins(core, "n2", "n3")
    ack_epoch(core, "n2", current=1, ends=[(1, 2)])
    ready = ack_epoch(core, "n3", current=1, ends=[(1, 2)])

    assert "step_down" in events(ready)
    assert core.status()["role"] == "looking"


def test_a_leader_without_a_quorum_of_promises_looks_again() -> None:
    """§IV: without a quorum, back to the election."""
    core = prospective([1])
    for _ in range(4 * ELECTION):
        core.step(CEpoch("n2", "n1", 1))
        core.tick()
    assert core.status()["role"] == "looking"


def test_a_follower_that_joins_later_is_asked_for_the_same_epoch() -> None:
    """Step l.3.3: CEPOCH in phase 3 is answered with NEWEPOCH(e')."""
    core = established([1], size=5)
    ready = joins(core, "n5", promised=0)

    assert [(m.dst, m.epoch) for m in of(ready, NewEpoch)] == [("n5", core.accepted_epoch)]
    assert core.leads()


def test_a_leader_that_meets_a_later_promise_resigns() -> None:
    """Departure: that follower could never follow this epoch."""
    core = established([1])
    epoch = core.accepted_epoch
    ready = joins(core, "n3", promised=epoch + 1)

    assert "step_down" in events(ready)
    assert core.status()["role"] == "looking"


def test_messages_of_an_epoch_older_than_the_promise_are_ignored() -> None:
    """Step f.1.2 is a promise: nothing of an earlier epoch is accepted from there on."""
    core = accepted([1], epoch=2)
    core.step(NewEpoch("n2", "n1", 4))
    core.ready()
    core.step(Diff("n2", "n1", 2, Zxid(1, 1), []))

    assert not core.ready()
