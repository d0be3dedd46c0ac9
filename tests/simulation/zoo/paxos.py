"""Planted bugs: mistakes that people make in Paxos. Each must be found, or the simulation is blind.

A bug is a subclass of `Paxos` with one rule broken, a state machine that forgets, or a driver
that breaks its promise. None of this is ever in the core. Each says which history goes
wrong.
"""

from __future__ import annotations

from typing import Any

from labs.broken import Duelling, PromisesIgnored
from services.protocols.core import Entry
from services.protocols.paxos import Paxos
from services.protocols.paxos.commander import Commander
from services.protocols.paxos.messages import P1b, P2b, Promised, PValue
from tests.simulation.zoo.bug import Bug
from tests.simulation.zoo.machines import SnapshotLosesSessions


class PromiseNotPersisted(Paxos):
    """n3 promises ballot 2.n2 and tells of no pvalue, crashes, forgets, and accepts x in ballot
    1.n1, where it makes the majority: x is chosen, and n2 proposes y in that slot."""

    def _take_records(self) -> list[Any]:
        return [record for record in super()._take_records() if not isinstance(record, Promised)]


class AcceptsLowerBallot(Paxos):
    """A p2a of ballot 1.n1 comes late to n3, which promised 2.n2 and told of no pvalue: it accepts,
    x is chosen in ballot 1.n1, and n2 proposes y in that slot."""

    def is_preempted(self, ballot: int) -> bool:
        return False

    def accept(self, entries: list[Entry]) -> None:
        super().accept([e for e in entries if self._may(e)])

    def _may(self, entry: Entry) -> bool:
        held = self.slots.accepted.get(entry.index)
        return held is None or held.ballot <= self.ballot

    def _recognise(self, ballot: int, src: str) -> None:
        if ballot < self.ballot:
            self.ballot = ballot  # back to what it had left
        super()._recognise(ballot, src)


class ForgetsTheHighestAccepted(Paxos):
    """x is chosen, its leader n1 dies; n2's scout is told of x by every promise, and its leader
    proposes its own command in that slot all the same."""

    def pmax(self) -> dict[int, PValue]:
        return {}

    def become_leader(self) -> None:
        self.slots.accepted.clear()
        super().become_leader()


class ProposesTheLowestAccepted(Paxos):
    """A slot holds x of ballot 1.n1 at one acceptor and y of ballot 2.n2 at a majority: the next
    leader takes the first value that it was told of, x, and y was chosen."""

    def pmax(self) -> dict[int, PValue]:
        lowest: dict[int, PValue] = {}
        promised = [p for promise in self._promises.values() for p in promise.accepted]
        for pvalue in [*self.slots.accepted.values(), *promised]:
            slot = pvalue.entry.index
            if slot > self.slots.decided and (
                slot not in lowest or pvalue.ballot < lowest[slot].ballot
            ):
                lowest[slot] = pvalue
        return lowest


class CountsOneAcceptorTwice(Paxos):
    """The p2b of one acceptor of five arrives twice and makes a majority with the leader's own: the
    leader answers its client, dies, and three that never saw the command choose another one."""

    def on_p2b(self, message: P2b) -> None:
        if message.ballot == self.ballot:
            for first, last in message.slots:
                for slot in range(first, last + 1):
                    commander = self.commanders.get(slot)
                    if commander is not None and message.src in commander.accepted:
                        commander.accepted.add(f"{message.src} {len(commander.accepted)}")
        super().on_p2b(message)


class CountsDifferentBallots(Paxos):
    """n1 accepted x in ballot 1.n1, n2 accepted x in ballot 2.n2, and the new leader n3 takes these
    two reports for a majority: x is decided and in no ballot chosen; y, which n4 accepted in a
    ballot between, or later, wins."""

    def become_leader(self) -> None:
        promises = dict(self._promises)
        super().become_leader()
        self._told = promises

    def spawn_commanders(self) -> None:
        super().spawn_commanders()
        for slot, commander in self.commanders.items():
            self._count_reports(slot, commander)
        self._told = {}
        self.advance()

    _told: dict[str, P1b]

    def _count_reports(self, slot: int, commander: Commander) -> None:
        for src, promise in self._told.items():
            if any(p.entry == commander.entry for p in promise.accepted if p.entry.index == slot):
                commander.accepted.add(src)


