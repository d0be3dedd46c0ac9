"""Planted bugs: mistakes that people make in a causally consistent store. See zoo/bug.py."""

from __future__ import annotations

from typing import Any

from services.protocols.causal import Causal, Session, Write
from services.protocols.causal.logs import Log
from services.protocols.causal.messages import Applied, Have, Replicate
from services.protocols.causal.sessions import Operation, covers
from tests.simulation.zoo.bug import Bug


class DependencyCheckSkipped(Causal):
    """A write is shown as soon as it comes: the answer, while the question is still on its way."""

    def _satisfied(self, write: Write) -> bool:
        return True

    def _apply(self, write: Write) -> None:
        self._note(write)
        self._out.persist.append(Applied(write))


class NewerVersionSatisfies(Causal):
    """dep_check by key and version: a later, concurrent write of the key stands for one that never
    came, and what *that* depended on is still missing when its effect is shown."""

    def _satisfied(self, write: Write) -> bool:
        missing = {
            name: number for name, number in write.depends.items() if self.has(name) < number
        }
        newest = max((each.time for each in self.states.values()), default=0)
        return not missing or newest >= write.time

    _apply = DependencyCheckSkipped._apply


class TokenIgnored(Causal):
    """The node does not heed what the session has seen: who wrote at n1 reads the past at n2."""

    def _begin(self, operation: Operation) -> None:
        self._carry_out(operation)

    _apply = DependencyCheckSkipped._apply


class CountsUnderItsOwnName(Causal):
    """Writes are numbered under the node's name: one whose disk was lost begins with 1 again, which
    all others have already."""

    def __init__(self, node: str, *arguments: Any, **how: Any) -> None:
        super().__init__(node, *arguments, **how)
        self.disk = f"{node}-"


class NoRefill(Causal):
    """Who has lost its disk waits for logs to bring back what they have no longer."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.refill.consider = lambda message: None  # type: ignore[method-assign]


class VectorEntryNotAdvanced(Causal):
    """A session's token is not moved on by its writes: it does not find them at the next node."""

    def ready(self) -> Any:
        out = super().ready()
        for reply in out.replies:
            if reply.write is not None and reply.write.origin == self.disk:
                written = {
                    name: n for name, n in reply.session.written.items() if name != self.disk
                }
                reply.session = Session(reply.session.read, written)
        return out


class ReadsLeaveNoTrace(Causal):
    """A read is not added to what the session has seen: the next node shows it the past."""

    def _carry_out(self, operation: Operation) -> None:
        super()._carry_out(operation)
        if not operation.writes:
            self._out.replies[-1].session = operation.session


class WritesForgetWhatWasRead(Causal):
    """A write depends on its session's writes alone: the answer travels without its question."""

    def _carry_out(self, operation: Operation) -> None:
        if operation.writes and operation.level == "causal":
            operation.level = "session"
        super()._carry_out(operation)


class LastToArriveWins(Causal):
    """A replica keeps what came last and not the greater version: two replicas that hear two
    writes in different orders stay apart."""

    def _note(self, write: Write) -> None:
        super()._note(write)
        self._hold(write)


class ClockNotMovedOn(Causal):
    """A node does not learn the time of what it receives: a write that replaces what its client has
    read gets the smaller version, and loses against it everywhere."""

    def _note(self, write: Write) -> None:
        before = self.clock.time
        super()._note(write)
        if write.origin != self.disk:
            self.clock.time = before


class SentOnce(Causal):
    """What is lost on the way is not sent again."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **{**how, "anti_entropy_ticks": 0})

    def _resend(self, peer: str) -> None:
        return


class KnownBecauseSent(Causal):
    """What was sent counts as received: a write that was lost is never sent again."""

    def send(self, message: Any) -> None:
        super().send(message)
        if isinstance(message, Replicate):
            for write in message.writes:
                self.known[message.dst][write.origin] = write.number


class HaveBeforeHaving(Causal):
    """A node says that it has what waits for its causes, and crashes: nobody sends it again."""

    def send(self, message: Any) -> None:
        if isinstance(message, Have):
            for origin, pending in self.pending.items():
                message.applied[origin] = max([self.has(origin), *pending])
        super().send(message)


class LateArrivalsDropped(Causal):
    """Of writes that overtake each other the later one is kept, the earlier one taken for known:
    what is between them is missing for ever."""

    def _receive(self, write: Write) -> bool:
        received = super()._receive(write)
        pending: dict[int, Write] = self.pending.get(write.origin, {})
        if pending and self.has(write.origin) + 1 not in pending:
            self.applied[write.origin] = min(pending) - 1
            self.logs[write.origin] = Log(min(pending) - 1)
        return received


class GivenUpAndDoneAllTheSame(Causal):
    """Who has waited for too long is told that nothing happened, and then it happens."""

    def withdraw(self, request: int) -> bool:
        return request in self.waiting


class OnlyRemoteWritesOnDisk(Causal):
    """Its own writes a node keeps in memory until a peer has them: a crash forgets them, and their
    dots are given out again."""

    def ready(self) -> Any:
        out = super().ready()
        out.persist = [
            each
            for each in out.persist
            if not (isinstance(each, Applied) and each.write.origin == self.disk)
        ]
        return out


class WaitsForOneOfThem(Causal):
    """A session that has seen writes of two origins is served where those of one of them are."""

    def _begin(self, operation: Operation) -> None:
        wanted = operation.required
        if any(covers(self.applied, {name: number}) for name, number in wanted.items()):
            self._carry_out(operation)
        else:
            super()._begin(operation)

    _apply = DependencyCheckSkipped._apply


BUGS = {
    bug.name: bug
    for bug in (
        Bug("dependency_check_skipped", DependencyCheckSkipped),
        Bug("newer_version_satisfies", NewerVersionSatisfies),
        Bug("token_ignored", TokenIgnored),
        Bug("counts_under_its_own_name", CountsUnderItsOwnName),
        Bug("no_refill", NoRefill),
        Bug("vector_entry_not_advanced", VectorEntryNotAdvanced),
        Bug("reads_leave_no_trace", ReadsLeaveNoTrace),
        Bug("writes_forget_what_was_read", WritesForgetWhatWasRead),
        Bug("last_to_arrive_wins", LastToArriveWins),
        Bug("clock_not_moved_on", ClockNotMovedOn),
        Bug("sent_once", SentOnce),
        Bug("known_because_sent", KnownBecauseSent),
        Bug("have_before_having", HaveBeforeHaving),
        Bug("late_arrivals_dropped", LateArrivalsDropped),
        Bug("given_up_and_done_all_the_same", GivenUpAndDoneAllTheSame),
        Bug("only_remote_writes_on_disk", OnlyRemoteWritesOnDisk),
        Bug("waits_for_one_of_them", WaitsForOneOfThem),
        Bug("ack_before_persist", persist_before_send=False),
    )
}
