"""The delivery core by hand: one sentence of its promises each."""

from __future__ import annotations

import pytest

from services.protocols.delivery import DeliveryCore, Guarantee, Record


def make(guarantee: Guarantee = "at_least_once", **settings: float) -> DeliveryCore:
    core = DeliveryCore(guarantee, backoff_s=lambda attempts: 0.1 * attempts, **settings)  # type: ignore[arg-type]
    core.assigned("p", 0.0)
    return core


def commits(core: DeliveryCore, now: float = 0) -> dict[str, int]:
    """What is to be committed now, by partition."""
    return {commit.partition: commit.offset for commit in core.ready(now).commits}


def records(*keys: str | None, first: int = 0) -> list[Record]:
    return [Record("p", first + at, f"m{first + at}", key) for at, key in enumerate(keys)]


def test_a_commit_reaches_up_to_the_first_record_that_is_not_finished() -> None:
    """'Everything before this offset is dealt with': 0 is still under way, so nothing is."""
    core = make()
    core.received(records("a", "b", "c"))
    a, b, c = core.ready(0).batches
    core.finished(b.number, ["applied"], 0)
    core.finished(c.number, ["applied"], 0)
    assert commits(core) == {}

    core.finished(a.number, ["applied"], 0)
    assert commits(core) == {"p": 3}
    assert commits(core) == {}, "asked for once"


def test_offsets_with_gaps_are_no_obstacle() -> None:
    """A compacted topic, or the markers of transactions, leave offsets out."""
    core = make()
    core.received([Record("p", 3, "m3", "a"), Record("p", 9, "m9", "b")])
    for batch in core.ready(0).batches:
        core.finished(batch.number, ["applied"], 0)

    assert commits(core) == {"p": 10}


def test_at_most_once_commits_before_it_processes() -> None:
    """Nothing is processed before its commit has been made."""
    core = make("at_most_once")
    core.received(records("a", "b"))
    first = core.ready(0)
    assert [commit.offset for commit in first.commits] == [2]
    assert first.batches == []

    core.committed(first.commits[0], 0)
    batches = core.ready(0).batches
    assert [batch.records[0].id for batch in batches] == ["m0", "m1"]
    core.finished(batches[0].number, ["unavailable"], 0)
    assert core.wake_at() is None, "it may have taken place: there is no second attempt"


def test_records_of_one_key_wait_for_the_first_of_them_and_others_do_not() -> None:
    """While a record waits for its next attempt, so does its key, and only its key."""
    core = make(attempts_max=3, batch_max=10)
    core.received(records("a", "a", "b"))
    a, b = core.ready(0).batches
    assert [len(a.records), len(b.records)] == [2, 1]
    core.finished(a.number, ["failed"], 0)
    core.finished(b.number, ["applied"], 0)
    assert core.ready(0.05).batches == []
    assert core.wake_at() == pytest.approx(0.1)

    (again,) = core.ready(0.1).batches
    assert [record.id for record in again.records] == ["m0"], "alone: what follows waits for it"


def test_a_record_that_fails_too_often_becomes_a_dead_letter_and_is_then_dealt_with() -> None:
    """Its key goes on once the dead letter is where it belongs, and not before."""
    core = make(attempts_max=2)
    core.received(records("a", "a"))
    for now in (0.0, 1.0):
        (batch,) = core.ready(now).batches
        core.finished(batch.number, ["failed"], now)
    ready = core.ready(2.0)
    (dead,) = ready.dead_letters
    assert (dead.record.id, dead.reason, dead.attempts) == ("m0", "failed", 2)
    assert not ready.batches
    assert not ready.commits

    core.dead_lettered(dead.record, False, 2.0)
    assert not core.ready(2.0).dead_letters, "after a pause only"
    (dead,) = core.ready(3.0).dead_letters
    core.dead_lettered(dead.record, True, 3.0)
    ready = core.ready(3.0)
    assert [commit.offset for commit in ready.commits] == [1]
    assert [record.id for record in ready.batches[0].records] == ["m1"]


def test_poison_is_not_tried_again() -> None:
    """What can never succeed is put aside at once, and what came before it in the batch counts."""
    core = make()
    core.received(records("a", "a", "a"))
    (batch,) = core.ready(0).batches
    core.finished(batch.number, ["applied", "rejected"], 0)
    ready = core.ready(0)

    assert [commit.offset for commit in ready.commits] == [1]
    assert [dead.record.id for dead in ready.dead_letters] == ["m1"]


