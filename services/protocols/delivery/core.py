"""Decides what to do with each record: process, retry, dead-letter; and what to commit.

Where the commit stands is all there is to delivery guarantees (Kafka's documentation, "Message
Delivery Semantics"; Kleppmann, Designing Data-Intensive Applications, chapter 11):

- *at most once* commits a record before it is processed. A crash between the two loses it.
- *at least once* commits it afterwards. A crash between the two has it processed again.
- *effectively once* is at least once with an effect that knows the record's id and takes place with
  it in one atomic step: the second time it is a duplicate and changes nothing.
- *transactional* has the commit itself in that atomic step.

**What may be committed.** Records finish in any order, for those of different keys are processed
side by side. A commit says "everything before this offset is dealt with", so it may only reach up
to the first record that is not. To commit the highest finished offset loses what was still under
way below it, once in a thousand crashes: the mistake that this module exists to rule out.

**What stays in order.** Records of one key form a *lane*: one batch of it is under way at a time,
and while its first record waits for another attempt the lane waits with it. Other lanes go on.

**Who is asked what.** A partition that is taken away and given back is another assignment: what its
earlier batches report belongs to nobody any more, and must not move the commit of the new one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from services.protocols.delivery.assignment import Assignment, Lane
from services.protocols.delivery.model import (
    Batch,
    Commit,
    DeadLetter,
    Guarantee,
    Outcome,
    Ready,
    Record,
)

DONE: frozenset[Outcome] = frozenset({"applied", "duplicate"})


class DeliveryCore:
    """See the module. To be told of everything that happens, and asked what is `ready`.

    Args:
        guarantee: what a crash may do to a record.
        in_flight_max: records held at a time; over it the source is paused, below half it goes on.
        batch_max: records in a batch.
        attempts_max: attempts of a record that fails by its own fault, before it is a dead letter.
        commit_interval_s: how long finished records may wait for a common commit.
        backoff_s: how long to wait before attempt n + 1, given n.

    Times are seconds of one clock that never runs backwards.
    """

    def __init__(
        self,
        guarantee: Guarantee,
        *,
        backoff_s: Callable[[int], float],
        in_flight_max: int = 1_000,
        batch_max: int = 100,
        attempts_max: int = 5,
        commit_interval_s: float = 0.0,
    ) -> None:
        assert in_flight_max >= 1, in_flight_max
        assert batch_max >= 1, batch_max
        assert attempts_max >= 1, attempts_max
        self.guarantee = guarantee
        self.counts: Counter[str] = Counter()
        self.in_flight = 0
        self.paused = False
        self._backoff_s = backoff_s
        self._in_flight_max = in_flight_max
        self._batch_max = batch_max
        self._attempts_max = attempts_max
        self._commit_interval_s = commit_interval_s
        self._assignments: dict[str, Assignment] = {}
        self._runnable: deque[Lane] = deque()
        self._waiting: list[Lane] = []
        self._batches: dict[int, tuple[Lane, Batch]] = {}
        self._dying: dict[tuple[str, int], Lane] = {}
        self._numbers = 0

    # ------------------------------------------------------------------ partitions

    @property
    def partitions(self) -> tuple[str, ...]:
        return tuple(self._assignments)

    def assigned(self, partition: str, now: float) -> None:
        """The partition is ours from now on."""
        assert partition not in self._assignments, f"{partition} is ours already"
        self._assignments[partition] = Assignment(partition, now)

    def drain(self, partition: str) -> None:
        """The partition is about to be taken away: begin nothing new of it, commit what is done.

        What lies below the last record that was begun is done as well: left out, no commit could
        reach over it, and the next owner would do once more what was finished above it. Once
        `idle`, `forget` it. (At most once, what was committed is still processed: whoever gets the
        partition next never sees it.)
        """
        if partition in self._assignments:
            self._assignments[partition].draining = True

    def idle(self, partition: str) -> bool:
        """Is nothing of the partition under way or still to be committed?"""
        found = self._assignments.get(partition)
        if found is None:
            return True
        if found.under_way or found.committing is not None:
            return False
        if self.guarantee == "at_most_once":
            return not found.lanes
        if self.guarantee != "transactional" and self._left_out(found):
            return False
        return found.position in (None, found.committed)

    @staticmethod
    def _left_out(found: Assignment) -> bool:
        """Does a record wait that lies below one which was begun?"""
        return bool(found.received) and found.received[0] <= found.begun

    def forget(self, partition: str) -> None:
        """The partition is no longer ours. What is under way of it is nobody's."""
        found = self._assignments.pop(partition, None)
        if found is None:
            return
        self.in_flight -= len(found.received) - len(found.finished)
        self._runnable = deque(lane for lane in self._runnable if lane.assignment is not found)
        self._waiting = [lane for lane in self._waiting if lane.assignment is not found]

    # ------------------------------------------------------------------ what happens

    def received(self, records: Iterable[Record]) -> None:
        """Records of a partition that is ours, in order of their offsets."""
        for record in records:
            found = self._assignments.get(record.partition)
            if found is None:
                continue  # fetched before the partition was taken away
            assert not found.received or record.offset > found.received[-1], record
            found.received.append(record.offset)
            self.in_flight += 1
            if self.guarantee == "at_most_once":
                found.held.append(record)
            else:
                self._queue(found, record)

    def finished(self, number: int, outcomes: Sequence[Outcome], now: float) -> None:
        """What became of a batch, record by record.

        Shorter than the batch when the last of `outcomes` kept the rest from being tried.
        """
        lane, batch = self._batches.pop(number)
        lane.busy = False
        assignment = lane.assignment
        assignment.under_way -= 1
        if self._assignments.get(batch.partition) is not assignment:
            self.counts["orphaned"] += 1  # of an assignment that has ended
            return
        assert len(outcomes) <= len(batch.records), (number, outcomes)
        for outcome in outcomes:
            if not self._settle(lane, outcome, now):
                break
        if batch.commit is not None and lane.assignment.position == batch.commit:
            assignment.committed = batch.commit
        self._requeue(lane)

    def current(self, number: int) -> bool:
        """Is the batch one of an assignment that still is? If not, it had better not be begun."""
        lane, batch = self._batches[number]
        return self._assignments.get(batch.partition) is lane.assignment

    def dead_lettered(self, record: Record, ok: bool, now: float) -> None:
        """The dead letter is where it belongs; if not `ok`, it must be tried again."""
        lane = self._dying.pop((record.partition, record.offset), None)
        if lane is None:
            return
        lane.busy = False
        lane.assignment.under_way -= 1
        if self._assignments.get(record.partition) is not lane.assignment:
            return
        if ok:
            self.counts["dead_lettered"] += 1
            self._done(lane)
        else:
            lane.attempts += 1
            lane.not_before = now + self._backoff_s(lane.attempts)
        self._requeue(lane)

    def committed(self, commit: Commit, now: float) -> None:
        """The commit is made."""
        found = self._committing(commit)
        if found is None:
            return
        found.committing, found.committed, found.committed_at = None, commit.offset, now
        while found.held and found.held[0].offset < commit.offset:
            self._queue(found, found.held.popleft())

    def commit_failed(self, commit: Commit, now: float) -> None:
        """It was not made, or nobody knows; it is tried again after the interval."""
        found = self._committing(commit)
        if found is not None:
            found.committing, found.committed_at = None, now
            self.counts["commits_failed"] += 1

    def _committing(self, commit: Commit) -> Assignment | None:
        """The assignment that waits for this very commit.

        One of an earlier assignment that ends late would let another one out beside that which is
        under way, and of the two the older may arrive last: the commit would move back.
        """
        found = self._assignments.get(commit.partition)
        return found if found is not None and found.committing == commit.number else None

    # ------------------------------------------------------------------ what is to be done

    def ready(self, now: float) -> Ready:
        """What is to be done now; it counts as under way until its answer comes."""
        ready = Ready()
        if self._waiting:
            due = [lane for lane in self._waiting if lane.not_before <= now]
            if due:
                self._waiting = [lane for lane in self._waiting if lane.not_before > now]
                self._runnable.extend(due)
        runnable, self._runnable = self._runnable, deque()
        for lane in runnable:
            if self._may_begin(lane):
                self._start(lane, ready)
        for found in self._assignments.values():
            offset = self._to_commit(found, now)
            if offset is not None:
                self._numbers += 1
                found.committing = self._numbers
                ready.commits.append(Commit(self._numbers, found.partition, offset))
        full = self.in_flight >= self._in_flight_max
        if full and not self.paused:
            self.paused = ready.pause = True
        elif self.paused and self.in_flight <= self._in_flight_max // 2:
            self.paused = ready.pause = False
        return ready

    def _may_begin(self, lane: Lane) -> bool:
        """Draining, records beyond what was begun go to whoever has the partition next."""
        found = lane.assignment
        if not found.draining or self.guarantee == "at_most_once":
            return True
        return self.guarantee != "transactional" and lane.records[0].offset <= found.begun

    def wake_at(self) -> float | None:
        """When there may be something `ready` although nothing happens; None: never."""
        times = [lane.not_before for lane in self._waiting]
        if self.guarantee in ("at_least_once", "effectively_once"):
            times += [
                found.committed_at + self._commit_interval_s
                for found in self._assignments.values()
                if found.committing is None and found.position not in (None, found.committed)
            ]
        return min(times, default=None)

    def _to_commit(self, found: Assignment, now: float) -> int | None:
        if found.committing is not None or self.guarantee == "transactional":
            return None
        if self.guarantee == "at_most_once":
            # Before any of it is processed. Draining, what is held goes to the next owner.
            if not found.held or found.draining:
                return None
            return found.held[-1].offset + 1
        if found.position is None or found.position == found.committed:
            return None
        if found.draining or now >= found.committed_at + self._commit_interval_s:
            return found.position
        return None

    def _start(self, lane: Lane, ready: Ready) -> None:
        assert not lane.busy, lane.key
        assert lane.records, lane.key
        lane.busy = True
        lane.assignment.under_way += 1
        if lane.verdict is not None:
            record = lane.records[0]
            self._dying[record.partition, record.offset] = lane
            ready.dead_letters.append(DeadLetter(record, lane.verdict, lane.attempts))
            return
        # A record that failed is tried alone: what comes after it waits for it anyway.
        count = 1 if lane.attempts and self.guarantee != "transactional" else self._batch_max
        records = tuple(islice(lane.records, count))
        if lane.assignment.draining and self.guarantee != "at_most_once":
            records = tuple(each for each in records if each.offset <= lane.assignment.begun)
        lane.assignment.begun = max(lane.assignment.begun, records[-1].offset)
        self._numbers += 1
        commit = records[-1].offset + 1 if self.guarantee == "transactional" else None
        batch = Batch(self._numbers, lane.assignment.partition, records, commit)
        self._batches[batch.number] = (lane, batch)
        ready.batches.append(batch)

    # ------------------------------------------------------------------ lanes

    def _queue(self, found: Assignment, record: Record) -> None:
        if self.guarantee == "transactional":
            key = ""  # a transaction commits an offset, so all before it belongs into it
        else:
            key = f"#{record.offset}" if record.key is None else f"={record.key}"
        lane = found.lanes.get(key)
        if lane is None:
            lane = found.lanes[key] = Lane(found, key)
            self._runnable.append(lane)
        lane.records.append(record)

    def _requeue(self, lane: Lane) -> None:
        if not lane.records:
            del lane.assignment.lanes[lane.key]
        elif lane.not_before:
            self._waiting.append(lane)
        else:
            self._runnable.append(lane)

    def _settle(self, lane: Lane, outcome: Outcome, now: float) -> bool:
        """Take in what became of the lane's first record; may the next outcome be looked at?"""
        self.counts[outcome] += 1
        if outcome in DONE:
            self._done(lane)
            return True
        if self.guarantee == "transactional" and outcome == "rejected":
            self._done(lane)  # its dead letter was written in the transaction itself
            return True
        if outcome == "rejected":
            lane.verdict = "rejected"
            lane.attempts += 1
            return False
        if self.guarantee == "at_most_once":
            # It may have taken place: a second attempt would make that "at least once".
            self.counts["given_up"] += 1
            self._done(lane)
            return True
        lane.attempts += 1
        if outcome == "failed" and lane.attempts >= self._attempts_max:
            lane.verdict = "failed"
            return False
        # "unavailable" is tried for ever: a database that is down for a minute must not turn the
        # whole backlog into dead letters.
        lane.not_before = now + self._backoff_s(lane.attempts)
        return False

    def _done(self, lane: Lane) -> None:
        record = lane.records.popleft()
        lane.assignment.finish(record.offset)
        self.in_flight -= 1
        lane.attempts, lane.not_before, lane.verdict = 0, 0.0, None
