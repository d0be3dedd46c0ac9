"""What travels between the nodes and what is persisted, of `services.protocols.primary_backup`."""

from __future__ import annotations

from dataclasses import dataclass

from services.protocols.core import Entry, NodeId, Snapshot


@dataclass(slots=True)
class Heartbeat:
    """`src` is there and knows of `epoch`. Everyone sends it to everyone.

    A backup's tells how far its log goes, and whether it has `lost` the primary.
    """

    src: NodeId
    dst: NodeId
    epoch: int
    last_term: int = 0
    last_index: int = 0
    lost: bool = False


@dataclass(slots=True)
class Replicate:
    """The primary's log after `prev_index`, also its heartbeat when `entries` is empty.

    `prev_digest` stands for the whole log up to `prev_index`; `last_index` is the last entry that
    the primary has at all, `commit_index` the last one that is acknowledged.
    """

    src: NodeId
    dst: NodeId
    epoch: int
    prev_index: int
    prev_digest: int
    entries: list[Entry]
    last_index: int
    commit_index: int


@dataclass(slots=True)
class Acknowledge:
    """Answers a `Replicate` or `InstallSnapshot` of the same epoch.

    When `matched`, `src` has on stable storage what the primary has up to `index`. Otherwise it
    could not join the entries to its log at `prev_index` and asks to go on after `index`.
    `last_index` and `last_term` are of the last entry that it has.
    """

    src: NodeId
    dst: NodeId
    epoch: int
    matched: bool
    index: int
    prev_index: int
    last_index: int
    last_term: int


@dataclass(slots=True)
class InstallSnapshot:
    """The primary's snapshot, for a backup that needs entries which are compacted.

    `digest` stands for the log up to `snapshot.last_index`. `prev_index`: where the backup wanted
    to go on, but the primary's log begins later.
    """

    src: NodeId
    dst: NodeId
    epoch: int
    snapshot: Snapshot
    digest: int
    prev_index: int


@dataclass(slots=True)
class HardState:
    """The highest epoch known. `snapshot_digest`: of the log up to the last `Snapshot` record."""

    epoch: int
    snapshot_digest: int


@dataclass(slots=True)
class Truncate:
    """Entries after `last_index` are discarded."""

    last_index: int


MESSAGES: tuple[type, ...] = (Heartbeat, Replicate, Acknowledge, InstallSnapshot)
RECORDS: tuple[type, ...] = (Snapshot, HardState, Truncate, Entry)
