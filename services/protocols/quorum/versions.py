"""What a replica keeps of a key: the concurrent versions of its value, and what they replaced.

Dotted version vectors (Preguiça, Baquero, Almeida, Fonte, Gonçalves 2012). A version is named by
its **dot** (disk, counter): whose coordinator's disk has the write, and which of its writes of this
key it was. The **context** is a version vector: `{"d": 3}` says that the dots d:1 to d:3 are known
here, whether they are still there or were replaced. A write says what it replaces by the context
that its client has read; whatever that does not cover is concurrent, and stays as a sibling.

**Invariant.** A context covers a dot only if that version is among `versions`, or was replaced by
one whose writer had seen it. It rests on three rules: a dot is given out once (the counter is on
disk before anybody hears of it, and a new disk has a new name), only by a node that knows all its
disk's earlier dots of the key (a home of it), and versions travel with their whole context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.protocols.quorum.data import Data, Update, carry_out, join_data

VersionVector = dict[str, int]


@dataclass(slots=True)
class Version:
    """One value, with its dot; `disk` is its coordinator's. `stamp` is that one's time of day, for
    last-write-wins alone; a `value` of None is a tombstone: the key was deleted."""

    disk: str
    counter: int
    stamp: int
    value: bytes | None

    @property
    def dot(self) -> tuple[str, int]:
        return self.disk, self.counter

    def covered_by(self, context: Mapping[str, int]) -> bool:
        return self.counter <= context.get(self.disk, 0)


@dataclass(slots=True)
class Siblings:
    """A key's state: `versions` of a plain value, or the `data` of a data type (`data.py`), which
    has no versions. Empty: the key was never written."""

    context: VersionVector = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    data: Data | None = None

    def covers(self, dot: tuple[str, int]) -> bool:
        return dot[1] <= self.context.get(dot[0], 0)


def join(one: Mapping[str, int], other: Mapping[str, int]) -> VersionVector:
    """What either knows. Sorted, so that equal states have equal bytes."""
    names = sorted({*one, *other})
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in names}


def merge(one: Siblings, other: Siblings) -> Siblings:
    """What both together know: commutative, associative, idempotent.

    A version stays if both have it, or if the one that lacks it has never heard of it.
    """
    dots = {version.dot for version in one.versions} & {version.dot for version in other.versions}
    kept = {
        version.dot: version
        for here, there in ((one, other), (other, one))
        for version in here.versions
        if version.dot in dots or not version.covered_by(there.context)
    }
    return Siblings(
        join(one.context, other.context),
        [kept[dot] for dot in sorted(kept)],
        join_data(one.data, other.data),
    )


def put(
    state: Siblings, disk: str, value: bytes | None, stamp: int, context: Mapping[str, int]
) -> Siblings:
    """`state` after a write whose coordinator has `disk`, by a client that has read `context`."""
    assert state.data is None, "a data type is not overwritten"
    counter = max(state.context.get(disk, 0), context.get(disk, 0)) + 1
    kept = [version for version in state.versions if not version.covered_by(context)]
    known = join(join(state.context, context), {disk: counter})
    versions = sorted([*kept, Version(disk, counter, stamp, value)], key=lambda each: each.dot)
    return Siblings(known, versions)


def update(state: Siblings, disk: str, what: Update) -> Siblings:
    """`state` of a data type after an update whose coordinator has `disk`. Raises Refused.

    One that changes nothing (a name that was counted, an element that is gone) counts for none.
    """
    assert not state.versions, "a plain value is no data type"
    data = carry_out(state.data, disk, what)
    if data == state.data:
        return state
    counter = state.context.get(disk, 0) + 1
    return Siblings(join(state.context, {disk: counter}), [], data)


def latest(one: Siblings, other: Siblings) -> Siblings:
    """`merge` where the last write wins: the greatest stamp, ties by dot, whoever had seen what.

    Every replica chooses the same, so they converge; whoever wrote the others was told "ok", and
    their writes are gone. With clocks that differ it is not even the last one that wins. To heed
    contexts here, too, would be worse: v3 replaces v1, v1 beats v2 by its stamp, v2 beats v3, and a
    replica that hears of all three in this order keeps none. (Data types merge here as anywhere.)
    """
    versions = {version.dot: version for version in (*one.versions, *other.versions)}.values()
    winner = max(versions, key=lambda version: (version.stamp, version.dot), default=None)
    kept = [winner] if winner else []
    return Siblings(join(one.context, other.context), kept, join_data(one.data, other.data))
