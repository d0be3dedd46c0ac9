"""Counters: G-counter (study §3.1.1, specification 6) and PN-counter (§3.1.3, specification 7); and
one whose additions may be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.protocols.clocks import vector
from services.protocols.core import NodeId


@dataclass(frozen=True, slots=True)
class GCounter:
    """A counter that only grows: how much each node has added.

    One number would not do: 3 merged with 3 may be three additions or six. Each node writes its own
    entry alone, so of two values of an entry the greater is the later.
    """

    counts: Mapping[NodeId, int] = field(default_factory=dict)

    @property
    def value(self) -> int:
        return sum(self.counts.values())

    def increment(self, node: NodeId, by: int = 1) -> GCounter:
        """Add `by` at `node`. Raises ValueError when it is negative."""
        if by < 0:
            raise ValueError(f"a G-counter only grows: by must be at least 0, not {by}")
        if by == 0:
            return self  # an entry of 0 would make equal counters unequal
        return GCounter({**self.counts, node: self.counts.get(node, 0) + by})

    def merge(self, other: GCounter) -> GCounter:
        """Of each node's entry the greater one."""
        return GCounter(vector.merge(self.counts, other.counts))


@dataclass(frozen=True, slots=True)
class PNCounter:
    """A counter that goes both ways: one that counts up, one that counts down.

    Nothing keeps it above zero: two nodes that each see 1 may both take it (study §3.1.3).
    """

    up: GCounter = field(default_factory=GCounter)
    down: GCounter = field(default_factory=GCounter)

    @property
    def value(self) -> int:
        return self.up.value - self.down.value

    def add(self, node: NodeId, by: int) -> PNCounter:
        """Add `by`, which may be negative, at `node`."""
        if by < 0:
            return PNCounter(self.up, self.down.increment(node, -by))
        return PNCounter(self.up.increment(node, by), self.down)

    def merge(self, other: PNCounter) -> PNCounter:
        """Both halves, each by itself."""
        return PNCounter(self.up.merge(other.up), self.down.merge(other.down))


@dataclass(frozen=True, slots=True)
class IdempotentCounter:
    """A PN-counter in which an addition may have a name, and counts once under it.

    A client that got no answer asks again, perhaps at another node: n1 has added and can't be
    reached, n2 knows nothing of it and adds as well. As entries of two nodes the two would be two.
    So a named addition belongs to no node: it is the same one wherever it is made, and the union of
    two replicas has it once.

    The price is an entry a name, for ever: a name that one replica forgets comes back from the
    next, or counts again. (Almeida and Baquero, *Scalable eventually consistent counters over
    unreliable networks*, 2019, forget by handing over in rounds; not here.)
    """

    unnamed: PNCounter = field(default_factory=PNCounter)
    named: Mapping[str, int] = field(default_factory=dict)

    @property
    def value(self) -> int:
        return self.unnamed.value + sum(self.named.values())

    def add(self, node: NodeId, by: int, name: str | None = None) -> IdempotentCounter:
        """Add `by`, which may be negative, at `node`; nothing if that `name` was counted.

        Raises ValueError where the name stands for another amount.
        """
        if name is None:
            return IdempotentCounter(self.unnamed.add(node, by), self.named)
        if self.named.get(name, by) != by:
            raise ValueError(f"{name} was to add {self.named[name]}, not {by}")
        return IdempotentCounter(self.unnamed, {**self.named, name: by})

    def merge(self, other: IdempotentCounter) -> IdempotentCounter:
        """All names of both. One that stands for two amounts, by a client's mistake at two nodes,
        gets the greater: any choice will do that is the same everywhere."""
        both = {**self.named, **other.named}
        for name in self.named.keys() & other.named.keys():
            both[name] = max(self.named[name], other.named[name])
        return IdempotentCounter(self.unnamed.merge(other.unnamed), both)
