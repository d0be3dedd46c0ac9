"""What the members of a chain say to each other, and what they persist.

The configuration master is a Raft of its own (`services/protocols/raft`): its messages travel
beside these under their own names; its records are wrapped, for a chain has such records too.
Every message carries the sender's `epoch`; a receiver of another epoch ignores it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.protocols import raft
from services.protocols.core import Entry, NodeId, Snapshot
from services.protocols.raft.messages import HardState


@dataclass(slots=True)
class Forward:
    """From a server to its successor (and from the tail to who is outside): updates, in order.

    They follow the entry (`prev_index`, `prev_epoch`); with none it is a heartbeat, and is always
    answered. `start`: where the head's log ended when the epoch began. `stable`: how far the sender
    knows that the tail has the log.
    """

    src: NodeId
    dst: NodeId
    epoch: int
    start: int
    prev_index: int
    prev_epoch: int
    entries: list[Entry]
    stable: int


@dataclass(slots=True)
class Acknowledge:
    """Back to the predecessor: the tail has everything up to `stable` (the paper's ack(r)).

    accepted: the log is the predecessor's up to `index`. Otherwise it is not at the `prev_index`
    of a Forward, and may be at `index`.
    """

    src: NodeId
    dst: NodeId
    epoch: int
    accepted: bool
    index: int
    stable: int


@dataclass(slots=True)
class TransferState:
    """The bytes `data` of a snapshot from `offset` on; `done` marks the last ones."""

    src: NodeId
    dst: NodeId
    epoch: int
    last_index: int
    last_epoch: int
    offset: int
    data: bytes
    done: bool


@dataclass(slots=True)
class StateTransferred:
    """`offset`: the next byte wanted. `done`: everything up to `last_index` is here."""

    src: NodeId
    dst: NodeId
    epoch: int
    last_index: int
    offset: int
    done: bool


@dataclass(slots=True)
class Confirm:
    """Do you know of a later chain than that of `epoch`?"""

    src: NodeId
    dst: NodeId
    epoch: int
    round: int


@dataclass(slots=True)
class Confirmed:
    """No. (Who does know of one does not answer.)"""

    src: NodeId
    dst: NodeId
    epoch: int
    round: int


Finding = Literal["silent", "caught_up", "synced"]


@dataclass(slots=True)
class Report:
    """To the master: `node` does not answer its predecessor; has nearly all that the tail has; or
    has, newly in the chain, all that was acknowledged before."""

    src: NodeId
    dst: NodeId
    epoch: int
    node: NodeId
    finding: Finding


@dataclass(slots=True)
class Configuration:
    """The chain of `epoch`, head first; `joining` are those in it that were not in the one before.

    As a record: this server has entered the epoch, and will never again act in an earlier one.
    """

    epoch: int
    chain: tuple[NodeId, ...]
    joining: tuple[NodeId, ...]


@dataclass(slots=True)
class MasterEntry:
    """An entry of the master's log."""

    index: int
    term: int
    command: bytes


@dataclass(slots=True)
class MasterSnapshot:
    """In place of the master's log up to `last_index`."""

    last_index: int
    last_term: int
    data: bytes


Message = Forward | Acknowledge | TransferState | StateTransferred | Confirm | Confirmed | Report
MasterRecord = HardState | MasterEntry | MasterSnapshot
Record = Entry | Snapshot | Configuration | MasterRecord

MESSAGES: tuple[type, ...] = (
    Forward,
    Acknowledge,
    TransferState,
    StateTransferred,
    Confirm,
    Confirmed,
    Report,
    *raft.MESSAGES,
)
RECORDS: tuple[type, ...] = (
    Entry,
    Snapshot,
    Configuration,
    HardState,
    MasterEntry,
    MasterSnapshot,
)
