"""Planted bugs: mistakes that people make with data types that merge. See zoo/bug.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.protocols.crdt import GCounter, IdempotentCounter, ORSet, PNCounter, Sequence
from services.protocols.crdt.dots import Dots
from services.protocols.quorum import Quorum, Siblings
from services.protocols.quorum.data import Data, Increment, Update
from services.protocols.quorum.messages import HandOff, Repair, Stored
from tests.simulation.zoo.bug import Bug


class RetryCountsAgain(Quorum):
    """A name is not heeded: n1 has counted and can't be reached, the client asks n2, which counts
    as well."""

    def update(self, request: int, key: str, what: Update, **how: Any) -> None:
        if isinstance(what, Increment):
            what = Increment(what.by)
        super().update(request, key, what, **how)


class NamesInMemory(Quorum):
    """A node remembers by itself, in memory, which names it has counted: a repetition at another
    node, or after its restart, counts again."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self._names: set[str] = set()

    def update(self, request: int, key: str, what: Update, **how: Any) -> None:
        if isinstance(what, Increment) and what.name is not None:
            by = 0 if what.name in self._names else what.by
            self._names.add(what.name)
            what = Increment(by)
        super().update(request, key, what, **how)


def _with_counter(state: Siblings, counter: IdempotentCounter) -> Siblings:
    assert state.data is not None
    return Siblings(state.context, state.versions, replace(state.data, counter=counter))


class OneTotal(Quorum):
    """The counter is one number, of which the greater stays: of what both sides of a partition have
    counted, that of one is lost."""

    def store(self, key: str, state: Siblings) -> Siblings:
        counter = state.data.counter if state.data else None
        if counter is not None:
            up, down = counter.unnamed.up.value, counter.unnamed.down.value
            total = PNCounter(GCounter({"all": up}), GCounter({"all": down}))
            state = _with_counter(state, IdempotentCounter(total, counter.named))
        return super().store(key, state)


class EntryOfTheFirstHome(Quorum):
    """All coordinators count in the entry of the key's first home: two of them make the same entry
    from the same old one, and one increment is lost."""

    def update(self, request: int, key: str, what: Update, **how: Any) -> None:
        if not isinstance(what, Increment):
            super().update(request, key, what, **how)
            return
        before = self.state(key).data
        super().update(request, key, Increment(what.by, "for its context"), **how)
        counter = (before and before.counter) or IdempotentCounter()
        state = self.states[key]
        state = _with_counter(state, counter.add(self.homes(key)[0], what.by, what.name))
        self.states[key] = state
        self._out.persist = [Stored(key, state)]
        for operation in self.operations.values():
            if operation.request == request:
                operation.state = state
        for message in (*self._out.messages, *self._out.replies):
            message.state = state


class IncrementsAddUp(Quorum):
    """Merging adds the counts of both: what arrives twice, or comes back, is counted twice."""

    def merge(self, one: Siblings, other: Siblings) -> Siblings:
        merged = super().merge(one, other)
        mine, theirs = (each.data.counter if each.data else None for each in (one, other))
        if mine is None or theirs is None or one.context == other.context:
            return merged
        counts = dict(mine.unnamed.up.counts)
        for node, count in theirs.unnamed.up.counts.items():
            counts[node] = counts.get(node, 0) + count
        assert merged.data is not None
        assert merged.data.counter is not None
        both = merged.data.counter.unnamed
        return _with_counter(
            merged,
            IdempotentCounter(PNCounter(GCounter(counts), both.down), merged.data.counter.named),
        )


class RemovedComesBack(Quorum):
    """A set is merged by union, for what is missing here may be new there: what was removed comes
    back from the replica that had not heard of it."""

    def merge(self, one: Siblings, other: Siblings) -> Siblings:
        merged = super().merge(one, other)
        mine, theirs = (each.data.elements if each.data else None for each in (one, other))
        if mine is None or theirs is None or merged.data is None or merged.data.elements is None:
            return merged
        values = {**mine.dots.values, **theirs.dots.values}
        united = ORSet(Dots(values, merged.data.elements.dots.context))
        return Siblings(merged.context, [], replace(merged.data, elements=united))


class TombstonesDropped(Quorum):
    """A node drops its tombstones when it repairs another: deleted letters stand there again, or
    come back from there."""

    def send(self, message: Any) -> None:
        if isinstance(message, Repair | HandOff) and message.state.data is not None:
            data = message.state.data
            if data.sequence is not None:
                bare = Sequence(data.sequence.elements, frozenset(), data.sequence.named)
                state = Siblings(message.state.context, [], replace(data, sequence=bare))
                message = replace(message, state=state)
        super().send(message)


class HintWithoutData(Quorum):
    """A stand-in keeps versions and context, as it always did: handed over, the update is known at
    its home and is not there."""

    def _keep(self, message: Any) -> None:
        if message.owner is not None and message.state.data is not None:
            data = message.state.data
            empty = Data(
                data.counter and IdempotentCounter(),
                data.elements and ORSet(),
                data.sequence and Sequence(),
            )
            message = replace(message, state=Siblings(message.state.context, [], empty))
        super()._keep(message)


BUGS = {
    bug.name: bug
    for bug in (
        Bug("retry_counts_again", RetryCountsAgain),
        Bug("names_in_memory", NamesInMemory),
        Bug("one_total", OneTotal),
        Bug("entry_of_the_first_home", EntryOfTheFirstHome),
        Bug("increments_add_up", IncrementsAddUp),
        Bug("removed_comes_back", RemovedComesBack),
        Bug("tombstones_dropped", TombstonesDropped),
        Bug("hint_without_data", HintWithoutData),
        Bug("ack_before_persist", persist_before_send=False),
    )
}
