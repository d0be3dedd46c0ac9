"""What cores without a log to apply have in common: what they hand over
(`services/chassis/answering.py` does it), and the name of the disk that they count their writes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from services.protocols.core import NodeId

NONCE_BITS = 52


@dataclass(slots=True)
class Ready:
    """What is to be done now, in the order of the fields; see `services/protocols/core.py`.

    Each of `replies`, of the core's own type, names the `request` that it ends.
    """

    persist: list[Any] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    replies: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.persist or self.messages or self.replies or self.events)


@dataclass(slots=True)
class Disk:
    """The first record: this disk's name, under which its node numbers its writes.

    Not under the node's own: one that comes back with an empty disk counts from 1 again, and
    whoever has its first write of before would take the new one for known. (Riak names its vnodes
    so, for the same reason. The price is an entry of a vector for each disk that ever wrote.)
    """

    name: str


def new_disk(node: NodeId, random: Random) -> Disk:
    """One that no disk has been called; `random` must not be seeded the same at every start."""
    return Disk(f"{node}-{random.getrandbits(NONCE_BITS):013x}")


def node_of(disk: str) -> NodeId:
    """Whose disk it is, or was."""
    return disk.rpartition("-")[0]
