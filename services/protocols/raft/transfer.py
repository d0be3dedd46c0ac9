"""Leadership transfer (dissertation §3.10): bring the target up to date, tell it to campaign now.

While it lasts proposals are refused (Busy), so that the target can catch up. It ends when another
leader appears, or after an election timeout: then this leader goes on. In both cases the lease is
not used again in this term: the TimeoutNow may still be on its way, and its target would be
elected by voters that hear this leader.
"""

from __future__ import annotations

from services.protocols.core import Busy, NodeId, NotLeader
from services.protocols.raft.messages import TimeoutNow
from services.protocols.raft.reads import Reads
from services.protocols.raft.state import Role


class Transfer(Reads):
    """The leader's side of a transfer."""

    _transfer_deadline = 0  # the tick at which it is given up

    def transfer_leadership(self, target: NodeId) -> None:
        """Hand leadership to `target`; events tell how it goes.

        Raises NotLeader; Busy while another transfer is under way; ValueError if `target` is not
        a member. To the leader itself: nothing to do.
        """
        if self.role is not Role.LEADER:
            raise NotLeader(self.leader)
        if target == self.node:
            return
        if target not in self.progress:
            raise ValueError(f"{target} is not a member")
        if self.transfer_target is not None:
            raise Busy(f"leadership is being transferred to {self.transfer_target}")
        self.transfer_target = target
        self._transfer_deadline = self.ticks + self.election_ticks
        self.emit("transfer_begin", target=target, term=self.term)
        self._continue_transfer()

    def _continue_transfer(self) -> None:
        """Is the target up to date? Repeated at each of its answers: a TimeoutNow may be lost."""
        target = self.transfer_target
        assert target is not None
        if self.progress[target].match_index == self.log.last_index:
            self.give_up_lease()
            self.emit("transfer_timeout_now", target=target, term=self.term)
            self.send(TimeoutNow(self.node, target, self.term))

    def _watch_transfer(self) -> None:
        if self.transfer_target is not None and self.ticks >= self._transfer_deadline:
            self.emit("transfer_abort", target=self.transfer_target, term=self.term)
            self._end_transfer()

    def _end_transfer(self) -> None:
        self.transfer_target = None
