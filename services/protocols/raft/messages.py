"""What Raft nodes say to each other (figures 2 and 13, §9.6 and §3.10), and what they persist.

Field names are the paper's, in snake case. Every message carries `src`, `dst` and the sender's
`term`; a receiver drops what is from an unknown sender or not addressed to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.protocols.core import Entry, NodeId, Snapshot


@dataclass(slots=True)
class RequestVote:
    """Figure 2. `transfer` marks a campaign that the leader asked for (dissertation §4.2.3):
    voters then do not hold on to the leader that they still hear."""

    src: NodeId
    dst: NodeId
    term: int
    last_log_index: int
    last_log_term: int
    transfer: bool = False


@dataclass(slots=True)
class RequestVoteResponse:
    """Figure 2."""

    src: NodeId
    dst: NodeId
    term: int
    vote_granted: bool


@dataclass(slots=True)
class RequestPreVote:
    """Dissertation §9.6: would you vote for me in `term` (the sender's term plus one)?"""

    src: NodeId
    dst: NodeId
    term: int
    last_log_index: int
    last_log_term: int


@dataclass(slots=True)
class RequestPreVoteResponse:
    """A grant repeats the `term` that was asked for; a refusal carries the voter's own."""

    src: NodeId
    dst: NodeId
    term: int
    vote_granted: bool


@dataclass(slots=True)
class AppendEntries:
    """Figure 2; with no entries a heartbeat.

    `round` counts the leader's heartbeat rounds of this term. The response returns it, which tells
    the leader that it was still recognised *after* that round began (reads, lease).
    """

    src: NodeId
    dst: NodeId
    term: int
    prev_log_index: int
    prev_log_term: int
    entries: list[Entry]
    leader_commit: int
    round: int


@dataclass(slots=True)
class AppendEntriesResponse:
    """Figure 2, with the hint of §5.3 for a fast backup.

    success: the log equals the leader's up to `match_index`. Otherwise the log has at
    `prev_log_index` an entry of `conflict_term`, whose first index is `conflict_index`; or it is
    shorter: then `conflict_term` is 0 and `conflict_index` the first index it lacks.
    """

    src: NodeId
    dst: NodeId
    term: int
    success: bool
    match_index: int
    prev_log_index: int
    conflict_index: int
    conflict_term: int
    round: int


@dataclass(slots=True)
class InstallSnapshot:
    """Figure 13: the bytes `data` of a snapshot from `offset` on; `done` marks the last chunk."""

    src: NodeId
    dst: NodeId
    term: int
    last_included_index: int
    last_included_term: int
    offset: int
    data: bytes
    done: bool


@dataclass(slots=True)
class InstallSnapshotResponse:
    """`offset`: the next byte wanted. `done`: everything up to `last_included_index` is here."""

    src: NodeId
    dst: NodeId
    term: int
    last_included_index: int
    offset: int
    done: bool


@dataclass(slots=True)
class TimeoutNow:
    """Dissertation §3.10: campaign at once; the sender is giving its leadership to you."""

    src: NodeId
    dst: NodeId
    term: int


@dataclass(slots=True)
class HardState:
    """The record of `currentTerm` and `votedFor` (figure 2, persistent state)."""

    term: int
    vote: NodeId | None


Message = (
    RequestVote
    | RequestVoteResponse
    | RequestPreVote
    | RequestPreVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | InstallSnapshot
    | InstallSnapshotResponse
    | TimeoutNow
)
Record = HardState | Entry | Snapshot

MESSAGES: tuple[type, ...] = (
    RequestVote,
    RequestVoteResponse,
    RequestPreVote,
    RequestPreVoteResponse,
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    TimeoutNow,
)
RECORDS: tuple[type, ...] = (HardState, Entry, Snapshot)
