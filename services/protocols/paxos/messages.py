"""What travels between nodes, and what is persisted.

p1a, p1b, p2a and p2b are the paper's (*Paxos Made Moderately Complex* §2), with several slots to
a message. A ballot is an integer (ballots.py). A value is an `Entry`: its index is the slot, and
its term the ballot in which it was *first* proposed, which stays when a later ballot proposes it
again.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.protocols.core import Entry, NodeId, Snapshot


@dataclass(slots=True)
class PValue:
    """⟨b, s, c⟩: the slot s and the command c are those of `entry`."""

    ballot: int
    entry: Entry


@dataclass(slots=True)
class P0a:
    """Not of the paper: would you promise this ballot? (Nothing is promised by the answer.)"""

    src: NodeId
    dst: NodeId
    ballot: int


@dataclass(slots=True)
class P0b:
    """`ballot`: the one asked about if `granted`, else the one this acceptor has promised."""

    src: NodeId
    dst: NodeId
    ballot: int
    granted: bool


@dataclass(slots=True)
class P1a:
    """A scout asks an acceptor to adopt its ballot, for all slots at once."""

    src: NodeId
    dst: NodeId
    ballot: int


@dataclass(slots=True)
class P1b:
    """`ballot` is the acceptor's, a higher one than asked for if the scout is preempted.

    `accepted`: its pvalues of the slots after `decided`; those up to there are decided, and the
    scout has to learn them (Learn) before it counts this promise.
    """

    src: NodeId
    dst: NodeId
    ballot: int
    decided: int
    accepted: list[PValue]


@dataclass(slots=True)
class P2a:
    """The commanders of these slots ask to accept ⟨ballot, index, entry⟩ for each of `entries`.

    Without entries: the heartbeat of the active leader. Every slot up to `decided` is decided.
    `round` counts the leader's heartbeats (reads, lease).
    """

    src: NodeId
    dst: NodeId
    ballot: int
    entries: list[Entry]
    decided: int
    round: int


@dataclass(slots=True)
class P2b:
    """`ballot` is the acceptor's; if it is that of the p2a, it has accepted `slots`.

    `slots`: (first, last) of each run. A higher ballot: the leader is preempted (and `round` is 0).
    """

    src: NodeId
    dst: NodeId
    ballot: int
    slots: list[tuple[int, int]]
    round: int


@dataclass(slots=True)
class Learn:
    """A replica that has decided up to `after` asks for more.

    `offset` bytes of the snapshot up to `snapshot_index` are here already (0: of none).
    """

    src: NodeId
    dst: NodeId
    after: int
    snapshot_index: int
    offset: int


@dataclass(slots=True)
class Decisions:
    """⟨s, c⟩ of consecutive slots, of all those up to `decided` that the sender knows."""

    src: NodeId
    dst: NodeId
    entries: list[Entry]
    decided: int


@dataclass(slots=True)
class SnapshotChunk:
    """The decisions after `after` are collected away here: bytes of the state instead."""

    src: NodeId
    dst: NodeId
    last_index: int
    last_term: int
    offset: int
    data: bytes
    done: bool


@dataclass(slots=True)
class Promised:
    """The record of an acceptor's `ballot_num`."""

    ballot: int


@dataclass(slots=True)
class Accepted:
    """The record of pvalues: each of `entries`, accepted in `ballot` (and so promised)."""

    ballot: int
    entries: list[Entry]


@dataclass(slots=True)
class Learned:
    """The record of decisions, of the next slots, that came from another replica."""

    entries: list[Entry]


@dataclass(slots=True)
class Decided:
    """The record that of every slot up to `slot` what is on record is the decision.

    Written only along with others: it saves work after a restart, and no safety rests on it.
    """

    slot: int


Message = P0a | P0b | P1a | P1b | P2a | P2b | Learn | Decisions | SnapshotChunk
Record = Promised | Accepted | Learned | Decided | Snapshot

MESSAGES: tuple[type, ...] = (P0a, P0b, P1a, P1b, P2a, P2b, Learn, Decisions, SnapshotChunk)
RECORDS: tuple[type, ...] = (Promised, Accepted, Learned, Decided, Snapshot)
