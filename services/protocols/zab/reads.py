"""Linearizable reads without a transaction: the leader asks a quorum whether it still leads.

The read is given the commit index when a round of pings begins, and may be answered once a quorum
has answered *that* round. Each of them followed this leader then, so none had promised a later
epoch; a later leader needs the promise of one of them before it can commit anything, so all that
it commits is committed after the read was asked for. And what was committed before this leader's
epoch is in its initial history, which it has committed before it takes reads.

One round serves all reads that wait; while it is out, later ones gather for the next.

*ZooKeeper's reads* are local, at any server, and may be of the past. Its `sync` makes the server
catch up with its leader first; but the leader does not ask a quorum for it, so a leader that has
lost its quorum and does not know yet still answers from the past. The round here closes that gap.
(Reads of `consistency=local` are the service's, and as ZooKeeper's.)

*There is no lease*: a follower that gives its leader up promises the next epoch at once, so a read
with `lease` is confirmed by a round like any other.
"""

from __future__ import annotations

from services.protocols.core import Busy, NotLeader, ReadGrant, ReadRefusal
from services.protocols.zab.leader import Leader


class Reads(Leader):
    """Reads that wait for a round."""

    _waiting_reads: list[int]  # asked for, no round begun for them
    _asked_reads: list[int]  # waiting for the answers to round _asked_round
    _asked_round: int
    _asked_index: int

    def _begin_reads(self) -> None:
        self._waiting_reads = []
        self._asked_reads = []
        self._asked_round = 0
        self._asked_index = 0

    def read(self, read_id: int, *, lease: bool = False) -> None:
        """Ask for a linearizable read. Raises NotLeader, or Busy when too many wait."""
        if not self.leads():
            raise NotLeader(self.leader())
        if len(self._waiting_reads) + len(self._asked_reads) >= self.limits.waiting_reads:
            raise Busy(f"{self.limits.waiting_reads} reads wait")
        self._waiting_reads.append(read_id)

    def ask_for_reads(self) -> None:
        """Called by ready(): begin a round if reads wait and none is out."""
        if not self._waiting_reads or self._asked_reads:
            return
        self._asked_reads, self._waiting_reads = self._waiting_reads, []
        self._asked_index = self.commit_index
        if self.quorum == 1:
            self._grant_asked_reads()
            return
        self.broadcast_pings()
        self._asked_round = self.round_of_pings

    def _confirm_round(self) -> None:
        """Some follower answered a newer round: has a quorum?"""
        rounds = sorted(learner.round for learner in self.learners.values())
        if self._asked_reads and rounds[1 - self.quorum] >= self._asked_round:
            self._grant_asked_reads()

    def _grant_asked_reads(self) -> None:
        assert self.initial_counter <= self._asked_index <= self.commit_index, self._asked_index
        index = self._asked_index
        self._reads.extend(ReadGrant(read_id, index) for read_id in self._asked_reads)
        self._asked_reads = []

    def _refuse_reads(self) -> None:
        for read_id in self._asked_reads + self._waiting_reads:
            self._reads.append(ReadRefusal(read_id, self.leader()))
        self._begin_reads()
