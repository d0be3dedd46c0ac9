"""`Raft`: the parts put together behind the face of a protocol core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from services.protocols.core import NOTHING, Core, Entry, NodeId, Ready
from services.protocols.raft.elections import Elections
from services.protocols.raft.follower import Follower
from services.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    InstallSnapshot,
    InstallSnapshotResponse,
    Record,
    RequestPreVote,
    RequestPreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from services.protocols.raft.snapshots import Snapshots
from services.protocols.raft.state import Limits, Role
from services.protocols.raft.transfer import Transfer

if TYPE_CHECKING:
    from random import Random


class Raft(Transfer, Snapshots, Follower, Elections):
    """One member of a cluster with fixed membership. See the package's docstring.

    Args:
        node: this node's id.
        peers: the ids of all other members.
        random: chance, for election timeouts only.
        records: what was persisted, in that order, since (and with) the last Snapshot record.
        election_ticks: the least election timeout; the actual one is random up to twice this.
        heartbeat_ticks: the leader's heartbeat period; less than half of `election_ticks`.
        lease_ticks: how long an answered heartbeat lets the leader answer lease reads; less than
            `election_ticks`. The default, three quarters, leaves the rest for clock drift.
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
        lease_ticks: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        if lease_ticks is None:
            lease_ticks = election_ticks * 3 // 4
        super().__init__(
            node,
            tuple(peers),
            random=random,
            election_ticks=election_ticks,
            heartbeat_ticks=heartbeat_ticks,
            lease_ticks=lease_ticks,
            limits=limits or Limits(),
        )
        self.begin_reads()
        self.replay(records)
        self._handlers: dict[type, Callable[[Any], None]] = {
            AppendEntries: self.on_append_entries,
            AppendEntriesResponse: self.on_append_entries_response,
            RequestPreVote: self.on_request_pre_vote,
            RequestPreVoteResponse: self.on_request_pre_vote_response,
            RequestVote: self.on_request_vote,
            RequestVoteResponse: self.on_request_vote_response,
            InstallSnapshot: self.on_install_snapshot,
            InstallSnapshotResponse: self.on_install_snapshot_response,
            TimeoutNow: self.on_timeout_now,
        }

    # ---- input ------------------------------------------------------------------------------

    def step(self, message: Any) -> None:
        """Take in one message. Of unknown kind, from or for somebody else: ignored."""
        handler = self._handlers.get(type(message))
        if handler is None or message.src not in self.progress or message.dst != self.node:
            return
        handler(message)

    def tick(self) -> None:
        """One unit of time has passed."""
        self.ticks += 1
        if self.role is Role.LEADER:
            self.tick_leader()
        elif self.ticks >= self.election_deadline:
            self.campaign()

    # ---- output -----------------------------------------------------------------------------

    def ready(self) -> Ready:
        """What is to be done now; see `services.protocols.core` for the order."""
        early = 0
        if self.role is Role.LEADER:
            early = self._replicate_early()
            self.ask_for_reads()
        if not (
            self._messages
            or self._unpersisted
            or self._hard_state_changed
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

        Dissertation §10.2.1: the leader writes to its disk while the followers write to theirs.
        If it crashes in between, its followers hold an entry that it does not: the state of a
        leader that was cut off from nobody but itself. The entry is not committed unless a
        majority has it, and then no one without it is elected. What must not be is an entry of a
        term that the leader can forget to have led, for it could lead it again and put another
        entry in the same place: so nothing is early while term or vote are unwritten.
        """
        others, self._messages = self._messages, []
        self.replicate()
        early = 0 if self._hard_state_changed or self._snapshot_changed else len(self._messages)
        self._messages += others
        return early

    def _take_records(self) -> list[Record]:
        """The hard state before the entries: a torn write then keeps a prefix that could have been
        (a log never reaches beyond the term on record). With a Snapshot all is written anew."""
        records: list[Record] = []
        if self._snapshot_changed:
            snapshot = self.log.snapshot
            assert snapshot is not None
            records.append(snapshot)
            records.append(HardState(self.term, self.vote))
            records.extend(self.log.between(snapshot.last_index, self.log.last_index))
            self._unpersisted = []
        elif self._hard_state_changed:
            records.append(HardState(self.term, self.vote))
            records.extend(self._unpersisted)
            self._unpersisted = []
        elif self._unpersisted:
            records, self._unpersisted = self._unpersisted, []  # type: ignore[assignment]
        self._snapshot_changed = self._hard_state_changed = False
        return records

    def _take_committed(self) -> list[Entry]:
        if self.commit_index == self.applied_index:
            return []
        committed = self.log.between(self.applied_index, self.commit_index)
        self.applied_index = self.commit_index
        return committed

    # ---- inspection -------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """For `/status`: `role` is follower, candidate (also while it asks for pre-votes), leader.

        `peers` is filled on the leader.
        """
        leading = self.role is Role.LEADER
        asking = self.role is Role.PRE_CANDIDATE
        return {
            "node": self.node,
            "role": "candidate" if asking else self.role.value,
            "pre_vote": asking,
            "term": self.term,
            "vote": self.vote,
            "leader": self.leader,
            "commit_index": self.commit_index,
            "applied_index": self.applied_index,
            "last_index": self.log.last_index,
            "last_term": self.log.last_term,
            "snapshot_index": self.log.snapshot_index,
            "uncommitted_bytes": self.uncommitted_bytes,
            "lease": leading and self.has_lease(),
            "transfer_target": self.transfer_target,
            "peers": {
                peer.node: {
                    "match_index": peer.match_index,
                    "next_index": peer.next_index,
                    "sending": peer.sending.value,
                    "heard_ticks_ago": self.ticks - peer.heard_tick,
                }
                for peer in (self.progress.values() if leading else ())
            },
        }

    def check_invariants(self) -> None:
        """For tests: walks the log. Raises AssertionError, with the numbers."""
        log, who = self.log, f"{self.node} ({self.role.value}, term {self.term})"
        log.check_invariants()
        assert log.last_term <= self.term, f"{who}: log of term {log.last_term}"
        assert log.snapshot_index <= self.commit_index <= log.last_index, (
            f"{who}: snapshot {log.snapshot_index}, commit {self.commit_index}, last "
            f"{log.last_index}"
        )
        assert log.snapshot_index <= self.applied_index <= self.commit_index, (
            f"{who}: applied {self.applied_index}, commit {self.commit_index}"
        )
        if self.role in (Role.CANDIDATE, Role.LEADER):
            assert self.vote == self.node, f"{who}: voted for {self.vote}"
        if self.role is not Role.LEADER:
            assert self.leader != self.node, f"{who}: follows itself"
            assert not self._waiting_reads, f"{who}: {self._waiting_reads} wait"
            assert not self._asked_reads, f"{who}: {self._asked_reads} wait"
            assert self.transfer_target is None, f"{who}: transfers to {self.transfer_target}"
            return
        assert self.leader == self.node, f"{who}: follows {self.leader}"
        uncommitted = log.between(self.commit_index, log.last_index)
        waiting = sum(len(entry.command) for entry in uncommitted)
        assert self.uncommitted_bytes == waiting, f"{who}: {self.uncommitted_bytes} ≠ {waiting}"
        assert log.term(self.no_op_index) in (None, self.term), f"{who}: no-op is overwritten"
        for peer in self.progress.values():
            assert peer.match_index < peer.next_index <= log.last_index + 1, (
                f"{who}: {peer.node} match {peer.match_index}, next {peer.next_index}, last "
                f"{log.last_index}"
            )
            assert len(peer.in_flight) <= self.limits.messages_in_flight, f"{who}: {peer.node}"


if TYPE_CHECKING:

    def _is_a_core(raft: Raft) -> Core:
        return raft
