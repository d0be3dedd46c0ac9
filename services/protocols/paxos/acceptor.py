"""The acceptor, the memory of Paxos (*Paxos Made Moderately Complex* §2).

It adopts ballots in rising order, accepts in the one it has adopted, and tells what it accepted.
One rule is added: while it hears a leader it neither promises another ballot nor says that it
would. So a node that cannot hear the leader (but is heard) deposes nobody, and a lease can stand.
"""

from __future__ import annotations

from services.protocols.paxos.messages import P0a, P0b, P1a, P1b, P2a, P2b
from services.protocols.paxos.state import PaxosState, Role


class Acceptor(PaxosState):
    """Phases 0, 1 and 2 on the answering side."""

    # ---- phase 0: would you? ----------------------------------------------------------------

    def on_p0a(self, message: P0a) -> None:
        refusal = self._refusal(message.ballot)
        granted = refusal is None
        self._tell_promise(message.src, message.ballot, refusal, pre_vote=True)
        ballot = message.ballot if granted else self.ballot
        self.send(P0b(self.node, message.src, ballot, granted))

    def _refusal(self, ballot: int) -> str | None:
        if ballot <= self.ballot:
            return f"{self.ballots.text(self.ballot)} is adopted"
        if self.hears_leader():
            return "a leader is alive"
        return None

    def _tell_promise(
        self, scout: str, ballot: int, refusal: str | None, *, pre_vote: bool
    ) -> None:
        fields = {"candidate": scout, "term": ballot, "pre_vote": pre_vote}
        if refusal is None:
            self.emit("grant_vote", **fields)
        else:
            self.emit("reject_vote", **fields, reason=refusal)

    # ---- phase 1: promise -------------------------------------------------------------------

    def on_p1a(self, message: P1a) -> None:
        if not self.ballots.belongs_to(message.ballot, message.src):
            return
        if message.ballot > self.ballot:
            refusal = self._refusal(message.ballot)
            self._tell_promise(message.src, message.ballot, refusal, pre_vote=False)
            if refusal is not None:
                return  # not even our ballot: the scout has nothing to learn from it
            if self.role is Role.CANDIDATE:
                self.back_off()
            self.promise(message.ballot)
            self.become_follower(None, f"{message.src} asks for a higher ballot")
            self.leader = None
            self.reset_election_timer()
        self._answer_p1a(message)

    def _answer_p1a(self, message: P1a) -> None:
        """Our ballot, and all that is accepted and not decided, also when it is a refusal.

        The p1a may be a late one, of a scout whose newer ballot is the one that we have adopted:
        then it takes this for the promise of that ballot, and a promise that told of nothing would
        let it propose what it likes in a slot where a majority has accepted.
        """
        self.send(
            P1b(self.node, message.src, self.ballot, self.slots.decided, self.slots.pvalues())
        )

    # ---- phase 2: accept --------------------------------------------------------------------

    def on_p2a(self, message: P2a) -> None:
        if not self.ballots.belongs_to(message.ballot, message.src):
            return
        if self.is_preempted(message.ballot):
            # Round 0: if it is a late one, of a leader whose newer ballot we have adopted, the
            # round of the old ballot would confirm rounds of the new one that nobody answered.
            self.send(P2b(self.node, message.src, self.ballot, [], 0))
            return
        self._recognise(message.ballot, message.src)
        self._accept_new(message)
        self.hear_decided(message.src, message.ballot, message.decided)
        self._acknowledge(message)

    def is_preempted(self, ballot: int) -> bool:
        """Has this acceptor adopted a higher ballot?"""
        return ballot < self.ballot

    def _recognise(self, ballot: int, src: str) -> None:
        """Only an active leader sends p2a: a majority has adopted its ballot. Follow it."""
        if ballot > self.ballot:
            self.promise(ballot)
        if self.role is not Role.FOLLOWER:
            self.become_follower(src, f"{src} leads")
        if self.leader != src:
            self.emit("follow", leader=src, term=ballot)
        self.leader = src
        self.calm()
        self.reset_election_timer()
        self.refuses_until = self.ticks + self.election_ticks

    def _accept_new(self, message: P2a) -> None:
        slots, ballot = self.slots, message.ballot
        accepted = slots.accepted
        new = [
            entry
            for entry in message.entries
            if entry.index > slots.decided
            and ((held := accepted.get(entry.index)) is None or held.ballot != ballot)
        ]
        if new:
            self.accept(new)

    def _acknowledge(self, message: P2a) -> None:
        """The slots of the message are accepted in its ballot, or decided: which counts as much.

        If F acknowledges a decided slot without accepting ⟨b, s, c⟩, and the leader counts it: any
        scout of a ballot above b that counts the promise of F has learned the decision first
        (P1b.decided), just as it would have learned of ⟨b, s, c⟩ from one that did accept it.
        """
        runs: list[tuple[int, int]] = []
        for entry in message.entries:
            if runs and runs[-1][1] + 1 == entry.index:
                runs[-1] = (runs[-1][0], entry.index)
            else:
                runs.append((entry.index, entry.index))
        pending = self._pending_p2b
        if pending is not None and (pending.dst, pending.ballot) == (message.src, self.ballot):
            # Not handed over yet: one answer serves all that came in since the last ready().
            pending.slots.extend(runs)
            pending.round = max(pending.round, message.round)
            return
        self._pending_p2b = P2b(self.node, message.src, self.ballot, runs, message.round)
        self._messages.append(self._pending_p2b)
