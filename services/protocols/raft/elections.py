"""Elections (§5.2, §5.4.1) with the pre-vote of dissertation §9.6: candidates and voters.

A node that hears no leader for a randomised timeout first asks whether it *could* win (pre-vote);
nobody's term moves for that. Only a majority of yes lets it start the real election. A node that
was cut off therefore comes back with its old term and does not depose a leader that is well.

A node that heard a leader less than `election_ticks` ago says no to a pre-vote and ignores a
RequestVote (§4.2.3), save one marked `transfer`. The lease of a leader stands on this rule.
"""

from __future__ import annotations

from services.protocols.raft.messages import (
    RequestPreVote,
    RequestPreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from services.protocols.raft.state import RaftState, Role


class Elections(RaftState):
    """The candidate's side and the voter's side."""

    # ---- candidate --------------------------------------------------------------------------

    def campaign(self) -> None:
        """The election timer ran out: ask for pre-votes."""
        assert self.role is not Role.LEADER, f"{self.node} leads term {self.term} and campaigns"
        self.role = Role.PRE_CANDIDATE
        self.leader = None
        self.votes = {self.node: True}
        self.reset_election_timer()
        self.emit("become_pre_candidate", term=self.term)
        if self.quorum == 1:
            self.start_election()
            return
        last_index, last_term = self.log.last_index, self.log.last_term
        for peer in self.peers:
            self.send(RequestPreVote(self.node, peer, self.term + 1, last_index, last_term))

    def start_election(self, *, transfer: bool = False) -> None:
        """§5.2: increment the term, vote for self, reset the timer, ask all others."""
        assert self.role is not Role.LEADER, f"{self.node} leads term {self.term} and campaigns"
        self.set_hard_state(self.term + 1, self.node)
        self.role = Role.CANDIDATE
        self.leader = None
        self.votes = {self.node: True}
        self.reset_election_timer()
        self.emit("become_candidate", term=self.term)
        if self.quorum == 1:
            self.become_leader()
            return
        last_index, last_term = self.log.last_index, self.log.last_term
        for peer in self.peers:
            self.send(RequestVote(self.node, peer, self.term, last_index, last_term, transfer))

    def on_request_pre_vote_response(self, message: RequestPreVoteResponse) -> None:
        granted = message.vote_granted
        if not granted and message.term > self.term:
            self.newer_term(message.term, message.src)
            return
        if self.role is not Role.PRE_CANDIDATE or (granted and message.term != self.term + 1):
            return
        if self._count_vote(message.src, granted) is True:
            self.start_election()

    def on_request_vote_response(self, message: RequestVoteResponse) -> None:
        if self.newer_term(message.term, message.src) or self.role is not Role.CANDIDATE:
            return
        if self._count_vote(message.src, message.vote_granted) is True:
            self.become_leader()

    def _count_vote(self, src: str, granted: bool) -> bool | None:
        """True: a majority says yes. False: it cannot be had, back to follower. None: undecided."""
        self.votes.setdefault(src, granted)
        yes = sum(self.votes.values())
        if yes >= self.quorum:
            return True
        if len(self.votes) - yes > len(self.peers) + 1 - self.quorum:
            self.become_follower(self.term, None, "election lost")
            return False
        return None

    def on_timeout_now(self, message: TimeoutNow) -> None:
        """Dissertation §3.10: the leader hands over; no pre-vote, which others would refuse."""
        if message.term < self.term or self.role is Role.LEADER:
            return
        if message.term > self.term:
            self.become_follower(message.term, None, f"{message.src} has a higher term")
        self.start_election(transfer=True)

    # ---- voter ------------------------------------------------------------------------------

    def on_request_pre_vote(self, message: RequestPreVote) -> None:
        refusal = "a leader is alive" if self.hears_leader() else self._refusal(message)
        granted = refusal is None
        # The refused learns our term; the granted is told which question this answers.
        term = message.term if granted else self.term
        self._tell_vote(message.src, message.term, refusal, pre_vote=True)
        self.send(RequestPreVoteResponse(self.node, message.src, term, granted))

    def on_request_vote(self, message: RequestVote) -> None:
        if message.term > self.term:
            if self.hears_leader() and not message.transfer:
                # Neither a vote nor the term: a server that cannot hear the leader would depose it
                # again and again, and a lease would not be worth anything.
                self._tell_vote(message.src, message.term, "a leader is alive", pre_vote=False)
                return
            self.become_follower(message.term, None, f"{message.src} asks for a vote")
        refusal = self._refusal(message)
        if refusal is None:
            self.set_hard_state(self.term, message.src)
            self.reset_election_timer()
        self._tell_vote(message.src, message.term, refusal, pre_vote=False)
        self.send(RequestVoteResponse(self.node, message.src, self.term, refusal is None))

    def _refusal(self, message: RequestVote | RequestPreVote) -> str | None:
        """Why not to vote for this candidate (figure 2, RequestVote rules 1 and 2), or None."""
        if message.term < self.term:
            return "its term is old"
        if message.term == self.term and self.vote not in (None, message.src):
            return f"already voted for {self.vote}"
        if not self.log_is_up_to_date(message.last_log_index, message.last_log_term):
            return "its log is behind"
        return None

    def log_is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        """§5.4.1: the voter denies its vote if its own log is more up-to-date.

        That is the one with the later last term, or, of the same last term, the longer one.
        """
        own = self.log.last_term, self.log.last_index
        return (last_log_term, last_log_index) >= own

    def _tell_vote(self, candidate: str, term: int, refusal: str | None, *, pre_vote: bool) -> None:
        if refusal is None:
            self.emit("grant_vote", candidate=candidate, term=term, pre_vote=pre_vote)
        else:
            self.emit(
                "reject_vote", candidate=candidate, term=term, pre_vote=pre_vote, reason=refusal
            )
