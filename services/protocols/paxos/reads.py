"""Linearizable reads without a slot of their own: by a quorum's confirmation, or by lease.

*Confirmation* (the default; `rounds.py`). The read index is the decided slot when the round begins.
The read may be served once (1) all slots that the leader took over (up to `takeover_slot`) are
decided, and (2) a majority answered in its ballot to a heartbeat sent *after* the read was asked
for. Why that is enough: let a write be acknowledged before the read began, decided in ballot b'. If
b' is below the leader's ballot b, phase 1 found it, so it is among the slots of (1). If b' = b, the
leader decided it itself. If b' > b, a majority had adopted b' by then, and one of them would be in
the majority of (2), and would have answered with a ballot above b. (Raft needs a no-op for (1);
here the scout has found what may be decided, and a take-over that finds nothing can serve reads at
once.)

*Lease.* An acceptor that answered a heartbeat promises no other ballot until `election_ticks`
after it was received (acceptor.py), so no other leader is active before `election_ticks` after it
was *sent*.
"""

from __future__ import annotations

from services.protocols.core import NodeId
from services.protocols.paxos.commander import Commanders
from services.protocols.paxos.state import Role


class Reads(Commanders):
    """What `ReadRounds` has to know of Paxos."""

    def leads(self) -> bool:
        return self.role is Role.LEADER

    def leads_in(self) -> int:
        return self.ballot

    def known_leader(self) -> NodeId | None:
        return self.leader

    def read_index(self) -> int:
        return self.slots.decided

    def reads_from(self) -> int:
        return self.takeover_slot

    def send_round(self) -> int:
        self.broadcast_heartbeat()
        return self.round

    def rounds_answered(self) -> list[int]:
        return [peer.round for peer in self.acceptors.values()]
