"""Phase 1: when to scout, what a scout asks, and when its ballot is adopted.

*When.* A node that hears no leader for a random time first asks who would promise (P0a), and only
with a majority's yes does it take a ballot. A node that was cut off comes back with its old ballot.

*AIMD* (*Paxos Made Moderately Complex* §3): additive increase, multiplicative decrease as in TCP,
turned round for a timeout. Without it two leaders can preempt each other for ever. `patience`
grows by half when an attempt fails or is preempted, and shrinks by one tick with each sign of a
leader that gets on. It stays between `election_ticks` and twice that, so a take-over stays prompt,
and each timeout is random in [patience, 2 · patience): whoever is ahead gets through.

*What.* Phase 1 is run once for all slots. An acceptor answers with its pvalues beyond the slot up
to which it knows all decisions, and with that slot. The scout counts the promise once it has
decided as much itself (it asks that acceptor: replica.py), so P1b stays as small as the window
however far behind the scout is, and an acceptor may collect what is decided.
"""

from __future__ import annotations

from services.protocols.core import NodeId
from services.protocols.paxos.messages import P0a, P0b, P1a, P1b, PValue
from services.protocols.paxos.state import PaxosState, Role


class Scout(PaxosState):
    """From passive to active."""

    _scout_ballot = 0  # asked about in phase 0, and taken if it is granted
    _granted: set[NodeId]  # who would promise it
    _promises: dict[NodeId, P1b]
    _ask_due = 0  # the tick at which those who have not answered are asked again

    def campaign(self) -> None:
        """The timer ran out."""
        assert self.role is not Role.LEADER, f"{self.node} leads {self.ballot} and campaigns"
        if self.role is not Role.FOLLOWER:
            self.back_off()  # the attempt before this one came to nothing
        self.role = Role.PRE_CANDIDATE
        self.leader = None
        self._scout_ballot = self.ballots.next(max(self.ballot, self.seen), self.node)
        self._granted, self._promises = {self.node}, {}
        self.reset_election_timer()
        self.emit("become_pre_candidate", term=self._scout_ballot)
        self._ask()
        self._consider_grants()

    def _consider_grants(self) -> None:
        if self.role is Role.PRE_CANDIDATE and len(self._granted) >= self.quorum:
            self.start_scout()

    def start_scout(self) -> None:
        """Take the ballot. It goes on record before any p1a leaves, so it is never taken twice."""
        self.promise(self._scout_ballot)
        self.role = Role.CANDIDATE
        self.reset_election_timer()
        self.emit("become_candidate", term=self.ballot)
        self._ask()
        self.consider_adoption()

    def _ask(self) -> None:
        """Ask those who have not answered; again every heartbeat period, for messages get lost.

        But phase 0 is asked once in a campaign. Asked again and again, a node that is deaf to the
        leader would gather its majority from different moments: a yes of one that has heard the
        leader since, and of the next one when the leader pauses the next time.
        """
        self._ask_due = self.ticks + self.heartbeat_ticks
        for peer in self.peers:
            if self.role is Role.PRE_CANDIDATE and peer not in self._granted:
                self.send(P0a(self.node, peer, self._scout_ballot))
            elif self.role is Role.CANDIDATE and peer not in self._promises:
                self.send(P1a(self.node, peer, self.ballot))

    def tick_scout(self) -> None:
        if self.ticks >= self.election_deadline:
            self.campaign()
        elif self.role is Role.CANDIDATE and self.ticks >= self._ask_due:
            self._ask()
            self.consider_adoption()

    # ---- answers ----------------------------------------------------------------------------

    def on_p0b(self, message: P0b) -> None:
        if not message.granted:
            self.seen = max(self.seen, message.ballot)
        elif self.role is Role.PRE_CANDIDATE and message.ballot == self._scout_ballot:
            self._granted.add(message.src)
            self._consider_grants()

    def on_p1b(self, message: P1b) -> None:
        if message.ballot > self.ballot:
            self.preempted(message.ballot, message.src)
        elif self.role is Role.CANDIDATE and message.ballot == self.ballot:
            self._promises[message.src] = message
            self.consider_adoption()

    def consider_adoption(self) -> None:
        """Has a majority promised, none of which knows of a decision that we do not know?"""
        if self.role is not Role.CANDIDATE:
            return
        decided = self.slots.decided
        behind = [promise for promise in self._promises.values() if promise.decided > decided]
        if 1 + len(self._promises) - len(behind) >= self.quorum:
            self.become_leader()
            return
        if behind and 1 + len(self._promises) >= self.quorum:
            furthest = max(behind, key=lambda promise: promise.decided)
            self.catch_up(furthest.src, furthest.decided)

    def pmax(self) -> dict[int, PValue]:
        """Per slot that may be decided the pvalue of the highest ballot (the paper's pmax).

        For any other value in such a slot there would be a majority that accepted one, and a
        ballot that proposes another: invariant C2 broken.
        """
        highest = dict(self.slots.accepted)
        for promise in self._promises.values():
            for pvalue in promise.accepted:
                slot = pvalue.entry.index
                if slot > self.slots.decided and (
                    slot not in highest or pvalue.ballot > highest[slot].ballot
                ):
                    highest[slot] = pvalue
        return highest

    # ---- live-lock --------------------------------------------------------------------------

    def preempted(self, ballot: int, src: NodeId) -> None:
        """An acceptor has adopted a higher ballot: this one will not be adopted, or no more."""
        self.seen = max(self.seen, ballot)
        if self.role in (Role.CANDIDATE, Role.LEADER):
            self.back_off()
            text = self.ballots.text(ballot)
            self.become_follower(None, f"preempted: {src} has adopted {text}")

    def back_off(self) -> None:
        """Multiplicative: an attempt failed, give whoever else tries more time."""
        self.patience = min(self.patience * 3 // 2 + 1, 2 * self.election_ticks)

    def calm(self) -> None:
        """Additive: a leader gets on."""
        self.patience = max(self.patience - 1, self.election_ticks)

    def _leave_campaign(self) -> None:
        self._granted, self._promises = set(), {}
