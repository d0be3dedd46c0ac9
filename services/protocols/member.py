"""What every core of a group is made of, whatever its protocol: members, time, bounds, output."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, TypedDict

from services.protocols.core import Event, NodeId, ReadGrant, ReadRefusal

if TYPE_CHECKING:
    from services.protocols.core import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is bounded, and by how much. Sizes count the bytes of commands and snapshots only."""

    entries_per_message: int = 256
    bytes_per_message: int = 256 * 1024
    uncommitted_bytes: int = 16 * 1024 * 1024
    waiting_reads: int = 10_000
    snapshot_chunk_bytes: int = 128 * 1024
    kept_entries: int = 1_000  # behind the snapshot, in memory, for who is a little late

    may_be_zero: ClassVar[tuple[str, ...]] = ("kept_entries",)

    def __post_init__(self) -> None:
        for name in self.names():
            least = 0 if name in self.may_be_zero else 1
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


class Settings(TypedDict):
    """What a core hands on to its `Member`."""

    election_ticks: int
    heartbeat_ticks: int
    lease_ticks: NotRequired[int]
    limits: Limits


class Member:
    """One of a fixed group: `node`, and its `peers`.

    `ticks` counts calls of `tick()`; everything with time in it is a difference of two counts.

    Raises:
        ValueError: the configuration cannot be.
    """

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        election_ticks: int,
        heartbeat_ticks: int,
        lease_ticks: int = 0,
        limits: Limits,
    ) -> None:
        if node in peers or len(set(peers)) != len(peers):
            raise ValueError(f"the peers of {node} must be the other members, once each: {peers}")
        if not 1 <= heartbeat_ticks <= election_ticks // 2:
            raise ValueError("heartbeat_ticks must be from 1 to half of election_ticks")
        if not 0 <= lease_ticks < election_ticks:
            raise ValueError("lease_ticks must be from 0 to less than election_ticks")
        self.node = node
        self.peers = peers
        self.quorum = (len(peers) + 1) // 2 + 1
        self.election_ticks = election_ticks
        self.heartbeat_ticks = heartbeat_ticks
        self.lease_ticks = lease_ticks
        self.limits = limits
        self.ticks = 0

        # What the next ready() hands over, beside the records.
        self._messages: list[Any] = []
        self._restore: Snapshot | None = None
        self._reads: list[ReadGrant | ReadRefusal] = []
        self._events: list[Event] = []

    def emit(self, name: str, **fields: Any) -> None:
        self._events.append(Event(name, fields))

    def send(self, message: Any) -> None:
        self._messages.append(message)
