"""Planted bugs: mistakes that people make in a store without a leader. See zoo/bug.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.protocols.quorum import Quorum, Siblings
from services.protocols.quorum.coordinator import Operation
from services.protocols.quorum.merkle import MerkleTree, Path
from services.protocols.quorum.messages import (
    HandOff,
    Hinted,
    ReadReply,
    Replicate,
    Replicated,
    Stored,
)
from services.protocols.quorum.versions import join, merge
from tests.simulation.zoo.bug import Bug


class VectorEntryNotAdvanced(Quorum):
    """n1 gives its next write the dot of its last one: who has the old one takes the new for known,
    and they never agree."""

    def write(self, request: int, key: str, value: bytes | None, **how: Any) -> None:
        counter = self.state(key).context.get(self.disk, 0)
        super().write(request, key, value, **how)
        state = self.states.get(key)
        if counter and state is not None:
            for version in state.versions:
                if version.dot == (self.disk, counter + 1):
                    version.counter = counter
            state.context[self.disk] = counter


class CountsUnderItsOwnName(Quorum):
    """Dots are named after the node: one whose disk was lost counts from 1 again, and whoever has
    its first write takes the new one for known."""

    def __init__(self, node: str, *arguments: Any, **how: Any) -> None:
        super().__init__(node, *arguments, **how)
        self.disk = node


class ContextOfTheCoordinator(Quorum):
    """A blind write replaces all that its coordinator has, as if its client had read it: the value
    that another client has just been told is safe is gone."""

    def write(
        self,
        request: int,
        key: str,
        value: bytes | None,
        *,
        stamp: int,
        context: Mapping[str, int],
        quorum: int | None = None,
    ) -> None:
        known = join(context, self.state(key).context)
        super().write(request, key, value, stamp=stamp, context=known, quorum=quorum)


class LastToArriveWins(Quorum):
    """A replica keeps what came last, not what is newest: two replicas hear two writes in different
    orders and stay apart."""

    def merge(self, one: Siblings, other: Siblings) -> Siblings:
        if self.conflicts != "last-write-wins":
            return super().merge(one, other)
        return Siblings(join(one.context, other.context), other.versions or one.versions)


class MergeKeepsOneSibling(Quorum):
    """Of two concurrent versions the greater dot survives: an acknowledged write is gone, though
    nobody who replaced it had seen it."""

    def store(self, key: str, state: Siblings) -> Siblings:
        merged = merge(self.state(key), state)
        if len(merged.versions) > 2:
            merged = Siblings(merged.context, merged.versions[-1:])
            self.states[key] = merged
            self._out.persist.append(Stored(key, merged))
            return merged
        return super().store(key, state)


class HintDropped(Quorum):
    """A stand-in forgets its hint once it has sent it: the owner has never heard it, and of the W
    copies that were promised one is gone."""

    def tick(self) -> None:
        super().tick()
        for message in self._out.messages:
            if isinstance(message, HandOff):
                self.hints.pop((message.dst, message.key), None)
                self._out.persist.append(Hinted(message.dst, message.key, Siblings()))


class HintHandedOverTwiceIsOld(Quorum):
    """The answer to an older hint takes away the newer one, which was never handed over: of the W
    copies that were promised one is gone."""

    def _handed_off(self, message: Any) -> None:
        at = message.src, message.key
        if self.hints.pop(at, None) is not None:
            self._out.persist.append(Hinted(*at, Siblings()))


class AnswersCountedTwice(Quorum):
    """A repeated answer of one replica counts as that of another: W = 2 is met by one disk, R = 2
    by one memory, and a read misses an acknowledged write."""

    def _count(self, message: Replicated | ReadReply) -> None:
        operation = self.operations.get(message.request)
        if operation is None or message.session != self.session:
            return
        already = message.src in operation.heard
        super()._count(message)
        if already and message.request in self.operations and not operation.told:
            operation.need -= 1
            self._end_if_done(operation)


class SessionNotChecked(Quorum):
    """An answer to a request of the coordinator's earlier life counts for the one that has its
    number now: it says that a copy is safe which was never sent."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.session = 0
        self._numbers: dict[int, int] = {}

    def _begin(self, operation: Operation) -> Operation:
        self._numbers[len(self._numbers)] = operation.request
        return super()._begin(operation)

    def step(self, message: Any) -> None:
        if isinstance(message, Replicated | ReadReply):
            waiting = list(self.operations)
            if waiting and message.request not in self.operations:
                message.request = waiting[0]
        super().step(message)


