"""Planted bugs: mistakes that people make in Zab. Each must be found, or the simulation is blind.

A bug is a subclass of `Zab` with one rule broken, a driver that breaks its promise, or a state
machine that forgets. None of this is ever in the core. Each says which history goes wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from labs.broken import NoZxidCheck
from services.protocols.core import Entry
from services.protocols.zab import Phase, State, Zab
from services.protocols.zab.messages import (
    Ack,
    AckNewLeader,
    AckSync,
    Diff,
    Epochs,
    NewLeader,
    Pong,
    Propose,
    Trunc,
    Zxid,
)
from tests.simulation.zoo.bug import Bug
from tests.simulation.zoo.machines import SnapshotLosesSessions


class AcceptedEpochNotPersisted(Zab):
    """n1 opens epoch 5 and gives zxid (5, 9) to a proposal, crashes, forgets that it promised 5,
    opens epoch 5 once more, and gives (5, 9) to another one: two transactions with one zxid."""

    def _take_records(self) -> list[Any]:
        return [
            Epochs(record.current_epoch, record.current_epoch)
            if isinstance(record, Epochs)
            else record
            for record in super()._take_records()
        ]

    def replay(self, records: Iterable[Any]) -> None:
        found = list(records)
        current = [record.current_epoch for record in found if isinstance(record, Epochs)]
        last = max((record.term for record in found if isinstance(record, Entry)), default=0)
        epochs = Epochs(max([last, *current]), max(current, default=0))
        super().replay([*found, epochs] if found else found)


class NewLeaderAcknowledgedBeforeHistory(Zab):
    """ZOOKEEPER-4646: what DIFF brought is written some time after NEWLEADER was acknowledged; the
    initial history is committed with that acknowledgement, the node crashes, restarts as one that
    accepted this epoch, and is elected by its currentEpoch without the history."""

    _unwritten: list[Any] | None = None

    def append_entries(self, entries: Any) -> None:
        written = len(self._records)
        super().append_entries(entries)
        if self.state is State.FOLLOWING and self.phase is Phase.SYNCHRONISATION:
            self._unwritten = [*(self._unwritten or []), *self._records[written:]]
            del self._records[written:]

    def truncate_history(self, counter: int) -> None:
        super().truncate_history(counter)
        self._unwritten = [entry for entry in self._unwritten or [] if entry.index <= counter]

    def _take_records(self) -> list[Any]:
        if self._snapshot_changed:  # all is written anew
            self._unwritten = None
        elif self._unwritten and self.phase is not Phase.SYNCHRONISATION:
            self._records[:0], self._unwritten = self._unwritten, None
        return super()._take_records()


class CurrentEpochBeforeHistory(Zab):
    """ZOOKEEPER-4643: currentEpoch is written when synchronisation begins and not when it is done;
    the node crashes in between, and is elected by its currentEpoch without the history."""

    def on_diff(self, message: Diff) -> None:
        if self._hears(message.src, message.epoch) and self.current_epoch < message.epoch:
            self.set_epochs(self.accepted_epoch, message.epoch)
        super().on_diff(message)


class CommitBeforeSynchronised(Zab):
    """A follower delivers what DIFF brings before a quorum has acknowledged NEWLEADER: proposals of
    an old epoch that nobody committed. The prospective leader crashes; a node that accepted an
    epoch in between, whose history lacks them, has the later currentEpoch, is elected, and
    truncates them (Raft's figure 8)."""

    def on_diff(self, message: Diff) -> None:
        super().on_diff(message)
        if self._hears(message.src, message.epoch):
            self._commit(self.history.last_index)

    def on_trunc(self, message: Trunc) -> None:
        if message.last.counter >= self.commit_index:  # else the core notices by itself
            super().on_trunc(message)


class FollowerKeepsUnseenProposals(Zab):
    """A follower takes TRUNC for done and skips what is there already, by its counter: it keeps a
    proposal that the leader never saw, in the place of the one that a quorum commits."""

    _told = 0  # the last counter that the leader has spoken of

    def on_trunc(self, message: Trunc) -> None:
        if self._hears(message.src, message.epoch):
            self.send(AckSync(self.node, message.src, message.epoch, message.last, 0))

    def _continues(self, message: Any) -> bool:
        return True

    def step(self, message: Any) -> None:
        if isinstance(message, Diff | Propose) and message.entries:
            self._told = message.entries[-1].index
        elif isinstance(message, Trunc | NewLeader):
            self._told = message.last.counter
        super().step(message)
        for answer in self._messages:
            if isinstance(answer, Ack | AckNewLeader | Pong) and answer.dst == message.src:
                answer.counter = min(answer.counter, self._told)
            elif isinstance(answer, AckSync) and isinstance(message, Diff):
                end = message.entries[-1]
                answer.last = Zxid(end.term, end.index)


class LateTruncIsObeyed(Zab):
    """A repeated TRUNC of the same leader arrives after NEWLEADER: what was accepted since, and
    counted, is taken back, so a committed transaction is at less than a quorum."""

    def on_trunc(self, message: Trunc) -> None:
        current, self.current_epoch = self.current_epoch, 0
        try:
            if message.last.counter >= self.commit_index:
                super().on_trunc(message)
        finally:
            self.current_epoch = current


class CommitOutOfOrder(Zab):
    """Step f.3.3: a follower delivers what COMMIT names; the COMMIT before it was lost, or comes
    later, and its transaction is delivered behind its successor, or never."""

    def _take_committed(self) -> list[Entry]:
        committed = super()._take_committed()
        return committed[-1:] if self.state is State.FOLLOWING else committed


class AcknowledgesBeyondAGap(Zab):
    """A follower acknowledges a proposal though one before it is lost: the leader takes that for
    all up to there, and commits what too few have."""

    def on_propose(self, message: Propose) -> None:
        super().on_propose(message)
        if self._pending_ack and message.prev.counter > self.history.last_index:
            self._pending_ack.counter = message.entries[-1].index
            self._pending_ack.gap = False


class StaleReadWithoutQuorum(Zab):
    """A leader that lost its quorum, and does not know yet that another one leads, answers reads
    from its own state: older than what that one has acknowledged."""

    def ask_for_reads(self) -> None:
        self._asked_reads, self._waiting_reads = self._waiting_reads, []
        self._asked_index = self.commit_index
        self._grant_asked_reads()


BUGS = {
    bug.name: bug
    for bug in (
        Bug("accepted_epoch_not_persisted", AcceptedEpochNotPersisted),
        Bug("election_ignores_zxid", NoZxidCheck),
        Bug(
            "new_leader_acknowledged_before_history", NewLeaderAcknowledgedBeforeHistory, first=200
        ),
        Bug("current_epoch_before_history", CurrentEpochBeforeHistory, first=330),
        Bug("commit_before_synchronised", CommitBeforeSynchronised, first=60),
        Bug("follower_keeps_unseen_proposals", FollowerKeepsUnseenProposals),
        Bug("late_trunc_is_obeyed", LateTruncIsObeyed, first=120),
        Bug("commit_out_of_order", CommitOutOfOrder),
        Bug("acknowledges_beyond_a_gap", AcknowledgesBeyondAGap),
        Bug("stale_read_without_quorum", StaleReadWithoutQuorum, first=240),
        Bug("snapshot_loses_sessions", machine=SnapshotLosesSessions),
        Bug("ack_before_persist", persist_before_send=False),
    )
}
