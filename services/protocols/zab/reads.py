"""Linearizable reads without a transaction: the leader asks a quorum whether it still leads.

The read is given the commit index when a round of pings begins, and may be answered once a quorum
has answered *that* round (`rounds.py`). Each of them followed this leader then, so none had
promised a later epoch; a later leader needs the promise of one of them before it can commit
anything, so all that it commits is committed after the read was asked for. And what was committed
before this leader's epoch is in its initial history, which it has committed before it takes reads.

*ZooKeeper's reads* are local, at any server, and may be of the past. Its `sync` makes the server
catch up with its leader first; but the leader does not ask a quorum for it, so a leader that has
lost its quorum and does not know yet still answers from the past. The round here closes that gap.
(Reads of `consistency=local` are the service's, and as ZooKeeper's.)

*There is no lease*: a follower that gives its leader up promises the next epoch at once, so a read
with `lease` is confirmed by a round like any other.
"""

from __future__ import annotations

from services.protocols.core import NodeId
from services.protocols.zab.leader import Leader


class Reads(Leader):
    """What `ReadRounds` has to know of Zab."""

    def leads_in(self) -> int:
        return self.accepted_epoch

    def known_leader(self) -> NodeId | None:
        return self.leader()

    def read_index(self) -> int:
        return self.commit_index

    def reads_from(self) -> int:
        return self.initial_counter

    def send_round(self) -> int:
        self.broadcast_pings()
        return self.round_of_pings

    def rounds_answered(self) -> list[int]:
        return [learner.round for learner in self.learners.values()]
