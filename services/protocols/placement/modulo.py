"""`hash mod n`: even, simple, and wrong when n changes; here as the control.

With n nodes a key stays where it is after one has left only when `hash mod n` and
`hash mod (n - 1)` name the same node: about 1 in n keys. All others miss at once, and the database
behind gets nearly the whole load that the cache was there to keep off it.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.protocols.placement.hashing import hash64


class Modulo:
    """Which of `nodes` keep a key; their order matters. Raises ValueError as `Ring` does."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = tuple(nodes)
        if not self.nodes or len(set(self.nodes)) != len(self.nodes):
            raise ValueError(f"placement needs nodes, each named once, not {self.nodes}")

    def nodes_for(self, key: str, count: int = 1) -> tuple[str, ...]:
        """The owner of `key` and the nodes after it: `count`, or all that there are."""
        first = hash64(key) % len(self.nodes)
        count = min(count, len(self.nodes))
        return tuple(self.nodes[(first + step) % len(self.nodes)] for step in range(count))