class SkipsALearningGap(Paxos):
    """A replica that lacks the decision of slot 4 takes it for a no-op and applies slot 5: from
    there on its state is another one."""

    def hear_decided(self, src: str, ballot: int, upto: int) -> None:
        slots = self.slots
        while slots.decided < upto:
            slot = slots.decided + 1
            pvalue = slots.accepted.get(slot)
            later = any(other > slot for other in slots.accepted)
            if pvalue is None and later:
                slots.decide(Entry(slot, ballot, b""))
            elif pvalue is not None and pvalue.ballot == ballot:
                slots.decide(pvalue.entry)
            else:
                self.catch_up(src, upto)
                return


class DecidesByAnyAcceptance(Paxos):
    """A replica that accepted x in ballot 1.n1 hears in ballot 2.n2 that the slot is decided, and
    takes x for the decision: n2 never heard of x, and decided y."""

    def hear_decided(self, src: str, ballot: int, upto: int) -> None:
        slots = self.slots
        while slots.decided < upto and (pvalue := slots.accepted.get(slots.decided + 1)):
            slots.decide(pvalue.entry)
        super().hear_decided(src, ballot, upto)


class PromiseCountedBeforeLearning(Paxos):
    """An acceptor that decided slot 9 tells of pvalues after it; the scout, which has decided 7,
    counts that promise without learning 8 and 9, and fills them with no-ops."""

    def consider_adoption(self) -> None:
        for promise in self._promises.values():
            promise.decided = 0
        super().consider_adoption()


class StaleReadWithoutConfirmation(Paxos):
    """A leader that is cut off, and does not know yet that another ballot is adopted, answers reads
    from its own state: older than what the other leader has acknowledged."""

    def ask_for_reads(self) -> None:
        if self.slots.decided >= self.takeover_slot:
            self._asked_reads, self._waiting_reads = self._waiting_reads, []
            self._asked_index = self.slots.decided
            self._grant_asked_reads()


class ReadBeforeTakeOver(Paxos):
    """A new leader answers reads before the slots that it took over are decided: the last leader
    had decided them, and answered its client."""

    def become_leader(self) -> None:
        super().become_leader()
        self.takeover_slot = 0


class PromisesThoughALeaderIsAlive(Paxos):
    """A majority answers n1's heartbeat, on which its lease stands, and at once promises n2's
    ballot: n2 decides and answers, and n1 still answers lease reads from its own state."""

    def hears_leader(self) -> bool:
        return False


BUGS = {
    bug.name: bug
    for bug in (
        Bug("promise_not_persisted", PromiseNotPersisted),
        Bug("accepts_lower_ballot", AcceptsLowerBallot),
        Bug("promises_ignored", PromisesIgnored),
        Bug("duelling", Duelling),
        Bug("forgets_the_highest_accepted", ForgetsTheHighestAccepted),
        Bug("proposes_the_lowest_accepted", ProposesTheLowestAccepted),
        Bug("counts_one_acceptor_twice", CountsOneAcceptorTwice),
        Bug("counts_different_ballots", CountsDifferentBallots),
        Bug("skips_a_learning_gap", SkipsALearningGap),
        Bug("decides_by_any_acceptance", DecidesByAnyAcceptance),
        Bug("promise_counted_before_learning", PromiseCountedBeforeLearning),
        Bug("stale_read_without_confirmation", StaleReadWithoutConfirmation, first=560),
        Bug("read_before_take_over", ReadBeforeTakeOver),
        Bug("snapshot_loses_sessions", machine=SnapshotLosesSessions),
        Bug("ack_before_persist", persist_before_send=False),
        Bug("promises_though_a_leader_is_alive", PromisesThoughALeaderIsAlive, first=290),
    )
}
