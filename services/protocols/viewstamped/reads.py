"""Linearizable reads at the primary without a log entry (§6.3): by a quorum, or by a lease.

Both need (1) that the whole log with which the view began is committed: before, the primary does
not know how much of it earlier primaries have answered for.

*Quorum* (`rounds.py`). (2) f backups answer a COMMIT sent *after* the read was asked for. They were
in this view then, so no later view had a quorum, and nothing newer was committed.

*Lease* (§6.3: "only if it holds valid leases from f other replicas"; "a new view will start only
after leases at f + 1 participants in the previous view expire"). A backup that heard the primary
does not suspect it, hence does not move, for `election_ticks`; only the primary itself can release
it, by resigning. So a COMMIT that f answered is a lease of `election_ticks` from when it was
*sent*; it is used for `lease_ticks` of them.
"""

from __future__ import annotations

from services.protocols.core import NodeId
from services.protocols.viewstamped.primary import Primary


class Reads(Primary):
    """What `ReadRounds` has to know of Viewstamped Replication."""

    def leads(self) -> bool:
        return self.leading

    def leads_in(self) -> int:
        return self.view

    def known_leader(self) -> NodeId | None:
        return self.leader

    def read_index(self) -> int:
        return self.commit_number

    def reads_from(self) -> int:
        return self.start_number

    def send_round(self) -> int:
        self.broadcast_commit()
        return self.round

    def rounds_answered(self) -> list[int]:
        return [peer.round for peer in self.others.values()]
