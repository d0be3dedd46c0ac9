"""One operation of a coordinator, from its call to the last answer that it waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from services.protocols.core import NodeId
from services.protocols.quorum.versions import Siblings


@dataclass(slots=True)
class Operation:
    """A read or a write under way.

    `homes`: the other nodes that keep the key. `heard`: whose copy is safe (for a write), or known
    (for a read): each home counts once, whoever answered for it and however often. `told`: the
    client has its answer; a read then goes on until all have answered, for its repairs.
    """

    kind: Literal["read", "write"]
    request: int
    key: str
    need: int
    began: int  # tick
    state: Siblings
    homes: list[NodeId] = field(default_factory=list)
    heard: set[NodeId] = field(default_factory=set)
    found: dict[NodeId, Siblings] = field(default_factory=dict)
    told: bool = False

    @property
    def reached(self) -> int:
        return len(self.heard)

    def answered(self, home: NodeId) -> None:
        """The copy that `home` shall have is on a disk, its own or that of a stand-in."""
        self.heard.add(home)

    def replied(self, home: NodeId, state: Siblings, merged: Siblings) -> None:
        """`home` has `state`; with what was known before that is `merged`."""
        self.heard.add(home)
        self.found[home] = state
        self.state = merged
