"""What replicas tell each other, and what they keep on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.protocols.leaderless import Disk, node_of

VersionVector = dict[str, int]
"""{"d": 3}: the first three writes on the disk d. What is 0 is not in it."""


@dataclass(slots=True)
class Write:
    """One write of `key`; a `value` of None deletes it.

    `origin` is the disk of the node that accepted it, `number` counts the writes there, `time` is
    that node's Lamport clock. The write may be seen where all that `depends` covers is.
    """

    origin: str
    number: int
    time: int
    key: str
    value: bytes | None
    depends: VersionVector = field(default_factory=dict)

    @property
    def dot(self) -> tuple[str, int]:
        return self.origin, self.number

    @property
    def version(self) -> tuple[int, str, str]:
        """Of two writes of a key the greater one stays, everywhere."""
        return self.time, node_of(self.origin), self.origin


@dataclass(slots=True)
class Replicate:
    """Writes, those of one origin in their order. `more`: there are more; say what you have."""

    src: str
    dst: str
    writes: list[Write]
    more: bool


@dataclass(slots=True)
class Have:
    """What I have applied, on the disk of this name. `ask`: send what I lack. My logs go back to
    `begins` and no further. (On another disk than before, what I had said is true no more.)"""

    src: str
    dst: str
    disk: str
    applied: VersionVector
    begins: VersionVector
    ask: bool


@dataclass(slots=True)
class Fetch:
    """I lack what your logs no longer have: what you hold, after the first `after` writes of it.
    `attempt` is drawn anew for each, and stands in its answers."""

    src: str
    dst: str
    attempt: int
    after: int


@dataclass(slots=True)
class States:
    """A piece of what I held when I had `applied` this, and my clock was `time`."""

    src: str
    dst: str
    attempt: int
    after: int
    writes: list[Write]
    applied: VersionVector
    time: int
    done: bool


@dataclass(slots=True)
class Applied:
    """A write was applied here."""

    write: Write


@dataclass(slots=True)
class Base:
    """An image of the whole state begins: what was applied, and the Lamport clock."""

    applied: VersionVector
    time: int


@dataclass(slots=True)
class Whole:
    """What another node held when it had `applied` this: taken on all at once, or not at all."""

    applied: VersionVector
    time: int
    writes: list[Write]


@dataclass(slots=True)
class Stored:
    """Of an image: what a key holds."""

    write: Write


@dataclass(slots=True)
class Logged:
    """Of an image: a write that some peer may not have yet."""

    write: Write


MESSAGES: tuple[type, ...] = (Replicate, Have, Fetch, States)
RECORDS: tuple[type, ...] = (Disk, Applied, Base, Stored, Logged, Whole)
