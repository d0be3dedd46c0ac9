"""What a node keeps of a key: the write that stands, and which writes of the key it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from services.protocols.clocks import Timestamp, merge

Dot = tuple[str, int]


@dataclass(slots=True)
class Write:
    """Number `sequence` of the log `log`. A `value` of None deletes.

    `seen`: what its leader had of the key, by log the number of the last one.
    """

    log: str
    sequence: int
    key: str
    value: bytes | None
    stamp: Timestamp
    seen: dict[str, int]

    @property
    def dot(self) -> Dot:
        return self.log, self.sequence

    @property
    def name(self) -> str:
        return f"{self.log}:{self.sequence}"

    @property
    def order(self) -> tuple[Timestamp, Dot]:
        """The greatest wins."""
        return self.stamp, self.dot


@dataclass(slots=True)
class State:
    """A key's state; `latest` is None where it was never written.

    `vector` covers the writes of the key that are known here: each of them stands, or a greater one
    does.
    """

    latest: Write | None = None
    vector: dict[str, int] = field(default_factory=dict)

    def covers(self, write: Write) -> bool:
        return write.sequence <= self.vector.get(write.log, 0)


class Conflict(NamedTuple):
    """Two writes that had not seen each other: one stands, the other is gone."""

    kept: Write
    lost: Write


def of(write: Write) -> State:
    """What is known of a key by one write of it."""
    return State(write, merge(write.seen, {write.log: write.sequence}))


def settle(one: State, other: State) -> tuple[State, Conflict | None]:
    """What both together know, and the conflict that shows when they meet.

    None where either has the other's write: it was replaced by one that had seen it, or the
    conflict was told where they met first.
    """
    if one.latest is None or other.latest is None:
        return (other if one.latest is None else one), None
    lost, kept = sorted((one.latest, other.latest), key=lambda write: write.order)
    met = one.covers(other.latest) or other.covers(one.latest)
    return State(kept, merge(one.vector, other.vector)), None if met else Conflict(kept, lost)


def digest(key: str, state: State) -> int:
    """64 bits that are equal for equal states of a key."""
    latest = state.latest
    content = repr((key, latest and (latest.order, latest.value), sorted(state.vector.items())))
    return int.from_bytes(blake2b(content.encode(), digest_size=8).digest())


def within(vector: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Does whoever has `other` have all of `vector`?"""
    return all(sequence <= other.get(log, 0) for log, sequence in vector.items())
