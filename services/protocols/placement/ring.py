"""Consistent hashing (Karger et al., *Consistent Hashing and Random Trees*, STOC 1997).

Invariant: a key belongs to the first point clockwise from its hash, and a node's points depend on
its own name alone. So when a node leaves, its keys move to their next points and *no other key
moves*: a share of about 1/n. (Karger's "monotonicity": keys move to a new node, never between old
ones.)

One point a node would leave arcs of very unequal length: with n random points the longest is about
ln n times the average, and a lost node's whole arc falls on one neighbour. So each node has many
points (*virtual nodes*): loads even out by 1/√points, and a lost node's keys spread over all that
are left (DeCandia et al., *Dynamo*, SOSP 2007, §4.2).

Replicas are the next *distinct nodes* clockwise (Dynamo §4.3, the preference list): the first
`count` points may all be the same machine's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from services.protocols.placement.hashing import hash64

POINTS_DEFAULT = 128
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


class Ring:
    """Which of `nodes` keep a key.

    Args:
        points: virtual nodes of each node, on average. 128 keep the busiest of a few nodes within
            about a fifth of the average.

        weights: of nodes that are to have more points than others, or fewer; 0: none. Absent: 1.

    Raises ValueError without nodes, or with one named twice.
    """

    def __init__(
        self,
        nodes: Iterable[str],
        *,
        points: int = POINTS_DEFAULT,
        weights: Mapping[str, float] = NO_WEIGHTS,
    ) -> None:
        self.nodes = tuple(nodes)
        if not self.nodes or len(set(self.nodes)) != len(self.nodes):
            raise ValueError(f"a ring needs nodes, each named once, not {self.nodes}")
        if points < 1:
            raise ValueError(f"points must be at least 1, not {points}")
        # By hash, then by name: should two points collide, the order of `nodes` must not decide.
        placed = sorted(
            (hash64(f"{node}#{at}"), node)
            for node in self.nodes
            for at in range(self._points_of(node, points, weights))
        )
        self._hashes = [hashed for hashed, _ in placed]
        self._owners = [node for _, node in placed]

    def _points_of(self, node: str, points: int, weights: Mapping[str, float]) -> int:
        """A lower weight takes the last of a node's points away, and moves none."""
        if not weights:
            return points
        weight = weights.get(node, 1.0)
        if weight <= 0:
            return 0
        mean = sum(weights.get(each, 1.0) for each in self.nodes) / len(self.nodes)
        return max(1, round(points * weight / mean))

    def nodes_for(self, key: str, count: int = 1) -> tuple[str, ...]:
        """The owner of `key` and its replicas: `count` distinct nodes, or all that there are."""
        first = bisect_right(self._hashes, hash64(key))
        found: dict[str, None] = {}
        for step in range(len(self._owners)):
            found[self._owners[(first + step) % len(self._owners)]] = None
            if len(found) == count:
                break
        return tuple(found)
