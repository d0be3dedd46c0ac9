"""What replicas tell each other, and what they keep on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

VersionVector = dict[str, int]
"""{"n1": 3}: the first three writes that n1 accepted."""


@dataclass(slots=True)
class Write:
    """One write of `key`; a `value` of None deletes it.

    `number` counts the writes that `origin` accepted; `time` is its Lamport clock. The write may be
    seen where all that `depends` covers is.
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
    def version(self) -> tuple[int, str]:
        """Of two writes of a key the greater one stays, everywhere."""
        return self.time, self.origin


@dataclass(slots=True)
class Replicate:
    """Writes, those of one origin in their order. `more`: there are more; say what you have."""

    src: str
    dst: str
    writes: list[Write]
    more: bool


@dataclass(slots=True)
class Have:
    """What I have applied, on my disk. `ask`: send what I lack."""

    src: str
    dst: str
    applied: VersionVector
    ask: bool


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
class Stored:
    """Of an image: what a key holds."""

    write: Write


@dataclass(slots=True)
class Logged:
    """Of an image: a write that some peer may not have yet."""

    write: Write


MESSAGES: tuple[type, ...] = (Replicate, Have)
RECORDS: tuple[type, ...] = (Applied, Base, Stored, Logged)
