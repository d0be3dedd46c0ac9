"""What travels between the nodes of a quorum store, and what they keep on disk.

`session` and `request` name the operation of a coordinator: the session is drawn anew at every
start, so that an answer to a request of an earlier life counts for none of this one.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.protocols.leaderless import Disk
from services.protocols.quorum.versions import Siblings


@dataclass(slots=True)
class Replicate:
    """Keep this. With `owner`, for that node, which cannot be reached: a *hint* (Dynamo §4.6)."""

    src: str
    dst: str
    session: int
    request: int
    key: str
    state: Siblings
    owner: str | None = None


@dataclass(slots=True)
class Replicated:
    """It is on my disk."""

    src: str
    dst: str
    session: int
    request: int
    owner: str | None = None


@dataclass(slots=True)
class Read:
    """What have you of this key?"""

    src: str
    dst: str
    session: int
    request: int
    key: str


@dataclass(slots=True)
class ReadReply:
    """This."""

    src: str
    dst: str
    session: int
    request: int
    state: Siblings


@dataclass(slots=True)
class Repair:
    """You were behind in this key: merge it. Needs no answer; nobody counts on it."""

    src: str
    dst: str
    key: str
    state: Siblings


@dataclass(slots=True)
class HandOff:
    """I kept this for you while you could not be reached."""

    src: str
    dst: str
    key: str
    state: Siblings


@dataclass(slots=True)
class HandedOff:
    """Merged, on my disk; `state` is what it was handed, for a newer hint may have come since."""

    src: str
    dst: str
    key: str
    state: Siblings


@dataclass(slots=True)
class Compare:
    """My hash tree of what we share, at these paths. Which of them are others with you?"""

    src: str
    dst: str
    hashes: list[tuple[tuple[int, ...], bytes]]


@dataclass(slots=True)
class Differ:
    """My states in leaves where our trees differ; answer with yours, unless this is an answer."""

    src: str
    dst: str
    leaves: list[tuple[int, ...]]
    states: list[tuple[str, Siblings]]
    answer: bool


@dataclass(slots=True)
class Stored:
    """The state of a key that lives here."""

    key: str
    state: Siblings


@dataclass(slots=True)
class Hinted:
    """The state of a key that is kept for another node; an empty one: it was handed over."""

    owner: str
    key: str
    state: Siblings


MESSAGES: tuple[type, ...] = (
    Replicate,
    Replicated,
    Read,
    ReadReply,
    Repair,
    HandOff,
    HandedOff,
    Compare,
    Differ,
)
RECORDS: tuple[type, ...] = (Disk, Stored, Hinted)
