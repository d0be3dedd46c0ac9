"""Recovery (§4.3) of a replica whose disk is empty, and the founding of a group, which begins so.

**Invariant.** A replica takes part (acknowledges, suspects, moves, leads) only if it keeps every
promise that any message of its, from whatever life, still stands for.

A replica that restarts with its disk keeps its promises: it was merely slow. One whose disk was
wiped has acknowledged operations that it does not have. If it answered at once, it and those that
never had an operation could be a quorum, and an operation that another quorum has acknowledged is
lost. So it asks, with a nonce, and waits for "at least f + 1 RECOVERYRESPONSE messages from
different replicas, all containing the nonce it sent", one of them "from the primary of the latest
view it learns of in these messages"; takes that primary's log; and only then is normal again. Of n
replicas (the paper's n is 2f + 1) n − quorum + 1 answers do: with those that took part in any view
change, less the one that recovers, they have one in common.

*The published protocol is not safe* (Michael, Ports, Sharma, Szekeres: *Recovering Shared Objects
Without Stable Storage*, DISC 2017). n3, n4 and n5 send DOVIEWCHANGE for view 2, each is then wiped
and recovers, one after the other, from replicas that have not heard of view 2: all are in view 1
again, and commit x there. The three messages were only slow. They arrive: view 2 begins without x.
As there, the cure is a *crash vector* (`lives`). Each recovery begins a new life: the replica asks
what the others know of its lives (a first round, life 0), takes the next number, and makes them
note it on their disks before they answer (the second round). DOVIEWCHANGE carries its sender's
vector; the primary merges what it gets and counts no message from an earlier life than it knows of.
Of the f + 1 that it counts, one has answered the recovery: after, then its vector exposes the old
message; or before it moved to view 2, then it would have had to move between; or it was in view 2
already when it answered, and the recovered one would be, too.

**Founding.** When a group starts for the first time, all disks are empty, and nobody can answer. An
empty majority is no proof that there is nothing to lose (one wiped and two that were always cut off
are a majority of five). *All n empty at one instant* is. Each disk gets a name when it is found
empty (`incarnation`, on disk before it is said). A replica asks all, twice: if all are empty, with
the same names in both rounds, then between the rounds all were. So it enters the founding view with
an empty log, and tells the names to the others. Whoever is told a founding that has the name of its
own disk was empty then and has promised nothing since: it joins.

Nobody leads the founding view. If its primary could, and was wiped before it told anybody, the
group would be founded again, that replica would lead the same view again, and a PREPARE of the
first time could still be on its way. To move to the next view takes a quorum of founders, and then
no second founding finds all disks empty. The price of it all is that a group cannot begin without
all of its members; from then on a quorum is enough.

If more than f disks are wiped before the first has recovered, operations may be lost, and the group
stands still rather than guess. Wipe all and it begins again, empty.
"""

from __future__ import annotations

from services.protocols.viewstamped.messages import (
    Founding,
    Incarnation,
    Recovery,
    RecoveryResponse,
)
from services.protocols.viewstamped.state import FOUNDING_VIEW, ReplicaState, Status


