"""The state of a replica (§4, figure 2), and the ways from one view and status to another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Unpack

from services.protocols.core import Entry, NodeId, Snapshot
from services.protocols.rounds import ReadRounds
from services.protocols.viewstamped.log import Log
from services.protocols.viewstamped.messages import (
    Founding,
    Incarnation,
    PrepareOk,
    Record,
    Truncate,
    ViewState,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from services.protocols.member import Settings


FOUNDING_VIEW = 1  # in which nobody leads (recovery.py); the view after it is replica 1's


class Status(Enum):
    NORMAL = "normal"
    VIEW_CHANGE = "view_change"
    RECOVERING = "recovering"


@dataclass(slots=True)
class Peer:
    """Another replica as the primary of this view sees it."""

    prepared: int = 0  # its newest PREPAREOK in this view
    round: int = 0  # the newest heartbeat round it answered
    heard_tick: int = 0


class ReplicaState(ReadRounds):
    """Fields, and the steps that belong to no sub-protocol."""

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        random: Random,
        nonce: int,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(node, peers, **settings)
        self.configuration = tuple(sorted((node, *peers)))
        self.random = random
        self.nonce = nonce

        # What survives as records.
        self.view = 0  # view-number; 0: no view yet
        self.last_normal_view = 0
        self.lives: dict[NodeId, int] = {}  # the crash vector; a node that is not in it: 0
        self.log = Log()
        self.incarnation = 0
        self.founding: dict[NodeId, int] = {}

        # What does not.
        self.status_ = Status.RECOVERING
        self.leading = False  # the primary of `view`, and not resigned
        self.resigned = False  # the primary of `view`, which will not lead it (again)
        self.leader: NodeId | None = None
        self.commit_number = 0
        self.applied_index = 0  # the last one handed over in `Ready.committed` or `restore`
        self.deadline = 0  # the tick at which the primary is suspected
        self.loyal_until = 0  # the tick before which nobody else's suspicion is joined (a lease!)
        self.suspects = False
        self.others = {peer: Peer() for peer in peers}
        self.reset_timer()

        # What the next ready() hands over.
        self._unpersisted: list[Record] = []
        self._snapshot_changed = False
        self._pending_ok: PrepareOk | None = None  # in _messages; may be widened

    def primary(self, view: int) -> NodeId:
        """§4: "The primary is chosen round-robin, starting with replica 1"."""
        return self.configuration[(view - FOUNDING_VIEW - 1) % len(self.configuration)]

    # ---- restart ----------------------------------------------------------------------------

    def replay(self, records: Iterable[Record]) -> None:
        """Rebuild what survives. Raises ValueError if the records cannot be this protocol's."""
        left_over = False
        for record in records:
            match record:
                case ViewState(view, last_normal_view, lives):
                    self.view, self.last_normal_view = view, last_normal_view
                    self.lives = dict(lives)
                case Entry():
                    self._replay_entry(record)
                case Truncate(op_number):
                    self._replay_truncate(op_number)
                case Snapshot():
                    self.log.reset(record)
                case Incarnation(nonce):
                    self.incarnation = nonce
                case Founding(incarnations):
                    self.founding = dict(incarnations)
                case _:
                    raise ValueError(f"not a record of Viewstamped Replication: {record!r}")
            left_over = self.log.last_index > 0
        if not self.view:
            # An empty disk, or one on which a recovery did not come to its end.
            self.log, self.founding = Log(), {}
            if left_over:
                self.record(Truncate(0))
            return
        if self.log.last_term > self.view:
            raise ValueError(f"log of view {self.log.last_term} but view-number {self.view}")
        self._restore = self.log.snapshot
        self.commit_number = self.applied_index = self.log.snapshot_index
        normal = self.view == self.last_normal_view
        self.status_ = Status.NORMAL if normal else Status.VIEW_CHANGE

    def _replay_entry(self, entry: Entry) -> None:
        log = self.log
        if log.snapshot_index < entry.index <= log.last_index:
            log.truncate(entry.index - 1)
        if entry.index != log.last_index + 1:
            raise ValueError(f"entry {entry.index} does not follow entry {log.last_index}")
        log.extend([entry])

    def _replay_truncate(self, op_number: int) -> None:
        if op_number == 0:
            self.log = Log()
        elif self.log.snapshot_index <= op_number <= self.log.last_index:
            self.log.truncate(op_number)
        else:
            raise ValueError(
                f"log of {self.log.snapshot_index} … {self.log.last_index} cut at {op_number}"
            )

    # ---- output -----------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        self._unpersisted.append(record)

    def record_view(self) -> None:
        self.record(ViewState(self.view, self.last_normal_view, dict(self.lives)))

    def append(self, entries: list[Entry]) -> None:
        self.log.extend(entries)
        self._unpersisted.extend(entries)

    def truncate(self, op_number: int, source: NodeId) -> None:
        """Drop what follows; it is in no log that counts any more, so it was never committed."""
        assert op_number >= self.commit_number, (
            f"{self.node} would drop what follows {op_number}, and {self.commit_number} is "
            f"committed; the log of {source} differs"
        )
        self.emit("truncate_log", first=op_number + 1, last=self.log.last_index, leader=source)
        self.log.truncate(op_number)
        self.record(Truncate(op_number))

    # ---- time -------------------------------------------------------------------------------

    def reset_timer(self) -> None:
        """A new random timeout from [election_ticks, 2 · election_ticks)."""
        self.suspects = False
        self.loyal_until = self.ticks + self.election_ticks
        timeout = self.election_ticks + self.random.randrange(self.election_ticks)
        self.deadline = self.ticks + timeout

    def hear_primary(self, src: NodeId) -> None:
        """The primary of the current view lives."""
        self.reset_timer()
        if self.leader != src:
            self.leader = src
            if self.status_ is Status.NORMAL:
                self.emit("follow", leader=src, term=self.view)

    # ---- views ------------------------------------------------------------------------------

    def enter_view(self, view: int, reason: str) -> None:
        """Into a later view: from here on no message of an earlier one is answered."""
        assert view > self.view, (view, self.view)
        assert self.status_ is not Status.RECOVERING, f"{self.node} recovers and changes views"
        self.stop_leading(reason)
        self.view = view
        self.status_ = Status.VIEW_CHANGE
        self.resigned = False
        self.leader = None
        self.stop_transfer()
        self.forget_view_change()
        self.record_view()
        self.reset_timer()
        self.emit("enter_view", term=view, reason=reason)

    def become_normal(self) -> None:
        """The log of this view is complete here."""
        assert self.log.last_term <= self.view, (self.log.last_term, self.view)
        self.status_ = Status.NORMAL
        self.last_normal_view = self.view
        self.forget_view_change()
        self.record_view()
        self.reset_timer()

    def stop_leading(self, reason: str) -> None:
        if self.leading:
            self.leading, self.leader = False, None
            self.emit("step_down", term=self.view, reason=reason)
            self.leave_leadership()

    def resign(self, reason: str) -> None:
        """Lead this view no more: a quorum, or a later view, is elsewhere. Others may move on."""
        self.stop_leading(reason)
        self.resigned = True
        self.suspect(reason)

    # ---- what one part needs of another -----------------------------------------------------

    def suspect(self, reason: str) -> None:
        raise NotImplementedError

    def lead(self) -> None:
        raise NotImplementedError

    def leave_leadership(self) -> None:
        raise NotImplementedError

    def acknowledge(self, round_: int) -> None:
        raise NotImplementedError

    def forget_view_change(self) -> None:
        raise NotImplementedError

    def stop_transfer(self) -> None:
        raise NotImplementedError

    def transfer_from(
        self, source: NodeId, *, target: int | None = None, target_view: int | None = None
    ) -> None:
        raise NotImplementedError

    def transfer_done(self) -> None:
        raise NotImplementedError
