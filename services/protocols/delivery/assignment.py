"""What a consumer holds of one partition: lanes of records, and how far all is dealt with."""

from __future__ import annotations

from collections import deque

from services.protocols.delivery.model import Outcome, Record


class Lane:
    """Records that are processed one after another. `attempts` are those of the first one."""

    __slots__ = ("assignment", "attempts", "busy", "key", "not_before", "records", "verdict")

    def __init__(self, assignment: Assignment, key: str) -> None:
        self.assignment = assignment
        self.key = key
        self.records: deque[Record] = deque()
        self.busy = False  # a batch or a dead letter of it is under way
        self.attempts = 0
        self.not_before = 0.0
        self.verdict: Outcome | None = None  # why the first record is to be a dead letter


class Assignment:
    """One partition for as long as it is ours."""

    __slots__ = (
        "begun",
        "committed",
        "committed_at",
        "committing",
        "draining",
        "finished",
        "held",
        "lanes",
        "partition",
        "position",
        "received",
        "under_way",
    )

    def __init__(self, partition: str, now: float) -> None:
        self.partition = partition
        self.received: deque[int] = deque()  # offsets not yet below `position`, in order
        self.finished: set[int] = set()  # of those
        self.held: deque[Record] = deque()  # at most once: waiting for their commit
        self.lanes: dict[str, Lane] = {}
        self.position: int | None = None  # everything before it is dealt with
        self.committed: int | None = None
        self.committed_at = now
        self.committing: int | None = None
        self.draining = False
        self.begun = -1  # the highest offset that was ever under way
        self.under_way = 0

    def finish(self, offset: int) -> None:
        """`offset` is dealt with; the position moves over all that are, from the first one on.

        Offsets may have gaps (compaction, a transaction's own markers), so it is what was received
        that must be finished, and not each number.
        """
        self.finished.add(offset)
        while self.received and self.received[0] in self.finished:
            first = self.received.popleft()
            self.finished.remove(first)
            self.position = first + 1