class Recovering(ReplicaState):
    """Both sides of recovery."""

    _life = 0  # that the present round asks to be noted; 0 in the first round
    _answers: dict[str, RecoveryResponse]
    _empty: dict[str, int] | None = None  # the names of the disks in the round before
    _ask_due = 0

    # ---- the replica that recovers ----------------------------------------------------------

    def begin_recovery(self) -> None:
        """At the start, and again whenever what was begun leads nowhere."""
        assert self.status_ is Status.RECOVERING, f"{self.node} is {self.status_} and recovers"
        if not self.incarnation:
            self.incarnation = self.nonce
            self.record(Incarnation(self.incarnation))
        self.view = 0
        self.leader = None
        self.stop_transfer()
        self._empty = None
        self.emit("become_recovering", incarnation=self.incarnation)
        self._begin_round(0)

    def _begin_round(self, life: int) -> None:
        self.nonce += 1
        self._life = life
        self._answers = {}
        self._ask_all()
        if not self.peers:
            self._found({self.node: self.incarnation})

    def _ask_all(self) -> None:
        self._ask_due = self.ticks + 2 * self.heartbeat_ticks
        for peer in self.peers:
            self.send(Recovery(self.node, peer, self.nonce, self._life, self.incarnation))

    def tick_recovery(self) -> None:
        transfer = self._transfer_in_progress()
        if transfer is None:
            if self.ticks >= self._ask_due:
                self._ask_all()
        elif self.ticks - transfer >= 2 * self.election_ticks:
            self.begin_recovery()  # who leads may have changed

    def _transfer_in_progress(self) -> int | None:
        """The tick of its last progress."""
        raise NotImplementedError

    def on_recovery_response(self, message: RecoveryResponse) -> None:
        if self.status_ is not Status.RECOVERING or self._transfer_in_progress() is not None:
            return
        if message.founding.get(self.node) == self.incarnation:
            if self.log.last_index == 0:
                self._found(message.founding)
            return
        if (message.nonce, message.life) != (self.nonce, self._life):
            return
        self._answers[message.src] = message
        if self._life == 0:
            self._first_round()
        else:
            self._second_round()

    def _responders(self) -> list[RecoveryResponse]:
        return [answer for answer in self._answers.values() if answer.view > 0]

    def enough(self, count: int) -> bool:
        """With any quorum, this replica apart, these have one in common."""
        return count >= len(self.configuration) - self.quorum + 1

    def _first_round(self) -> None:
        responders = self._responders()
        if self.enough(len(responders)):
            known = [self.lives.get(self.node, 0)]
            known += [answer.lives.get(self.node, 0) for answer in responders]
            self._begin_round(max(known) + 1)
        elif not responders and len(self._answers) == len(self.peers) and self.log.last_index == 0:
            empty = {answer.src: answer.incarnation for answer in self._answers.values()}
            if empty == self._empty:
                self._found({self.node: self.incarnation, **empty})
            else:
                self._empty = empty
                self._begin_round(0)

    def _second_round(self) -> None:
        responders = self._responders()
        if not self.enough(len(responders)):
            return
        view = max(answer.view for answer in responders)
        primary = self._answers.get(self.primary(view))
        if primary is None or primary.view != view or not primary.primary:
            return
        for answer in responders:
            for node, life in answer.lives.items():
                self.lives[node] = max(life, self.lives.get(node, 0))
        self.lives[self.node] = self._life
        # From here on like a backup that enters the view, except that it is normal or nothing.
        self.view = view
        self.emit("recover", term=view, leader=primary.src, life=self._life)
        self.transfer_from(primary.src, target=primary.op_number, target_view=primary.op_view)

    def _found(self, founding: dict[str, int]) -> None:
        """An empty log, and a view that nobody leads: the next one needs a quorum of founders."""
        assert self.log.last_index == 0, f"{self.node} founds a group and has {self.log.last_index}"
        self.founding = dict(founding)
        self.record(Founding(self.founding))
        self.view = FOUNDING_VIEW
        self.emit("found", term=self.view)
        self.become_normal()
        for peer in self.peers:
            self.send(self._response(peer, 0, 0))
        self.suspect("the group is founded")

    # ---- the others -------------------------------------------------------------------------

    def on_recovery(self, message: Recovery) -> None:
        """§4.3: "A replica j replies to a RECOVERY message only when its status is normal."

        Or when it is empty itself, or knows the sender for a founder.
        """
        founder = self.founding.get(message.src) == message.incarnation
        if self.status_ is Status.RECOVERING:
            if message.life == 0 and self.log.last_index == 0:  # else it has been told of a group
                self.send(self._response(message.src, message.nonce, 0))
        elif self.status_ is Status.NORMAL or founder:
            if not founder and message.life > self.lives.get(message.src, 0):
                self.lives[message.src] = message.life
                self.record_view()
            if message.life in (0, self.lives.get(message.src, 0)):
                self.send(self._response(message.src, message.nonce, message.life))

    def _response(self, dst: str, nonce: int, life: int) -> RecoveryResponse:
        log = self.log
        return RecoveryResponse(
            self.node,
            dst,
            nonce,
            life,
            self.view,
            self.incarnation,
            dict(self.founding),
            self.leading,
            log.last_index,
            log.last_term,
            self.commit_number,
            dict(self.lives),
        )
