"""Linearizable reads without a log entry (§8; dissertation §6.4): ReadIndex, and the lease.

ReadIndex. The read index is the commit index when the round begins. It may be answered once (1) an
entry of the leader's own term has committed, so that the commit index is not that of a newcomer
who does not know yet; and (2) a majority answered a heartbeat sent *after* the read was asked for,
so that no other leader had committed anything newer by then. One round serves all reads that
wait; while it is out, later ones gather for the next.

Lease. A majority that answered a heartbeat votes for nobody until `election_ticks` after it was
received (elections.py), so no other leader can be before `election_ticks` after it was *sent*. For
`lease_ticks` from there the leader answers by itself. That compares durations on different
clocks: **it trusts that no clock runs more than (election_ticks − 1) / lease_ticks times as fast
as another**. Where that does not hold a lease read can be stale; ReadIndex cannot.
"""

from __future__ import annotations

from collections import deque

from services.protocols.core import Busy, NotLeader, ReadGrant, ReadRefusal
from services.protocols.raft.leader import Leader
from services.protocols.raft.state import Role


class Reads(Leader):
    """Reads that wait for a round, and the lease that a round renews."""

    _waiting_reads: list[int]  # asked for, no round begun for them
    _asked_reads: list[int]  # waiting for the answer to round _asked_round
    _asked_round: int
    _asked_index: int
    _rounds_sent: deque[tuple[int, int]]  # (round, tick) of rounds not yet confirmed
    _confirmed_round: int
    _confirmed_tick: int  # when the newest round that a majority answered was sent
    _lease_held: bool
    _lease_given_up: bool  # a TimeoutNow is about: its target may be elected at any time

    def _begin_reads(self) -> None:
        self._waiting_reads = []
        self._asked_reads = []
        self._asked_round = 0
        self._asked_index = 0
        self._rounds_sent = deque()
        self._confirmed_round = 0
        self._confirmed_tick = 0
        self._lease_held = False
        self._lease_given_up = False

    def read(self, read_id: int, *, lease: bool = False) -> None:
        """Ask for a linearizable read. Raises NotLeader, or Busy when too many wait."""
        if self.role is not Role.LEADER:
            raise NotLeader(self.leader)
        if lease and self.has_lease():
            self._reads.append(ReadGrant(read_id, self.commit_index))
            return
        if len(self._waiting_reads) + len(self._asked_reads) >= self.limits.waiting_reads:
            raise Busy(f"{self.limits.waiting_reads} reads wait")
        self._waiting_reads.append(read_id)

    def has_lease(self) -> bool:
        """May this leader answer a read without asking anybody, if clocks can be trusted?"""
        if self.commit_index < self.no_op_index:
            return False
        if self.quorum == 1:
            return True
        return (
            not self._lease_given_up
            and self._confirmed_round > 0
            and self.ticks - self._confirmed_tick < self.lease_ticks
        )

    def ask_for_reads(self) -> None:
        """Called by ready(): begin a round if reads wait and none is out."""
        if not self._waiting_reads or self._asked_reads or self.commit_index < self.no_op_index:
            return
        self._asked_reads, self._waiting_reads = self._waiting_reads, []
        self._asked_index = self.commit_index
        if self.quorum == 1:
            self._grant_asked_reads()
            return
        self.broadcast_heartbeat()
        self._asked_round = self.round

    def _note_round_sent(self) -> None:
        self._rounds_sent.append((self.round, self.ticks))

    def _confirm_round(self) -> None:
        """Some follower answered a newer round: has a majority?"""
        rounds = sorted([peer.round for peer in self.progress.values()])
        confirmed = rounds[1 - self.quorum]
        if confirmed <= self._confirmed_round:
            return
        self._confirmed_round = confirmed
        sent = self._rounds_sent
        while sent and sent[0][0] <= confirmed:
            self._confirmed_tick = sent.popleft()[1]
        self._lease_held = self.has_lease()
        if self._asked_reads and confirmed >= self._asked_round:
            self._grant_asked_reads()

    def _grant_asked_reads(self) -> None:
        assert self.no_op_index <= self._asked_index <= self.commit_index, self._asked_index
        index = self._asked_index
        self._reads.extend(ReadGrant(read_id, index) for read_id in self._asked_reads)
        self._asked_reads = []

    def _refuse_reads(self) -> None:
        for read_id in self._asked_reads + self._waiting_reads:
            self._reads.append(ReadRefusal(read_id, self.leader))
        self._lose_lease("no longer the leader")
        self._begin_reads()

    def _watch_lease(self) -> None:
        if self._lease_held and not self.has_lease():
            self._lose_lease("no majority answered in time")

    def _lose_lease(self, reason: str) -> None:
        if self._lease_held:
            self._lease_held = False
            self.emit("lease_lost", term=self.term, reason=reason)

    def _give_up_lease(self) -> None:
        self._lease_given_up = True
        self._lose_lease("a transfer of leadership has begun")
