"""A sequence for collaborative editing: RGA, the replicated growable array (Roh et al. 2011).

Each element says *after which other* it was inserted, not at which index: an index means another
place as soon as somebody else has inserted before it. That makes a tree; its depth-first order,
with the newest of several children first, is the sequence.

- An insert has a greater identifier than all that its node has seen. So it comes first among the
  children of its left neighbour, and stands directly behind it, as its author saw it.
- What two authors insert behind the same element is ordered by identifier, alike on every replica.
  A run that one author types forwards stays together, since each letter is a child of the one
  before it; typed backwards, two runs may interleave (Kleppmann et al. 2019).
- A deleted element stays as a tombstone: others may have inserted behind it meanwhile.
- An insert may have a name, under which it is made once. Two nodes that were asked for it before
  they had heard of each other make two elements; when they meet, the greater one goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.protocols.core import NodeId


class Identifier(NamedTuple):
    """A Lamport timestamp: greater than every identifier that its node had seen."""

    time: int
    node: NodeId


class Element(NamedTuple):
    """A value, and behind which element it was inserted (None: at the beginning)."""

    left: Identifier | None
    value: Any


@dataclass(frozen=True, slots=True)
class Sequence:
    """Elements by identifier, which of them were deleted, and which have a name."""

    elements: Mapping[Identifier, Element] = field(default_factory=dict)
    deleted: frozenset[Identifier] = frozenset()
    named: Mapping[str, Identifier] = field(default_factory=dict)

    def __repr__(self) -> str:
        # A frozen set lists itself in the order of hashes, another one in every process; a trace
        # that shows a sequence shall be the same in all.
        return (
            f"Sequence(elements={self.elements!r}, deleted={sorted(self.deleted)!r}, "
            f"named={self.named!r})"
        )

    @property
    def value(self) -> list[Any]:
        return [self.elements[identifier].value for identifier in self.order()]

    def order(self) -> list[Identifier]:
        """The identifiers of what was not deleted, first to last."""
        children: dict[Identifier | None, list[Identifier]] = {}
        for identifier in sorted(self.elements):
            children.setdefault(self.elements[identifier].left, []).append(identifier)
        found: list[Identifier] = []
        stack = children.get(None, [])[:]
        while stack:  # not recursive: a text typed from left to right is one long branch
            identifier = stack.pop()  # the greatest first
            if identifier not in self.deleted:
                found.append(identifier)
            stack += children.get(identifier, ())
        return found

    def insert(self, node: NodeId, index: int, value: Any) -> Sequence:
        """Insert at `node`, so that the element is at `index` (0: first). Raises IndexError."""
        order = self.order()
        if not 0 <= index <= len(order):
            raise IndexError(f"an index from 0 to {len(order)}, not {index}")
        return self.insert_after(node, order[index - 1] if index else None, value)

    def insert_after(
        self, node: NodeId, left: Identifier | None, value: Any, name: str | None = None
    ) -> Sequence:
        """Insert at `node` directly behind `left`, be it deleted meanwhile (None: first).

        Nothing happens if an insert of that `name` is known here. Raises KeyError where `left` is
        not, ValueError where the name stands for another value.
        """
        if name is not None and name in self.named:
            if self.elements[self.named[name]].value != value:
                raise ValueError(f"{name} inserted another value")
            return self
        if left is not None and left not in self.elements:
            raise KeyError(left)
        latest = max((identifier.time for identifier in self.elements), default=0)
        own = Identifier(latest + 1, node)
        elements = {**self.elements, own: Element(left, value)}
        named = self.named if name is None else {**self.named, name: own}
        return Sequence(elements, self.deleted, named)

    def delete(self, index: int) -> Sequence:
        """Delete the element at `index`. Raises IndexError."""
        order = self.order()
        if not 0 <= index < len(order):
            raise IndexError(f"an index from 0 to {len(order) - 1}, not {index}")
        return self.remove(order[index])

    def remove(self, identifier: Identifier) -> Sequence:
        """Delete this element; nothing if it was. Raises KeyError where it is not known."""
        if identifier not in self.elements:
            raise KeyError(identifier)
        return Sequence(self.elements, self.deleted | {identifier}, self.named)

    def merge(self, other: Sequence) -> Sequence:
        """All elements and all deletions: where each stands follows from the elements alone.

        Of two elements of one name the lesser stays: each replica that hears of both, in whatever
        order, deletes the same one.
        """
        named, twice = {**self.named, **other.named}, set()
        for name in self.named.keys() & other.named.keys():
            both = {self.named[name], other.named[name]}
            named[name] = min(both)
            twice |= both - {named[name]}
        elements = {**self.elements, **other.elements}
        return Sequence(elements, self.deleted | other.deleted | twice, named)
