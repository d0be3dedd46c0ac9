"""What Zab nodes say to each other, and what they persist.

Names are the paper's in words: CEPOCH is `CEpoch`, ACK-E `AckEpoch`, ACK-LD `AckNewLeader`,
COMMIT-LD `CommitNewLeader`; DIFF, TRUNC and SNAP are ZooKeeper's (Medeiros §4.3). `epoch` is always
the epoch e' of the leader that the message is to or from. A receiver drops what is from an unknown
sender or not addressed to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from services.protocols.core import Entry, NodeId, Snapshot


class Zxid(NamedTuple):
    """A transaction's id (paper §III): ordered by epoch, then counter. (0, 0): before the first.

    The counter is the position in the history, `Entry.index`, and goes on counting from one epoch
    to the next (see the package).
    """

    epoch: int
    counter: int

    def __str__(self) -> str:
        return f"{self.counter}/{self.epoch}"


# ---- phase 0: leader election ---------------------------------------------------------------


@dataclass(slots=True)
class Notification:
    """Medeiros §4.2. The sender's state (`looking`, `following`, `leading`) and its vote.

    `vote`: the node that it elects, follows or is. `stands`: it may be elected itself, with
    `current_epoch` and `last`, the zxid at the end of its history.
    """

    src: NodeId
    dst: NodeId
    round: int
    state: str
    vote: NodeId | None
    stands: bool
    current_epoch: int
    last: Zxid


# ---- phase 1: discovery ---------------------------------------------------------------------


@dataclass(slots=True)
class CEpoch:
    """Step f.1.1: a follower tells the prospective leader what it has promised last."""

    src: NodeId
    dst: NodeId
    accepted_epoch: int


@dataclass(slots=True)
class NewEpoch:
    """Step l.1.1: promise `epoch`, which is later than all promises of a quorum."""

    src: NodeId
    dst: NodeId
    epoch: int


@dataclass(slots=True)
class AckEpoch:
    """Step f.1.2, ACK-E: the follower's current epoch and its history.

    `promised`: it promises `epoch` to this leader by this. Otherwise it had accepted that epoch
    before, whoever proposed it, and only wants to be synchronised. `history`: the last zxid of each
    epoch in its history, oldest first, which says all that is needed to find where two part.
    """

    src: NodeId
    dst: NodeId
    epoch: int
    promised: bool
    current_epoch: int
    history: list[Zxid]


# ---- phase 2: synchronisation ---------------------------------------------------------------


@dataclass(slots=True)
class Trunc:
    """Your history up to `last` is mine: drop what follows it, I never saw that."""

    src: NodeId
    dst: NodeId
    epoch: int
    last: Zxid


@dataclass(slots=True)
class Diff:
    """What follows `prev` in the leader's history."""

    src: NodeId
    dst: NodeId
    epoch: int
    prev: Zxid
    entries: list[Entry]


@dataclass(slots=True)
class Snap:
    """The bytes `data`, from `offset` on, of the leader's snapshot up to `last`."""

    src: NodeId
    dst: NodeId
    epoch: int
    last: Zxid
    offset: int
    data: bytes
    done: bool


@dataclass(slots=True)
class AckSync:
    """Answers Trunc, Diff and Snap: my history ends with `last` now.

    `offset`: the next byte wanted of the snapshot that is being received, else 0.
    """

    src: NodeId
    dst: NodeId
    epoch: int
    last: Zxid
    offset: int


@dataclass(slots=True)
class NewLeader:
    """Step l.2.1: your history is now the leader's up to `last`, which is all of the initial one.
    Accept it, and with it the leader of `epoch`."""

    src: NodeId
    dst: NodeId
    epoch: int
    last: Zxid


@dataclass(slots=True)
class AckNewLeader:
    """Step f.2.1, ACK-LD: currentEpoch is `epoch` and the history up to `counter` is on disk."""

    src: NodeId
    dst: NodeId
    epoch: int
    counter: int


@dataclass(slots=True)
class CommitNewLeader:
    """Step l.2.2, COMMIT-LD: a quorum accepted the leader; deliver everything up to `counter`."""

    src: NodeId
    dst: NodeId
    epoch: int
    counter: int


# ---- phase 3: broadcast ---------------------------------------------------------------------


@dataclass(slots=True)
class Propose:
    """Step l.3.1: the transactions that follow `prev`, in the order of their zxids."""

    src: NodeId
    dst: NodeId
    epoch: int
    prev: Zxid
    entries: list[Entry]


@dataclass(slots=True)
class Ack:
    """Step f.3.2: everything up to `counter` is accepted. `gap`: what came does not join to it."""

    src: NodeId
    dst: NodeId
    epoch: int
    counter: int
    gap: bool


@dataclass(slots=True)
class Commit:
    """Step l.3.2: a quorum accepted everything up to `counter`."""

    src: NodeId
    dst: NodeId
    epoch: int
    counter: int


@dataclass(slots=True)
class Ping:
    """The leader is there. `round` counts its pings; `counter`: committed up to there."""

    src: NodeId
    dst: NodeId
    epoch: int
    round: int
    counter: int


@dataclass(slots=True)
class Pong:
    """The sender followed this leader when ping `round` came; it has accepted up to `counter`."""

    src: NodeId
    dst: NodeId
    epoch: int
    round: int
    counter: int


# ---- records --------------------------------------------------------------------------------


@dataclass(slots=True)
class Epochs:
    """acceptedEpoch (f.p: the last epoch promised) and currentEpoch (f.a: of the last leader
    accepted)."""

    accepted_epoch: int
    current_epoch: int


@dataclass(slots=True)
class Truncate:
    """The history ends with `counter` now."""

    counter: int


Message = (
    Notification
    | CEpoch
    | NewEpoch
    | AckEpoch
    | Trunc
    | Diff
    | Snap
    | AckSync
    | NewLeader
    | AckNewLeader
    | CommitNewLeader
    | Propose
    | Ack
    | Commit
    | Ping
    | Pong
)
Record = Epochs | Truncate | Entry | Snapshot

MESSAGES: tuple[type, ...] = (
    Notification,
    CEpoch,
    NewEpoch,
    AckEpoch,
    Trunc,
    Diff,
    Snap,
    AckSync,
    NewLeader,
    AckNewLeader,
    CommitNewLeader,
    Propose,
    Ack,
    Commit,
    Ping,
    Pong,
)
RECORDS: tuple[type, ...] = (Epochs, Truncate, Entry, Snapshot)
