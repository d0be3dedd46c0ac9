"""Linearizable reads without a log entry (§8; dissertation §6.4): ReadIndex, and the lease.

ReadIndex. The read index is the commit index when the round begins (`rounds.py`). It may be
answered once (1) an entry of the leader's own term has committed, so that the commit index is not
that of a newcomer who does not know yet; and (2) a majority answered a heartbeat sent *after* the
read was asked for, so that no other leader had committed anything newer by then.

Lease. A majority that answered a heartbeat votes for nobody until `election_ticks` after it was
received (elections.py), unless the leader itself tells a follower to stand (transfer.py): then it
gives its lease up first.
"""

from __future__ import annotations

from services.protocols.core import NodeId
from services.protocols.raft.leader import Leader
from services.protocols.raft.state import Role


class Reads(Leader):
    """What `ReadRounds` has to know of Raft."""

    _lease_given_up: bool  # a TimeoutNow is about: its target may be elected at any time

    def begin_reads(self) -> None:
        super().begin_reads()
        self._lease_given_up = False

    def has_lease(self) -> bool:
        return not self._lease_given_up and super().has_lease()

    def give_up_lease(self) -> None:
        self._lease_given_up = True
        self.lose_lease("a transfer of leadership has begun")

    def leads(self) -> bool:
        return self.role is Role.LEADER

    def leads_in(self) -> int:
        return self.term

    def known_leader(self) -> NodeId | None:
        return self.leader

    def read_index(self) -> int:
        return self.commit_index

    def reads_from(self) -> int:
        return self.no_op_index

    def send_round(self) -> int:
        self.broadcast_heartbeat()
        return self.round

    def rounds_answered(self) -> list[int]:
        return [peer.round for peer in self.progress.values()]
