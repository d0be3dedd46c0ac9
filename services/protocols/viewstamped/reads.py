"""Linearizable reads at the primary without a log entry (§6.3): by a quorum, or by a lease.

Both need (1) that the whole log with which the view began is committed: before, the primary does
not know how much of it earlier primaries have answered for.

*Quorum.* (2) f backups answer a COMMIT sent *after* the read was asked for. They were in this view
then, so no later view had a quorum, and nothing newer was committed. One round serves all reads
that wait; while it is out, later ones gather for the next.

*Lease* (§6.3: "only if it holds valid leases from f other replicas"; "a new view will start only
after leases at f + 1 participants in the previous view expire"). A backup that heard the primary
does not suspect it, hence does not move, for `election_ticks`; only the primary itself can release
it, by resigning. So a COMMIT that f answered is a lease of `election_ticks` from when it was
*sent*; it is used for `lease_ticks` of them. That compares durations on different clocks: **it
trusts that no clock runs more than (election_ticks − 1) / lease_ticks times as fast as another**.
"""

from __future__ import annotations

from collections import deque

from services.protocols.core import Busy, NotLeader, ReadGrant, ReadRefusal
from services.protocols.viewstamped.primary import Primary


class Reads(Primary):
    """Reads that wait for a round, and the lease that a round renews."""

    _waiting_reads: list[int]  # asked for, no round begun for them
    _asked_reads: list[int]  # waiting for the answer to round _asked_round
    _asked_round: int
    _asked_number: int
    _rounds_sent: deque[tuple[int, int]]  # (round, tick) of rounds not yet confirmed
    _confirmed_round: int
    _confirmed_tick: int  # when the newest round that a quorum answered was sent
    _lease_held: bool

    def begin_reads(self) -> None:
        self._waiting_reads = []
        self._asked_reads = []
        self._asked_round = 0
        self._asked_number = 0
        self._rounds_sent = deque()
        self._confirmed_round = 0
        self._confirmed_tick = 0
        self._lease_held = False

    def read(self, read_id: int, *, lease: bool = False) -> None:
        """Ask for a linearizable read. Raises NotLeader, or Busy when too many wait."""
        if not self.leading:
            raise NotLeader(self.leader)
        if lease and self.has_lease():
            self._reads.append(ReadGrant(read_id, self.commit_number))
            return
        if len(self._waiting_reads) + len(self._asked_reads) >= self.limits.waiting_reads:
            raise Busy(f"{self.limits.waiting_reads} reads wait")
        self._waiting_reads.append(read_id)

    def has_lease(self) -> bool:
        """May this primary answer a read without asking anybody, if clocks can be trusted?"""
        if not self.leading or self.commit_number < self.start_number:
            return False
        if self.quorum == 1:
            return True
        return self._confirmed_round > 0 and self.ticks - self._confirmed_tick < self.lease_ticks

    def ask_for_reads(self) -> None:
        """Called by ready(): begin a round if reads wait and none is out."""
        if not self._waiting_reads or self._asked_reads or self.commit_number < self.start_number:
            return
        self._asked_reads, self._waiting_reads = self._waiting_reads, []
        self._asked_number = self.commit_number
        if self.quorum == 1:
            self._grant_asked_reads()
            return
        self.broadcast_commit()
        self._asked_round = self.round

    def note_round_sent(self) -> None:
        self._rounds_sent.append((self.round, self.ticks))

    def confirm_round(self) -> None:
        """Some backup answered a newer round: has a quorum?"""
        rounds = sorted(peer.round for peer in self.others.values())
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
        number = self._asked_number
        self._reads.extend(ReadGrant(read_id, number) for read_id in self._asked_reads)
        self._asked_reads = []

    def refuse_reads(self) -> None:
        for read_id in self._asked_reads + self._waiting_reads:
            self._reads.append(ReadRefusal(read_id, self.leader))
        self._lose_lease("no longer the primary")
        self.begin_reads()

    def watch_lease(self) -> None:
        if self._lease_held and not self.has_lease():
            self._lose_lease("no quorum answered in time")

    def _lose_lease(self, reason: str) -> None:
        if self._lease_held:
            self._lease_held = False
            self.emit("lease_lost", term=self.view, reason=reason)