class ReadsItsOwnCopyAlone(Quorum):
    """A read is answered from the coordinator's own copy, whatever R says: it misses a write that
    two other replicas have acknowledged."""

    def read(self, request: int, key: str, *, quorum: int | None = None) -> None:
        super().read(request, key, quorum=1)


class WritesOneShort(Quorum):
    """The coordinator answers one copy before W: with R + W = N + 1 the quorums need not meet."""

    def write(self, request: int, key: str, value: bytes | None, **how: Any) -> None:
        how["quorum"] = max(1, self.write_quorum - 1)
        super().write(request, key, value, **how)


class NoAntiEntropy(Quorum):
    """Nobody reads a key that one replica missed, no hint was kept for it: it stays behind for
    ever."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **{**how, "anti_entropy_ticks": 0, "read_repair": False})


class _HalfBlindTree(MerkleTree):
    def hash(self, path: Path) -> bytes:
        return b"" if path and path[0] >= 8 else super().hash(path)


class ComparesTheWrongRange(Quorum):
    """The comparison leaves out the upper half of the hashes: keys there differ for ever."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **{**how, "read_repair": False})
        for peer in self._peers:
            self.synchronisation.tree(peer).__class__ = _HalfBlindTree


class RepairReplaces(Quorum):
    """What a read repair brings replaces what is here instead of being merged: a write that came
    between the read and its repair is gone."""

    def step(self, message: Any) -> None:
        if type(message).__name__ == "Repair":
            self.states[message.key] = message.state
            self._out.persist.append(Stored(message.key, message.state))
            self.synchronisation.changed(message.key)
        else:
            super().step(message)


class SendsTheVersionAlone(Quorum):
    """A write travels without its siblings, but with their context: who lacks them takes them for
    replaced."""

    def send(self, message: Any) -> None:
        if isinstance(message, Replicate) and len(message.state.versions) > 1:
            newest = max(message.state.versions, key=lambda version: version.stamp)
            message.state = Siblings(message.state.context, [newest])
        super().send(message)


class HintsNotOnDisk(Quorum):
    """A stand-in keeps its hint in memory, and crashes: the copy that W counted is gone."""

    def ready(self) -> Any:
        out = super().ready()
        out.persist = [record for record in out.persist if not isinstance(record, Hinted)]
        return out


BUGS = {
    bug.name: bug
    for bug in (
        Bug("vector_entry_not_advanced", VectorEntryNotAdvanced),
        Bug("counts_under_its_own_name", CountsUnderItsOwnName),
        Bug("context_of_the_coordinator", ContextOfTheCoordinator),
        Bug("last_to_arrive_wins", LastToArriveWins),
        Bug("merge_keeps_one_sibling", MergeKeepsOneSibling),
        Bug("hint_dropped", HintDropped),
        Bug("hint_handed_over_twice_is_old", HintHandedOverTwiceIsOld),
        Bug("answers_counted_twice", AnswersCountedTwice),
        Bug("session_not_checked", SessionNotChecked),
        Bug("reads_its_own_copy_alone", ReadsItsOwnCopyAlone),
        Bug("writes_one_short", WritesOneShort),
        Bug("no_anti_entropy", NoAntiEntropy),
        Bug("compares_the_wrong_range", ComparesTheWrongRange),
        Bug("repair_replaces", RepairReplaces),
        Bug("sends_the_version_alone", SendsTheVersionAlone),
        Bug("hints_not_on_disk", HintsNotOnDisk),
        Bug("ack_before_persist", persist_before_send=False),
    )
}
