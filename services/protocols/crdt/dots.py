"""What two types are made of: values by the dot of their write, and a context of all dots seen.

A *dot* names one write: the node, and the how-manieth of that node's writes it was. The *context*
is a version vector: every dot it covers was seen here. Together they tell "not written yet" from
"written and replaced since" without a tombstone: a dot that the context covers and that has no
value any more was replaced or removed (delta §7.2, the optimised OR-set of Bieniusa et al.).

A vector can be the context because states travel whole: whoever has a node's third write has had
its first and second. With deltas, which may overtake each other, there would be gaps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.protocols.clocks import vector
from services.protocols.core import NodeId


class Dot(NamedTuple):
    """The `number`-th write of `node` (from 1)."""

    node: NodeId
    number: int


@dataclass(frozen=True, slots=True)
class Dots:
    """Values by dot, and the context."""

    values: Mapping[Dot, Any] = field(default_factory=dict)
    context: Mapping[NodeId, int] = field(default_factory=dict)

    def saw(self, dot: Dot) -> bool:
        """Was this write seen here, be it replaced since?"""
        return dot.number <= self.context.get(dot.node, 0)

    def put(self, node: NodeId, value: Any, replaced: Collection[Dot]) -> Dots:
        """A write of `value` at `node`, which replaces the writes that it has seen."""
        dot = Dot(node, self.context.get(node, 0) + 1)
        kept = self.drop(replaced)
        return Dots({**kept.values, dot: value}, {**self.context, node: dot.number})

    def drop(self, dots: Collection[Dot]) -> Dots:
        """Without these; the context remembers that they were seen."""
        values = {dot: value for dot, value in self.values.items() if dot not in dots}
        return Dots(values, self.context)

    def merge(self, other: Dots) -> Dots:
        """A value stays if both have it, or if the one that lacks it has never seen it."""
        values = {
            dot: value
            for mine, theirs in ((self, other), (other, self))
            for dot, value in mine.values.items()
            if dot in theirs.values or not theirs.saw(dot)
        }
        return Dots(values, vector.merge(self.context, other.context))