def test_a_sink_that_is_down_makes_no_dead_letters() -> None:
    """A database that is down for a minute must not turn the whole backlog into dead letters."""
    core = make(attempts_max=2)
    core.received(records("a"))
    for now in range(20):
        ready = core.ready(now * 10)
        assert not ready.dead_letters
        core.finished(ready.batches[0].number, ["unavailable"], now * 10)


def test_too_many_records_pause_the_source_until_half_are_done() -> None:
    """Bounded work in flight."""
    core = make(in_flight_max=4)
    core.received(records("a", "b", "c", "d"))
    ready = core.ready(0)
    assert ready.pause is True
    core.finished(ready.batches[0].number, ["applied"], 0)
    assert core.ready(0).pause is None
    core.finished(ready.batches[1].number, ["applied"], 0)
    assert core.ready(0).pause is False


def test_what_an_earlier_assignment_reports_is_nobodys() -> None:
    """A partition that is taken away and given back starts again where it was committed."""
    core = make()
    core.received(records("a", "b"))
    late, _ = core.ready(0).batches
    core.forget("p")
    core.assigned("p", 1)
    core.received(records("a", "b"))
    core.finished(late.number, ["applied"], 1)

    assert commits(core, 1) == {}
    assert core.in_flight == 2


def test_a_late_failure_of_an_old_commit_lets_no_second_one_out() -> None:
    """Two commits under way at once could arrive in the wrong order (found by the simulation)."""
    core = make()
    core.received(records("a"))
    core.finished(core.ready(0).batches[0].number, ["applied"], 0)
    (old,) = core.ready(0).commits
    core.forget("p")
    core.assigned("p", 1)
    core.received(records("a", "b"))
    for batch in core.ready(1).batches:
        core.finished(batch.number, ["applied"], 1)
    assert commits(core, 1) == {"p": 2}
    core.commit_failed(old, 1)

    assert commits(core, 2) == {}


def test_draining_finishes_what_is_under_way_and_starts_nothing() -> None:
    """A graceful stop: the next owner begins where this one ended."""
    core = make(commit_interval_s=60)
    core.received(records("a"))
    (batch,) = core.ready(0).batches
    core.received(records("b", first=1))
    core.drain("p")
    assert core.ready(0).batches == []
    assert not core.idle("p")
    core.finished(batch.number, ["applied"], 0)
    (commit,) = core.ready(0).commits
    assert commit.offset == 1, "at once: the interval no longer matters"
    core.committed(commit, 0)
    assert core.idle("p")


def test_draining_finishes_what_lies_below_a_record_that_is_done() -> None:
    """b is done, a below it failed and waits: to leave a out keeps the commit below b, and the next
    owner does b once more. c, which nobody has begun, is left to it."""
    core = make(commit_interval_s=60)
    core.received(records("a", "b"))
    one, other = core.ready(0).batches
    core.finished(other.number, ["applied"], 0)
    core.finished(one.number, ["unavailable"], 0)
    core.received(records("c", first=2))
    core.drain("p")
    assert not core.idle("p")
    (again,) = core.ready(10).batches
    assert [record.id for record in again.records] == ["m0"]
    core.finished(again.number, ["applied"], 10)
    (commit,) = core.ready(10).commits
    assert commit.offset == 2
    core.committed(commit, 10)
    assert core.idle("p")
    assert core.ready(99).batches == []


def test_a_transaction_takes_whole_runs_of_a_partition_and_commits_them_itself() -> None:
    """All or nothing: one batch in order, whatever the keys, with the offset to commit."""
    core = make("transactional", batch_max=2)
    core.received(records("a", "b", None))
    (batch,) = core.ready(0).batches
    assert [record.id for record in batch.records] == ["m0", "m1"]
    assert batch.commit == 2
    core.finished(batch.number, ["unavailable"], 0)
    (again,) = core.ready(1).batches
    assert again.records == batch.records
    core.finished(again.number, ["applied", "rejected"], 1)
    ready = core.ready(1)
    assert ready.commits == []
    assert [record.id for record in ready.batches[0].records] == ["m2"]
