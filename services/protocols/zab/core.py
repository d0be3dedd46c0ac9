"""`Zab`: the parts put together behind the face of a protocol core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from services.protocols.core import NOTHING, Core, Entry, NodeId, Ready
from services.protocols.zab.election import Election
from services.protocols.zab.follower import Follower
from services.protocols.zab.learner import Stage
from services.protocols.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    AckSync,
    CEpoch,
    Commit,
    CommitNewLeader,
    Diff,
    Epochs,
    NewEpoch,
    NewLeader,
    Notification,
    Ping,
    Pong,
    Propose,
    Record,
    Snap,
    Trunc,
)
from services.protocols.zab.reads import Reads
from services.protocols.zab.state import Limits, Phase, State
from services.protocols.zab.synchronisation import Synchronisation

if TYPE_CHECKING:
    from random import Random


class Zab(Reads, Synchronisation, Follower, Election):
    """One member of an ensemble with fixed membership. See the package's docstring.

    Args:
        node: this node's id.
        peers: the ids of all other members.
        random: chance, for how long to wait for a leader only.
        records: what was persisted, in that order, since (and with) the last Snapshot record.
        election_ticks: the least time without a word after which a follower gives its leader up
            (the actual one is random up to twice this), and a leader that hears no quorum itself.
        heartbeat_ticks: the leader's ping period; at most half of `election_ticks`.
        limits: what is bounded, and by how much.

    Raises:
        ValueError: the configuration or the records cannot be.
    """

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        random: Random,
        records: Iterable[Record] = (),
        election_ticks: int = 20,
        heartbeat_ticks: int = 3,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            node,
            tuple(peers),
            random=random,
            election_ticks=election_ticks,
            heartbeat_ticks=heartbeat_ticks,
            limits=limits or Limits(),
        )
        self.begin_reads()
        self.replay(records)
        self._handlers: dict[type, Callable[[Any], None]] = {
            Notification: self.on_notification,
            CEpoch: self.on_cepoch,
            NewEpoch: self.on_new_epoch,
            AckEpoch: self.on_ack_epoch,
            Trunc: self.on_trunc,
            Diff: self.on_diff,
            Snap: self.on_snap,
            AckSync: self.on_ack_sync,
            NewLeader: self.on_new_leader,
            AckNewLeader: self.on_ack_new_leader,
            CommitNewLeader: self.on_commit_new_leader,
            Propose: self.on_propose,
            Ack: self.on_ack,
            Commit: self.on_commit,
            Ping: self.on_ping,
            Pong: self.on_pong,
        }
        self._begin_election()

    # ---- input ------------------------------------------------------------------------------

    def step(self, message: Any) -> None:
        """Take in one message. Of unknown kind, from or for somebody else: ignored."""
        handler = self._handlers.get(type(message))
        if handler is None or message.src not in self.learners or message.dst != self.node:
            return
        handler(message)

    def tick(self) -> None:
        """One unit of time has passed."""
        self.ticks += 1
        if self.state is State.LEADING:
            self.tick_leading()
        elif self.state is State.FOLLOWING:
            self.tick_following()
        else:
            self.tick_looking()

    # ---- output -----------------------------------------------------------------------------

    def ready(self) -> Ready:
        """What is to be done now; see `services.protocols.core` for the order."""
        early = 0
        if self.leads():
            early = self._replicate_early()
            self.tell_commits()
            self.ask_for_reads()
        if not (
            self._messages
            or self._records
            or self._epochs_changed
            or self._snapshot_changed
            or self._restore
            or self.commit_index != self.applied_index
            or self._reads
            or self._events
        ):
            return NOTHING  # after most ticks
        ready = Ready(
            self._take_records(),
            self._messages,
            early,
            self._restore,
            self._take_committed(),
            self._reads,
            self._events,
        )
        self._messages, self._pending_ack, self._restore = [], None, None
        self._reads, self._events = [], []
        return ready

    def _replicate_early(self) -> int:
        """`replicate`, its messages before all others; how many of them may go before the write.

        The leader writes to its disk while the followers write to theirs. If it crashes in between,
        its followers hold a transaction that it does not. No harm: its own copy is counted only
        once it is on disk; and it never leads this epoch again, so the same zxid is never given to
        another transaction, *if* the epoch it leads is on its disk. So nothing is early while the
        epochs are unwritten.
        """
        others, self._messages = self._messages, []
        self.replicate()
        if not self._messages:
            self._messages = others
            return 0
        held_back = self._epochs_changed or self._snapshot_changed
        early = 0 if held_back else sum(type(m) is Propose for m in self._messages)
        self._messages.sort(key=lambda message: type(message) is not Propose)
        self._messages += others
        return early

    def _take_records(self) -> list[Record]:
        """With a Snapshot all is written anew; else what came about, in its order."""
        records, self._records = self._records, []
        if self._snapshot_changed:
            snapshot = self.history.snapshot
            assert snapshot is not None
            rest = self.history.between(snapshot.last_index, self.history.last_index)
            records = [snapshot, Epochs(self.accepted_epoch, self.current_epoch), *rest]
        self._snapshot_changed = self._epochs_changed = False
        return records

    def _take_committed(self) -> list[Entry]:
        if self.commit_index == self.applied_index:
            return []
        committed = self.history.between(self.applied_index, self.commit_index)
        self.applied_index = self.commit_index
        return committed

    # ---- inspection -------------------------------------------------------------------------

    def role(self) -> str:
        """looking, follower, candidate (a prospective leader: in phases 1 and 2), leader."""
        if self.state is State.LEADING:
            return "leader" if self.phase is Phase.BROADCAST else "candidate"
        return "follower" if self.state is State.FOLLOWING else "looking"

    def status(self) -> dict[str, Any]:
        """For `/status`. `term` is the epoch promised last; `peers` is filled on the leader."""
        leading = self.state is State.LEADING
        return {
            "node": self.node,
            "role": self.role(),
            "phase": self.phase.name.lower(),
            "term": self.accepted_epoch,
            "current_epoch": self.current_epoch,
            "round": self.round,
            "vote": self.vote,
            "leader": self.leader(),
            "commit_index": self.commit_index,
            "applied_index": self.applied_index,
            "last_index": self.history.last_index,
            "last_term": self.history.last.epoch,
            "snapshot_index": self.history.snapshot_index,
            "uncommitted_bytes": self.uncommitted_bytes,
            "peers": {
                learner.node: {
                    "match_index": learner.match_counter,
                    "next_index": learner.next_counter,
                    "stage": learner.stage.value,
                    "heard_ticks_ago": self.ticks - learner.heard_tick,
                }
                for learner in (self.learners.values() if leading else ())
            },
        }

    def check_invariants(self) -> None:
        """For tests: walks the history. Raises AssertionError, with the numbers."""
        history, who = self.history, f"{self.node} ({self.role()}, epoch {self.accepted_epoch})"
        history.check_invariants()
        last, snapshot = history.last, history.snapshot_index
        assert self.current_epoch <= self.accepted_epoch, f"{who}: accepts {self.current_epoch}"
        assert last.epoch <= self.accepted_epoch, f"{who}: history of {last}"
        assert snapshot <= self.applied_index <= self.commit_index <= last.counter, (
            f"{who}: snapshot {snapshot}, applied {self.applied_index}, commit "
            f"{self.commit_index}, last {last}"
        )
        assert (self.state is State.LOOKING) == (self.phase is Phase.ELECTION), (
            f"{who}: {self.phase}"
        )
        assert (self.state is State.LOOKING) == (self.elected is None), f"{who}: {self.elected}"
        assert (self.state is State.LEADING) == (self.elected == self.node), (
            f"{who}: {self.elected}"
        )
        if not self.leads():
            assert not self._waiting_reads, f"{who}: {self._waiting_reads} wait"
            assert not self._asked_reads, f"{who}: {self._asked_reads} wait"
            return
        assert self.current_epoch == self.accepted_epoch, f"{who}: accepted {self.current_epoch}"
        assert self.initial_counter <= self.commit_index, f"{who}: {self.commit_index}"
        waiting = sum(len(e.command) for e in history.between(self.commit_index, last.counter))
        assert self.uncommitted_bytes == waiting, f"{who}: {self.uncommitted_bytes} ≠ {waiting}"
        for learner in self.learners.values():
            assert learner.match_counter <= last.counter, f"{who}: {learner.node}"
            assert len(learner.in_flight) <= self.limits.messages_in_flight, (
                f"{who}: {learner.node}"
            )
            if learner.stage is Stage.SYNCED:
                assert learner.match_counter < learner.next_counter <= last.counter + 1, (
                    f"{who}: {learner.node} has {learner.match_counter}, next is "
                    f"{learner.next_counter}, last {last}"
                )


if TYPE_CHECKING:

    def _is_a_core(zab: Zab) -> Core:
        return zab
