"""What travels between leaders, and what they keep on disk."""

from __future__ import annotations

from dataclasses import dataclass

from services.protocols.leaderless import Disk
from services.protocols.multi_leader.versions import State, Write


@dataclass(slots=True)
class Ship:
    """Take these; of each log they are in order and without a gap."""

    src: str
    dst: str
    writes: list[Write]


@dataclass(slots=True)
class Have:
    """On my disk, by log, everything up to this number; my log goes back to `begins` + 1 only.

    `disk` names my own log: another one than before means that the old disk, and so what an earlier
    `Have` said, is no longer true.
    """

    src: str
    dst: str
    disk: str
    vector: dict[str, int]
    begins: dict[str, int]


@dataclass(slots=True)
class Fetch:
    """I lack what your logs no longer have: your states, of the keys after this one.

    `attempt` is drawn anew for each, and stands in its answers: else the late answer to an earlier
    one, of a time when there was nothing there yet, would end this one.
    """

    src: str
    dst: str
    attempt: int
    after: str


@dataclass(slots=True)
class States:
    """A piece of my state, and the vector that I have now. `done`: there are no keys beyond."""

    src: str
    dst: str
    disk: str
    attempt: int
    after: str
    states: list[tuple[str, State]]
    vector: dict[str, int]
    done: bool


@dataclass(slots=True)
class Whole:
    """All writes up to `vector` are in these states; so many conflicts were told so far.

    One record, for the states without the vector would be writes that are in no log: should the
    node that they came from lose its disk, nobody would ever hear of them.
    """

    states: list[tuple[str, State]]
    vector: dict[str, int]
    conflicts: int


MESSAGES: tuple[type, ...] = (Ship, Have, Fetch, States)
RECORDS: tuple[type, ...] = (Disk, Write, Whole)
