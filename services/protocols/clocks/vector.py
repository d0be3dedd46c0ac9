"""Vector clocks (Fidge 1988; Mattern 1989): cause, effect, or neither, told apart exactly."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

Vector = Mapping[str, int]  # events seen, by process; an absent process is 0


class Order(Enum):
    """How two vectors, hence the events that carry them, stand to each other."""

    BEFORE = "before"
    EQUAL = "equal"
    AFTER = "after"
    CONCURRENT = "concurrent"


def compare(a: Vector, b: Vector) -> Order:
    """BEFORE when `a` is at most `b` everywhere and less somewhere; CONCURRENT when neither is."""
    less = any(count < b.get(process, 0) for process, count in a.items()) or any(
        count > a.get(process, 0) for process, count in b.items()
    )
    greater = any(count > b.get(process, 0) for process, count in a.items()) or any(
        count < a.get(process, 0) for process, count in b.items()
    )
    if less and greater:
        return Order.CONCURRENT
    return Order.BEFORE if less else Order.AFTER if greater else Order.EQUAL


def merge(a: Vector, b: Vector) -> dict[str, int]:
    """The least vector that is at least as great as both (their join): all that either has seen."""
    merged = dict(a)
    for process, count in b.items():
        merged[process] = max(merged.get(process, 0), count)
    return merged


class VectorClock:
    """The clock of one process: how many events of every process it knows to have happened.

    >>> a, b = VectorClock("a"), VectorClock("b")
    >>> message = a.tick()
    >>> b.tick(), b.receive(message)
    ({'b': 1}, {'b': 2, 'a': 1})
    """

    __slots__ = ("process", "seen")

    def __init__(self, process: str, seen: Vector | None = None) -> None:
        self.process = process
        self.seen = dict(seen or {})

    def tick(self) -> dict[str, int]:
        """The timestamp of a local event, or of a message about to be sent."""
        self.seen[self.process] = self.seen.get(self.process, 0) + 1
        return dict(self.seen)

    def receive(self, timestamp: Vector) -> dict[str, int]:
        """The timestamp of the receipt of a message that carries `timestamp`."""
        assert timestamp.get(self.process, 0) <= self.seen.get(self.process, 0), (
            f"{self.process} is told of events of its own that it has not had: {timestamp}"
        )
        self.seen = merge(self.seen, timestamp)
        return self.tick()
