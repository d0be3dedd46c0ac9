"""Planted bugs: mistakes that people make with many leaders. See zoo/bug.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.protocols.clocks import HybridClock, Timestamp, merge
from services.protocols.leaderless import Disk
from services.protocols.multi_leader import MultiLeader, State, Write
from services.protocols.multi_leader.messages import Have, Ship, States, Whole
from services.protocols.multi_leader.versions import of
from tests.simulation.zoo.bug import Bug


class LastToArriveWins(MultiLeader):
    """A node shows what came last, not what is newest: two nodes hear two writes in different
    orders and stay apart."""

    def settle(self, key: str, state: State) -> None:
        before = self.state(key)
        super().settle(key, state)
        if self.state(key) != before:
            self.states[key] = State(state.latest, merge(before.vector, state.vector))


class VectorEntryNotAdvanced(MultiLeader):
    """A leader's write does not say that it has seen what it got from another leader: a plain
    overwriting is told as a conflict, everywhere."""

    def _take(self, write: Write) -> None:
        if write.log == self.disk:
            seen = {log: last for log, last in write.seen.items() if log == self.disk}
            write = replace(write, seen=seen)
        super()._take(write)


class RetransmissionAppliedTwice(MultiLeader):
    """What is sent again is taken again: a deleted key is back, a conflict is counted twice, and
    the log has one write in two places."""

    def step(self, message: Any) -> None:
        if isinstance(message, Ship):
            for write in message.writes:
                if write.sequence <= self.vector_of(write.log):
                    self._out.persist.append(write)
                    self.states[write.key] = of(write)
        super().step(message)


class SkipsTheGap(MultiLeader):
    """A message was lost, the next one is taken: the node's vector says that it has what it lacks,
    and nobody sends that again."""

    def step(self, message: Any) -> None:
        if isinstance(message, Ship):
            for write in message.writes:
                if write.sequence > self.vector_of(write.log) + 1:
                    self.take_vector({write.log: write.sequence - 1})
        super().step(message)


class _WallClock(HybridClock):
    def tick(self, wall: int) -> Timestamp:
        self.last = max(self.last, Timestamp(wall, 0))
        return Timestamp(wall, 0)


class WallClockStamps(MultiLeader):
    """Writes are dated by the wall clock alone: a leader whose clock is slow overwrites what it
    shows, says "ok", and shows it still."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        clock = _WallClock()
        clock.last = self.clock.last
        self.clock = clock


class NewDiskOldName(MultiLeader):
    """The log is named after its node: with a new disk it begins at number 1 again, and whoever has
    the old number 1 takes the new one for known."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.disk = self.node
        for record in self._out.persist:
            if isinstance(record, Disk):
                record.name = self.node


class ForgetsDeletions(MultiLeader):
    """A deleted key is forgotten, not marked: an older write that comes late brings it back."""

    def settle(self, key: str, state: State) -> None:
        super().settle(key, state)
        latest = self.state(key).latest
        if latest is not None and latest.value is None and latest.log != self.disk:
            del self.states[key]


class ShipsItsOwnAlone(MultiLeader):
    """A leader told one of two others and lost its disk; the one that was told keeps it to itself,
    and they never agree."""

    def _feed(self, neighbour: Any) -> None:
        looked = self._looked
        self._looked = {log: last for log, last in looked.items() if log == self.disk}
        super()._feed(neighbour)
        self._looked = looked


class TakesTheVectorFirst(MultiLeader):
    """With the first piece of another's state comes the vector of all of it; the other dies before
    the second piece, and nobody sends what is missing."""

    def step(self, message: Any) -> None:
        if isinstance(message, States):
            whole = Whole(message.states, message.vector, self.conflicts)
            self.keep(whole)
            self.take_whole(whole)
        super().step(message)


class TakesPiecesWithoutTheVector(MultiLeader):
    """Pieces of another's state are kept as they come; the other loses its disk before the last
    one, and of what was in them and in no log nobody else will ever hear."""

    def step(self, message: Any) -> None:
        if isinstance(message, States):
            whole = Whole(message.states, {}, self.conflicts)
            self.keep(whole)
            self.take_whole(whole)
        super().step(message)


class TakesTheVectorLast(MultiLeader):
    """The vector of the last piece is taken for that of the first: what was written in between to
    keys of the first pieces is skipped."""

    def step(self, message: Any) -> None:
        if isinstance(message, States):
            self.refill._vector = message.vector
        super().step(message)


class AttemptsNotTold(MultiLeader):
    """The late answer to an earlier question, of a time when the other had nothing yet, ends the
    one that is being asked now."""

    def step(self, message: Any) -> None:
        if isinstance(message, States):
            message = replace(message, attempt=self.refill._attempt)
        super().step(message)


class BelievesAnOldDisk(MultiLeader):
    """What a neighbour had on its old disk is believed of its new one: it is never sent again."""

    def _heard(self, neighbour: Any, message: Have) -> None:
        if neighbour.disk:
            message = Have(message.src, message.dst, neighbour.disk, message.vector, message.begins)
        super()._heard(neighbour, message)


class RefillNotOnDisk(MultiLeader):
    """The states that a node was given are in memory, its vector is on disk: after a crash it has
    nothing, and says that it has all."""

    def keep(self, record: Any) -> None:
        if isinstance(record, Whole):
            record = Whole([], record.vector, record.conflicts)
        super().keep(record)


class SeesOnlyWhatStands(MultiLeader):
    """A write says that it has seen the one that it replaces, not what that one replaced: the
    latter comes late by another way, and is told as a conflict."""

    def settle(self, key: str, state: State) -> None:
        super().settle(key, state)
        latest = self.state(key).latest
        if latest is not None:
            self.states[key] = State(latest, {latest.log: latest.sequence})


class LogForgottenTooEarly(MultiLeader):
    """A log drops what one neighbour has, not what all have; the others are not told that it begins
    later, and wait for ever."""

    def _forget(self) -> None:
        for name, log in self.logs.items():
            had = max((each.has(name) for each in self.ships_to.values()), default=0)
            log.forget(had)

    def _have(self, name: str) -> None:
        self.send(Have(self.node, name, self.disk, self.vector, {}))


BUGS = {
    bug.name: bug
    for bug in (
        Bug("last_to_arrive_wins", LastToArriveWins),
        Bug("vector_entry_not_advanced", VectorEntryNotAdvanced),
        Bug("retransmission_applied_twice", RetransmissionAppliedTwice),
        Bug("skips_the_gap", SkipsTheGap),
        Bug("wall_clock_stamps", WallClockStamps),
        Bug("new_disk_old_name", NewDiskOldName),
        Bug("forgets_deletions", ForgetsDeletions),
        Bug("ships_its_own_alone", ShipsItsOwnAlone),
        Bug("takes_the_vector_first", TakesTheVectorFirst),
        Bug("takes_pieces_without_the_vector", TakesPiecesWithoutTheVector, first=130),
        Bug("takes_the_vector_last", TakesTheVectorLast),
        Bug("attempts_not_told", AttemptsNotTold, first=225),
        Bug("believes_an_old_disk", BelievesAnOldDisk),
        Bug("refill_not_on_disk", RefillNotOnDisk),
        Bug("sees_only_what_stands", SeesOnlyWhatStands),
        Bug("log_forgotten_too_early", LogForgottenTooEarly),
        Bug("ack_before_persist", persist_before_send=False),
    )
}
