"""The observed-remove set (study §3.3.5), without tombstones (Bieniusa et al. 2012)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from services.protocols.core import NodeId
from services.protocols.crdt.dots import Dot, Dots


@dataclass(frozen=True, slots=True)
class ORSet:
    """A set in which a remove takes away the adds that it has seen, and no others: *add wins*.

    A plain union could never lose an element. A set with one tombstone per element (2P-set, study
    §3.3.2) could never get one back. Here every add is a write of its own, and a remove names those
    that it means.
    """

    dots: Dots = field(default_factory=Dots)

    @property
    def value(self) -> frozenset[Hashable]:
        return frozenset(self.dots.values.values())

    def add(self, node: NodeId, element: Hashable) -> ORSet:
        """Add at `node`. The adds seen so far give way: one dot per element and node is enough."""
        return ORSet(self.dots.put(node, element, self._dots_of(element)))

    def remove(self, element: Hashable) -> ORSet:
        """Remove what was seen here; nothing happens if the element is not in the set."""
        return ORSet(self.dots.drop(self._dots_of(element)))

    def merge(self, other: ORSet) -> ORSet:
        """Every add that the other side has not seen removed."""
        return ORSet(self.dots.merge(other.dots))

    def _dots_of(self, element: Hashable) -> tuple[Dot, ...]:
        return tuple(dot for dot, each in self.dots.values.items() if each == element)
