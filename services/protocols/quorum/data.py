"""Data types that merge by themselves: a counter, a set, a sequence, beside the plain values.

As in Riak (Brown, Cribbs, Meiklejohn, Elliott, *Riak DT map*, 2014) a client sends what it wants
done (`add 1`), not what should stand there afterwards (`5`): the coordinator carries it out on its
own copy, under its disk's name, and the copies merge by `services/protocols/crdt`. So nobody has to
read first, and there are no siblings for anybody to merge.

What a key holds is part of its name (`key_for`), so that a counter and a set which two sides of a
partition create as `likes` are two things that never meet.

**Invariant.** The context of such a key is the version vector of its updates: `{"d": 3}` says that
the first three of the disk d are in. It rests on the rules for dots (`versions.py`): states travel
whole, and a node counts its updates on disk before anybody hears of them. (The entries of a counter
and the identifiers of elements are a disk's, too: what a node counts from 0 again on a new one, the
others would take for what they have.)

**Cost.** As states travel whole, an update costs what its key holds, on each disk and each link;
hence `ENTRIES_MAX`. Deltas (Almeida et al. 2018) would cost what it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from services.protocols.crdt import IdempotentCounter, ORSet, Sequence
from services.protocols.crdt.sequence import Identifier

Kind = Literal["counter", "set", "sequence"]
ENTRIES_MAX = 5_000  # of one key: what it has, and the tombstones and names that it can't forget


class Refused(Exception):
    """The update can't be made at this node. Definite: nothing was changed."""


class NameReused(Refused):
    """Its name came before with another update."""


class NoSuchElement(Refused):
    """This node knows no such element of the sequence, or not yet."""


class Full(Refused):
    """The key has as many entries as it may have."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a key of a data type holds: one of these, by the kind of the key."""

    counter: IdempotentCounter | None = None
    elements: ORSet | None = None
    sequence: Sequence | None = None

    @property
    def entries(self) -> int:
        """How much of `ENTRIES_MAX` is taken."""
        return (
            len(self.counter.named if self.counter else ())
            + len(self.elements.dots.values if self.elements else ())
            + len(self.sequence.elements if self.sequence else ())
        )


@dataclass(frozen=True, slots=True)
class Increment:
    """Add `by`, which may be negative. With a `name` it counts once, wherever it is repeated."""

    by: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Add:
    """Put `element` into the set. Wins over a removal that has not seen it."""

    element: bytes


@dataclass(frozen=True, slots=True)
class Remove:
    """Take `element` out of the set: the adds of it that the coordinator knows."""

    element: bytes


@dataclass(frozen=True, slots=True)
class Insert:
    """Put `value` directly behind the element `after` (None: first); with a `name`, once."""

    value: bytes
    after: Identifier | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Take the element `at` out of the sequence."""

    at: Identifier


Update = Increment | Add | Remove | Insert | Delete


def key_for(kind: Kind, key: str) -> str:
    """The name under which the store keeps the `kind` that clients call `key`.

    No client can write to it as a plain value: a key of theirs has printable characters only.
    """
    return f"{kind}\t{key}"


def carry_out(data: Data | None, disk: str, update: Update) -> Data:
    """`data` after an update whose coordinator has `disk`. Raises Refused."""
    data = data or Data()
    try:
        after = _carried_out(data, disk, update)
    except ValueError as exc:
        raise NameReused(str(exc)) from None
    except KeyError as exc:
        raise NoSuchElement(f"no element {exc.args[0]} is known here") from None
    if after.entries > max(ENTRIES_MAX, data.entries):
        raise Full(f"a key of this kind has at most {ENTRIES_MAX} entries")
    return after


def _carried_out(data: Data, disk: str, update: Update) -> Data:
    elements, sequence = data.elements or ORSet(), data.sequence or Sequence()
    match update:
        case Increment(by, name):
            counter = data.counter or IdempotentCounter()
            return replace(data, counter=counter.add(disk, by, name))
        case Add(element):
            return replace(data, elements=elements.add(disk, element))
        case Remove(element):
            return replace(data, elements=elements.remove(element))
        case Insert(value, after, name):
            return replace(data, sequence=sequence.insert_after(disk, after, value, name))
        case Delete(at):
            return replace(data, sequence=sequence.remove(at))


def join_data(one: Data | None, other: Data | None) -> Data | None:
    """What both together hold: commutative, associative, idempotent, for its parts are."""
    if one is None or other is None:
        return one or other
    return Data(
        _merge(one.counter, other.counter),
        _merge(one.elements, other.elements),
        _merge(one.sequence, other.sequence),
    )


def _merge(one: Any, other: Any) -> Any:
    return (one or other) if one is None or other is None else one.merge(other)


def canonical(data: Data) -> Any:
    """The same for equal data, in whatever order it was put together; for a digest."""

    def sort(part: Any, get: Callable[[Any], Any]) -> Any:
        return None if part is None else [sorted(each) for each in get(part)]

    return (
        sort(data.counter, lambda it: (it.unnamed.up.counts.items(), it.unnamed.down.counts.items(),
                                       it.named.items())),
        sort(data.elements, lambda it: (it.dots.values.items(), it.dots.context.items())),
        sort(data.sequence, lambda it: (_plain(it), it.deleted, it.named.items())),
    )  # fmt: skip


def _plain(sequence: Sequence) -> list[Any]:
    return [(at, element.left or (), element.value) for at, element in sequence.elements.items()]
