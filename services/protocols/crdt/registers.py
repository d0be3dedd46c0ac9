"""Registers: last writer wins (study §3.2.1, specification 8), and multi-value (§3.2.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.protocols.core import NodeId
from services.protocols.crdt.dots import Dots


class Stamp(NamedTuple):
    """When a write was made, by the clock of the node that made it; the name breaks ties."""

    time: float
    node: NodeId


@dataclass(frozen=True, slots=True)
class LWWRegister:
    """The value with the greatest timestamp. `stamp` is None while nothing was written."""

    value: Any = None
    stamp: Stamp | None = None

    def assign(self, node: NodeId, value: Any, time: float) -> LWWRegister:
        """Write `value` at `node`, whose clock says `time` (any unit, one for all nodes).

        A write that is not newer than what stands here changes nothing, and nobody is told: that
        is what last-writer-wins does to a node whose clock runs behind.
        """
        return self.merge(LWWRegister(value, Stamp(time, node)))

    def merge(self, other: LWWRegister) -> LWWRegister:
        """The one with the greater stamp; the other write is lost."""
        if other.stamp is None or (self.stamp is not None and other.stamp <= self.stamp):
            return self
        return other


@dataclass(frozen=True, slots=True)
class MVRegister:
    """All values whose writes no other write has seen: siblings when there are several."""

    dots: Dots = field(default_factory=Dots)

    @property
    def values(self) -> list[Any]:
        """In the order of their dots: the same on every replica. Empty: nothing was written."""
        return [value for _, value in sorted(self.dots.values.items(), key=lambda item: item[0])]

    def assign(self, node: NodeId, value: Any) -> MVRegister:
        """Write `value` at `node`: it replaces every sibling that stands here, and no other."""
        return MVRegister(self.dots.put(node, value, tuple(self.dots.values)))

    def merge(self, other: MVRegister) -> MVRegister:
        """Every value that the other side has not seen replaced."""
        return MVRegister(self.dots.merge(other.dots))
