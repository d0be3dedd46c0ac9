"""Planted bugs: mistakes that people make in Raft. Each must be found, or the simulation is blind.

A bug is a subclass of `Raft` with one rule broken, or a driver or world that breaks its promise.
None of this is ever in the core.
(Those that a lab runs on real sockets, too, are in labs/broken.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labs.broken import NoLogCheck
from services.protocols.raft import Raft
from services.protocols.raft.messages import AppendEntries, HardState
from tests.simulation.zoo.bug import Bug


class VoteNotPersisted(Raft):
    """§5.1: the vote is kept in memory only; after a crash the node votes again in that term."""

    def _take_records(self) -> list[Any]:
        records = super()._take_records()
        return [
            HardState(record.term, None) if isinstance(record, HardState) else record
            for record in records
        ]


class CommitOlderTermByCount(Raft):
    """§5.4.2, figure 8: an entry of an older term is committed once a majority has it."""

    def may_commit(self, index: int) -> bool:
        return True


class MinorityAcknowledges(Raft):
    """§5.3: one server less than a majority is enough to commit."""

    def majority_match_index(self) -> int:
        matches = sorted([self.log.last_index, *(p.match_index for p in self.progress.values())])
        return matches[1 - self.quorum]


class StaleReadWithoutQuorum(Raft):
    """§8: the leader answers reads without asking whether it still leads."""

    def ask_for_reads(self) -> None:
        if self.commit_index >= self.no_op_index:
            self._asked_reads, self._waiting_reads = self._waiting_reads, []
            self._asked_index = self.commit_index
            self._grant_asked_reads()


class ReadBeforeNoOp(Raft):
    """§8: a new leader answers reads before it has committed an entry of its term."""

    def ask_for_reads(self) -> None:
        with self._without_no_op():
            super().ask_for_reads()

    def _grant_asked_reads(self) -> None:
        with self._without_no_op():
            super()._grant_asked_reads()

    def has_lease(self) -> bool:
        with self._without_no_op():
            return super().has_lease()

    @contextmanager
    def _without_no_op(self) -> Iterator[None]:
        index, self.no_op_index = self.no_op_index, 0
        try:
            yield
        finally:
            self.no_op_index = index


class LateAppendEntriesTruncates(Raft):
    """Figure 2, AppendEntries rule 3: the log is cut without a conflict, so a late message
    takes back what was acknowledged since."""

    def _merge(self, message: AppendEntries) -> None:
        first = message.entries[0].index
        if first <= self.commit_index:
            super()._merge(message)
            return
        self.log.truncate(first - 1)
        self.log.extend(message.entries)
        self._unpersisted.extend(message.entries)


class SnapshotForgetsTheTail(Raft):
    """§7: the records after a snapshot leave out the entries behind it."""

    def _take_records(self) -> list[Any]:
        compacted = self._snapshot_changed
        records = super()._take_records()
        return records[:2] if compacted else records


BUGS = {
    bug.name: bug
    for bug in (
        Bug("vote_not_persisted", VoteNotPersisted, first=80),
        Bug("commit_older_term_by_count", CommitOlderTermByCount, first=80),
        Bug("minority_acknowledges", MinorityAcknowledges),
        Bug("no_log_check_in_election", NoLogCheck),
        Bug("stale_read_without_quorum", StaleReadWithoutQuorum),
        Bug("read_before_no_op", ReadBeforeNoOp),
        Bug("late_append_entries_truncates", LateAppendEntriesTruncates),
        Bug("ack_before_persist", persist_before_send=False),
        Bug("snapshot_forgets_the_tail", SnapshotForgetsTheTail),
        Bug("clocks_drift_beyond_the_lease", clock_drift=0.6),
    )
}
