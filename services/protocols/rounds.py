"""Linearizable reads without an entry in the log: by a round of heartbeats, or by a lease.

*Round.* A read gets the index of what is committed when a round begins, and is answered once a
quorum has answered *that* round: it was sent after the read was asked for, so no other leader had
committed anything newer by then. And not before an index that each protocol names (`reads_from`),
for a newcomer does not know yet how much of its log is committed. One round serves all reads that
wait; while it is out, later ones gather for the next.

*Lease.* Who answers a heartbeat makes nobody else the leader until `election_ticks` after it was
received. So there is no other one before `election_ticks` after a round that a quorum answered was
*sent*, and for `lease_ticks` from there the leader answers by itself. That compares durations on
different clocks: **it trusts that no clock runs more than (election_ticks − 1) / lease_ticks times
as fast as another**. Where that does not hold a lease read can be stale; a confirmed one cannot.

What makes both true is for each protocol to say, in its `reads.py`.
"""

from __future__ import annotations

from collections import deque

from services.protocols.core import Busy, NodeId, NotLeader, ReadGrant, ReadRefusal
from services.protocols.member import Member


class ReadRounds(Member):
    """Reads that wait for a round, and the lease that a round renews (`lease_ticks` 0: none)."""

    _waiting_reads: list[int]  # asked for, no round begun for them
    _asked_reads: list[int]  # waiting for the answer to round _asked_round
    _asked_round: int
    _asked_index: int
    _rounds_sent: deque[tuple[int, int]]  # (round, tick) of rounds not yet confirmed
    _confirmed_round: int
    _confirmed_tick: int  # when the newest round that a quorum answered was sent
    _lease_held: bool

    def begin_reads(self) -> None:
        self._waiting_reads = []
        self._asked_reads = []
        self._asked_round = 0
        self._asked_index = 0
        self._rounds_sent = deque()
        self._confirmed_round = 0
        self._confirmed_tick = 0
        self._lease_held = False

    def read(self, read_id: int, *, lease: bool = False) -> None:
        """Ask for a linearizable read. Raises NotLeader, or Busy when too many wait."""
        if not self.leads():
            raise NotLeader(self.known_leader())
        if lease and self.has_lease():
            self._reads.append(ReadGrant(read_id, self.read_index()))
            return
        if len(self._waiting_reads) + len(self._asked_reads) >= self.limits.waiting_reads:
            raise Busy(f"{self.limits.waiting_reads} reads wait")
        self._waiting_reads.append(read_id)

    def has_lease(self) -> bool:
        """May this leader answer a read without asking anybody, if clocks can be trusted?"""
        if not self.leads() or self.read_index() < self.reads_from():
            return False
        if self.quorum == 1:
            return True
        return self._confirmed_round > 0 and self.ticks - self._confirmed_tick < self.lease_ticks

    def ask_for_reads(self) -> None:
        """Called by ready(): begin a round if reads wait and none is out."""
        if not self._waiting_reads or self._asked_reads or self.read_index() < self.reads_from():
            return
        self._asked_reads, self._waiting_reads = self._waiting_reads, []
        self._asked_index = self.read_index()
        if self.quorum == 1:
            self._grant_asked_reads()
        else:
            self._asked_round = self.send_round()

    def note_round_sent(self, number: int) -> None:
        self._rounds_sent.append((number, self.ticks))

    def confirm_round(self) -> None:
        """Some follower answered a newer round: has a quorum?"""
        confirmed = sorted(self.rounds_answered())[1 - self.quorum]
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
        index = self._asked_index
        assert self.reads_from() <= index <= self.read_index(), index
        self._reads.extend([ReadGrant(read_id, index) for read_id in self._asked_reads])
        self._asked_reads = []

    def refuse_reads(self) -> None:
        """It leads no longer: whoever waits is told whom to ask."""
        for read_id in self._asked_reads + self._waiting_reads:
            self._reads.append(ReadRefusal(read_id, self.known_leader()))
        self.lose_lease("no longer the leader")
        self.begin_reads()

    def watch_lease(self) -> None:
        if self._lease_held and not self.has_lease():
            self.lose_lease("no quorum answered in time")

    def lose_lease(self, reason: str) -> None:
        if self._lease_held:
            self._lease_held = False
            self.emit("lease_lost", term=self.leads_in(), reason=reason)

    # ---- what a protocol says of itself -----------------------------------------------------

    def leads(self) -> bool:
        """Does it take reads?"""
        raise NotImplementedError

    def leads_in(self) -> int:
        """The number of its leadership: a term, a ballot, a view."""
        raise NotImplementedError

    def known_leader(self) -> NodeId | None:
        """Whom to ask instead, if that is known."""
        raise NotImplementedError

    def read_index(self) -> int:
        """The last index that it knows to be committed."""
        raise NotImplementedError

    def reads_from(self) -> int:
        """The index that must be committed before this leader knows what was before it led."""
        raise NotImplementedError

    def send_round(self) -> int:
        """Send a heartbeat to everybody; returns the number of the round."""
        raise NotImplementedError

    def rounds_answered(self) -> list[int]:
        """Of each other node, the newest round that it has answered."""
        raise NotImplementedError
