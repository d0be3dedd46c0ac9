"""What replicas say to each other, and what they persist. Names are the paper's, in snake case.

`view` is the sender's view-number. An op-number is an index of the log; an `op_view` is the view in
which the entry there was proposed, so that the two together name it. A receiver drops what is from
an unknown sender or not addressed to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.protocols.core import Entry, NodeId, Snapshot

# ---- normal operation (§4.1) --------------------------------------------------------------------


@dataclass(slots=True)
class Prepare:
    """⟨PREPARE v, m, n, k⟩ for a batch (§6.2): `entries` follow op-number `op_number`.

    `round` counts the primary's heartbeat rounds of this view; see `PrepareOk`.
    """

    src: NodeId
    dst: NodeId
    view: int
    op_number: int
    entries: list[Entry]
    commit_number: int
    round: int


@dataclass(slots=True)
class PrepareOk:
    """⟨PREPAREOK v, n, i⟩: every operation up to `op_number` is on this replica's disk.

    It answers COMMIT as well, with the newest `round` seen: a proof that the primary was followed
    *after* that round began (reads, lease, check quorum).
    """

    src: NodeId
    dst: NodeId
    view: int
    op_number: int
    round: int


@dataclass(slots=True)
class Commit:
    """⟨COMMIT v, k⟩, the heartbeat; with the primary's `op_number`, so that a replica that missed
    the last PREPARE finds out."""

    src: NodeId
    dst: NodeId
    view: int
    op_number: int
    commit_number: int
    round: int


# ---- view change (§4.2) -------------------------------------------------------------------------


@dataclass(slots=True)
class StartViewChange:
    """⟨STARTVIEWCHANGE v, i⟩ as a *suspicion*: I, in `view`, hear no primary and would go to
    `target`. The sender has not moved yet. `resigned`: it was the primary of `view` itself."""

    src: NodeId
    dst: NodeId
    view: int
    target: int
    resigned: bool


@dataclass(slots=True)
class DoViewChange:
    """⟨DOVIEWCHANGE v, l, v', n, k, i⟩, to the primary of `view`: I have left all views before it.

    The log l is not inside: the primary fetches what it lacks (§5.3). `lives` is the sender's crash
    vector: it makes a message from before a wipe recognisable (recovery.py).
    """

    src: NodeId
    dst: NodeId
    view: int
    last_normal_view: int
    op_number: int
    commit_number: int
    lives: dict[str, int]


@dataclass(slots=True)
class StartView:
    """⟨STARTVIEW v, l, n, k⟩, the log named by its last entry (`op_number`, `op_view`)."""

    src: NodeId
    dst: NodeId
    view: int
    op_number: int
    op_view: int
    commit_number: int


# ---- state transfer (§5.2) ----------------------------------------------------------------------


@dataclass(slots=True)
class GetState:
    """⟨GETSTATE v, n', i⟩: what follows `op_number`, if your entry there is of `op_view`?

    Or, once a checkpoint was offered: the bytes of `checkpoint` from `offset` on.
    """

    src: NodeId
    dst: NodeId
    view: int
    op_number: int
    op_view: int
    checkpoint: int
    offset: int


@dataclass(slots=True)
class NewState:
    """⟨NEWSTATE v, l, n, k⟩: `entries` follow `after`.

    Not `matched`: the logs differ at the number asked for. The sender's nearest entry that is not
    younger is `after` (of `after_view`).
    """

    src: NodeId
    dst: NodeId
    view: int
    matched: bool
    after: int
    after_view: int
    entries: list[Entry]
    op_number: int
    commit_number: int


@dataclass(slots=True)
class NewCheckpoint:
    """The entries asked for are gone: bytes `data` from `offset` on of the checkpoint of the state
    after `op_number` (§5.1). `done` marks the last piece."""

    src: NodeId
    dst: NodeId
    view: int
    op_number: int
    op_view: int
    offset: int
    data: bytes
    done: bool


# ---- recovery (§4.3) ----------------------------------------------------------------------------


@dataclass(slots=True)
class Recovery:
    """⟨RECOVERY i, x⟩. `life` 0 asks what is known; otherwise: this is my life now, note it down.

    `incarnation` names the sender's disk: drawn when it was found empty.
    """

    src: NodeId
    dst: NodeId
    nonce: int
    life: int
    incarnation: int


@dataclass(slots=True)
class RecoveryResponse:
    """⟨RECOVERYRESPONSE v, x, l, n, k, j⟩, the log named by its last entry; nonce and life echoed.

    `view` 0: the sender's disk is empty too, and its name is `incarnation`. `founding`: the disks
    that founded the group. `primary`: the sender leads `view`, so n and k count.
    """

    src: NodeId
    dst: NodeId
    nonce: int
    life: int
    view: int
    incarnation: int
    founding: dict[str, int]
    primary: bool
    op_number: int
    op_view: int
    commit_number: int
    lives: dict[str, int]


# ---- records ------------------------------------------------------------------------------------


@dataclass(slots=True)
class ViewState:
    """view-number, v' (the last view in which the status was normal) and the crash vector.

    The last one counts. Equal numbers: normal. None at all: this disk holds no promise, the replica
    has to recover, and what else is on the disk is left over from an attempt to.
    """

    view: int
    last_normal_view: int
    lives: dict[str, int]


@dataclass(slots=True)
class Truncate:
    """The log ends with `op_number`; 0 also takes the checkpoint away."""

    op_number: int


@dataclass(slots=True)
class Incarnation:
    """The name of this disk, written when it was found empty."""

    nonce: int


@dataclass(slots=True)
class Founding:
    """The disks of all replicas at an instant at which all were empty (recovery.py)."""

    incarnations: dict[str, int]


Message = (
    Prepare
    | PrepareOk
    | Commit
    | StartViewChange
    | DoViewChange
    | StartView
    | GetState
    | NewState
    | NewCheckpoint
    | Recovery
    | RecoveryResponse
)
Record = ViewState | Entry | Truncate | Snapshot | Incarnation | Founding

MESSAGES: tuple[type, ...] = (
    Prepare,
    PrepareOk,
    Commit,
    StartViewChange,
    DoViewChange,
    StartView,
    GetState,
    NewState,
    NewCheckpoint,
    Recovery,
    RecoveryResponse,
)
RECORDS: tuple[type, ...] = (ViewState, Entry, Truncate, Snapshot, Incarnation, Founding)
