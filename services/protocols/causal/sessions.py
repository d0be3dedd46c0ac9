"""A client's context, how much of it an operation heeds, and what becomes of the operation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from services.protocols.causal.messages import VersionVector, Write
from services.protocols.clocks.vector import merge

Level = Literal["causal", "session", "eventual"]
LEVELS: tuple[Level, ...] = get_args(Level)

_ENTRY = "[a-z][a-z0-9-]{0,63}:[0-9]{1,15}"
_VECTOR = f"((?:{_ENTRY}(?:,{_ENTRY})*)?)"
_TOKEN = re.compile(f"{_VECTOR}/{_VECTOR}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """What a client has `read` and `written`, as version vectors. Immutable."""

    read: VersionVector = field(default_factory=dict)
    written: VersionVector = field(default_factory=dict)

    def after_reading(self, write: Write | None) -> Session:
        """`write` is what the key held; its dot stands for all that it depends on, too."""
        if write is None:
            return self
        return Session(merge(self.read, {write.origin: write.number}), self.written)

    def after_writing(self, write: Write) -> Session:
        return Session(self.read, merge(self.written, {write.origin: write.number}))

    @property
    def seen(self) -> VersionVector:
        """All of it."""
        return merge(self.read, self.written)

    def token(self) -> str:
        """For the client to carry: `d1:3,d2:1/d1:3`, what was read, then what was written."""
        return "/".join(
            ",".join(f"{node}:{number}" for node, number in sorted(vector.items()))
            for vector in (self.read, self.written)
        )

    @classmethod
    def of(cls, token: str) -> Session:
        """The session of a token; of an empty one, a new session. Raises ValueError."""
        found = _TOKEN.fullmatch(token or "/")
        if found is None:
            raise ValueError("not a token that this store has given")
        read, written = (
            {node: int(number) for node, _, number in (each.partition(":") for each in pairs)}
            for pairs in (text.split(",") if text else [] for text in found.groups())
        )
        return cls(read, written)


def required(level: Level, session: Session, *, writes: bool) -> VersionVector:
    """What a node must have applied to carry out the operation; a write depends on all of this."""
    if level == "eventual":
        return {}
    if level == "session" and writes:
        return session.written
    return session.seen


@dataclass(slots=True)
class Reply:
    """An operation's end: what the key holds (None: it was never written), the session after it."""

    request: int
    write: Write | None
    session: Session


@dataclass(slots=True)
class Operation:
    """A read, or a write of `value`, that `session` asked for."""

    request: int
    key: str
    session: Session
    level: Level
    writes: bool
    value: bytes | None = None

    @property
    def required(self) -> VersionVector:
        return required(self.level, self.session, writes=self.writes)


def covers(applied: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    """Has all that is `wanted` been `applied`?"""
    return all(applied.get(node, 0) >= number for node, number in wanted.items())
