"""What travels between the nodes of a gossip store, and what they keep on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.protocols.leaderless import Disk
from services.protocols.quorum.messages import Compare, Differ, Stored
from services.protocols.quorum.versions import Siblings

Status = Literal["alive", "suspect", "faulty"]


@dataclass(slots=True)
class Update:
    """News of a member. Of two the one with the greater incarnation holds; of the same incarnation
    the worse status: only the member itself can raise the number, and so refute (SWIM §4.2)."""

    member: str
    status: Status
    incarnation: int


@dataclass(slots=True)
class Ping:
    """Are you there? Every message of the failure detector carries news (SWIM §4.1)."""

    src: str
    dst: str
    number: int
    updates: list[Update]


@dataclass(slots=True)
class PingRequest:
    """`target` does not answer me: ask it for me (SWIM §3.1, ping-req)."""

    src: str
    dst: str
    number: int
    target: str
    updates: list[Update]


@dataclass(slots=True)
class Ack:
    """`subject` is there: the sender itself, or whom it was asked to ping."""

    src: str
    dst: str
    number: int
    subject: str
    updates: list[Update]


@dataclass(slots=True)
class Rumours:
    """What is new to me, in round `number` of mine. With `pull`: and what is new to you?"""

    src: str
    dst: str
    number: int
    states: list[tuple[str, Siblings]]
    pull: bool


@dataclass(slots=True)
class Feedback:
    """Of the rumours of your round `number` I knew these (Demers et al. §1.4, "feedback")."""

    src: str
    dst: str
    number: int
    known: list[str]


@dataclass(slots=True)
class Incarnation:
    """This node's incarnation, on disk before anybody hears of it."""

    number: int


MESSAGES: tuple[type, ...] = (Ping, PingRequest, Ack, Rumours, Feedback, Compare, Differ)
RECORDS: tuple[type, ...] = (Disk, Stored, Incarnation)
