"""Version vectors (Parker et al. 1983), dotted (Preguiça et al. 2010): which write saw which.

A vector clock dates events; a version vector dates the *versions of one datum* that several
replicas write. It counts updates, not messages, and is compared when replicas meet: the older of
two versions can go, and concurrent ones are a conflict, whose values must all survive until a
reader resolves it (Dynamo, 2007, §4.4: siblings).

A client that writes says which vector it had read (its *context*). What the context covers is
overwritten; what it does not is concurrent: the client has not seen it.

*Why the dot.* Two clients that had read the same write at one replica, n1. With a plain vector the
second write is {n1: 2}, and that is more than the first one's {n1: 1}: the next replica that meets
both takes the first for overwritten, and a write that nobody has seen is gone. So a version keeps
apart the one update that made it, its *dot* (n1, 2), and the past that its writer had read, {}: it
supersedes exactly what its past covers (*Dotted Version Vectors*, arXiv 1011.5808, §4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from services.protocols.clocks.vector import Vector, merge


@dataclass(frozen=True, slots=True)
class Version:
    """A value: update number `count` of `replica`, by a client that had read `past`."""

    replica: str
    count: int
    past: dict[str, int]
    value: Any

    def covered_by(self, vector: Vector) -> bool:
        """Has whoever has seen `vector` seen this version, or one that supersedes it?"""
        return self.count <= vector.get(self.replica, 0)


def update(replica: str, siblings: Iterable[Version], context: Vector, value: Any) -> list[Version]:
    """What `replica` holds after a client that had read `context` has written `value` there."""
    siblings = list(siblings)
    count = context_of(siblings).get(replica, 0)
    version = Version(replica, max(count, context.get(replica, 0)) + 1, dict(context), value)
    return [*(each for each in siblings if not each.covered_by(context)), version]


def reconcile(*replicas: Iterable[Version]) -> list[Version]:
    """The versions that no other one supersedes, each once: what replicas hold that have met.

    Each of `replicas` is all that one replica holds: a part of it would say too much about the rest
    (see `context_of`).
    """
    every = {(each.replica, each.count): each for siblings in replicas for each in siblings}
    versions = list(every.values())
    return [
        version
        for version in versions
        if not any(version.covered_by(other.past) for other in versions)
    ]


def context_of(siblings: Iterable[Version]) -> dict[str, int]:
    """What a reader of all these versions has seen: the context of its next write."""
    context: dict[str, int] = {}
    for version in siblings:
        context = merge(merge(context, version.past), {version.replica: version.count})
    return context
