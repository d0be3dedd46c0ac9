"""`Viewstamped`: the parts put together behind the face of a protocol core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from services.protocols.core import NOTHING, Core, Entry, NodeId, Ready
from services.protocols.member import Limits
from services.protocols.viewstamped.backup import Backup
from services.protocols.viewstamped.messages import (
    Commit,
    DoViewChange,
    Founding,
    GetState,
    Incarnation,
    NewCheckpoint,
    NewState,
    Prepare,
    PrepareOk,
    Record,
    Recovery,
    RecoveryResponse,
    StartView,
    StartViewChange,
    ViewState,
)
from services.protocols.viewstamped.reads import Reads
from services.protocols.viewstamped.recovery import Recovering
from services.protocols.viewstamped.state import Status
from services.protocols.viewstamped.transfer import StateTransfer
from services.protocols.viewstamped.view_change import ViewChange

if TYPE_CHECKING:
    from random import Random


class Viewstamped(Reads, ViewChange, Backup, StateTransfer, Recovering):
    """One replica of a group with fixed membership. See the package's docstring.

    Args:
        node: this replica's id.
        peers: the ids of all others.
        random: chance, for timeouts only.
        nonce: a number that no other start of any replica has (but for this argument, equal
            inputs give equal outputs): it names the disk if that is empty, and tells the answers
            to this start from the answers to those before it.
        records: what was persisted, in that order, since (and with) the last Snapshot record.
        election_ticks: the least time without a primary until it is suspected; random up to twice.
        heartbeat_ticks: the primary's COMMIT period; at most half of `election_ticks`.
        lease_ticks: how long an answered COMMIT lets the primary answer lease reads; less than
            `election_ticks`. The default, three quarters, leaves the rest for clock drift.
        limits: what is bounded, and by how much.

    Raises:
        ValueError: the configuration or the records cannot be.
    """

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        random: Random,
        nonce: int,
        records: Iterable[Record] = (),
        election_ticks: int = 20,
        heartbeat_ticks: int = 3,
        lease_ticks: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        if lease_ticks is None:
            lease_ticks = election_ticks * 3 // 4
        if nonce < 1:
            raise ValueError(f"a nonce is a positive number, not {nonce}")
        super().__init__(
            node,
            tuple(peers),
            random=random,
            nonce=nonce,
            election_ticks=election_ticks,
            heartbeat_ticks=heartbeat_ticks,
            lease_ticks=lease_ticks,
            limits=limits or Limits(),
        )
        self._suspicions = {}
        self._answers = {}
        self.stop_transfer()
        self.forget_view_change()
        self.begin_reads()
        self._handlers: dict[type, Callable[[Any], None]] = {
            Prepare: self.on_prepare,
            PrepareOk: self.on_prepare_ok,
            Commit: self.on_commit,
            StartViewChange: self.on_start_view_change,
            DoViewChange: self.on_do_view_change,
            StartView: self.on_start_view,
            GetState: self.on_get_state,
            NewState: self.on_new_state,
            NewCheckpoint: self.on_new_checkpoint,
            Recovery: self.on_recovery,
            RecoveryResponse: self.on_recovery_response,
        }
        self.replay(records)
        self._restart()

    def _restart(self) -> None:
        if self.status_ is Status.RECOVERING:
            self.begin_recovery()
        elif self.status_ is Status.NORMAL and self.primary(self.view) == self.node:
            # Its newest PREPAREs may have left before they were on its disk (`ready`); to lead on
            # would be to give the same op-numbers of the same view to other requests.
            self.resign("it restarted")

    # ---- input ------------------------------------------------------------------------------

    def step(self, message: Any) -> None:
        """One message. Of unknown kind, from or for somebody else: ignored."""
        handler = self._handlers.get(type(message))
        if handler is None or message.src not in self.others or message.dst != self.node:
            return
        if self.status_ is Status.RECOVERING and not isinstance(
            message, Recovery | RecoveryResponse | NewState | NewCheckpoint
        ):
            return  # it does not take part
        handler(message)

    def tick(self) -> None:
        """One unit of time has passed."""
        self.ticks += 1
        if self.status_ is Status.RECOVERING:
            self.tick_recovery()
        elif self.leading:
            self.tick_primary()
        else:
            self.tick_follower()
        self.tick_transfer()

    def _transfer_in_progress(self) -> int | None:
        return self._transfer.progress_tick if self._transfer else None

    def transfer_done(self) -> None:
        """The log that was chosen for the new view is here."""
        self.start_view()

    # ---- output -----------------------------------------------------------------------------

    def ready(self) -> Ready:
        """What is to be done now; see `services.protocols.core` for the order."""
        early = 0
        if self.leading:
            early = self._prepare_early()
            self.ask_for_reads()
        if not (
            self._messages
            or self._unpersisted
            or self._snapshot_changed
            or self._restore
            or self.commit_number != self.applied_index
            or self._reads
            or self._events
        ):
            return NOTHING  # after most ticks
        ready = Ready(
            self._take_records(),
            self._messages,
            early,
            self._restore,
            self._take_committed(),
            self._reads,
            self._events,
        )
        self._messages, self._pending_ok, self._restore = [], None, None
        self._reads, self._events = [], []
        return ready

    def _prepare_early(self) -> int:
        """`prepare`, its messages before all others; how many of them may go before the write.

        A PREPARE promises nothing about the primary's own disk; it asks the others to write to
        theirs. If the primary crashes in between, a backup has operations that it has not, which
        is what a primary looks like that was slow; and since a primary that restarts never leads
        its view again, it cannot put others in their place *in this view*. Its own copy counts
        only when the answers are read, after the write. But if its view-number is not on disk yet
        it could forget to have led: nothing is early then.
        """
        others, self._messages = self._messages, []
        self.prepare()
        only_entries = all(isinstance(record, Entry) for record in self._unpersisted)
        early = len(self._messages) if only_entries and not self._snapshot_changed else 0
        self._messages += others
        return early

    def _take_records(self) -> list[Record]:
        """In the order in which the state changed, so any prefix is a state that has been.

        With a Snapshot all is written anew."""
        records, self._unpersisted = self._unpersisted, []
        if not self._snapshot_changed:
            return records
        self._snapshot_changed = False
        snapshot = self.log.snapshot
        assert snapshot is not None, f"{self.node} has compacted without a snapshot"
        records = [snapshot, Incarnation(self.incarnation)]
        if self.founding:
            records.append(Founding(dict(self.founding)))
        records += self.log.between(snapshot.last_index, self.log.last_index)
        if self.status_ is not Status.RECOVERING:
            records.append(ViewState(self.view, self.last_normal_view, dict(self.lives)))
        return records

    def _take_committed(self) -> list[Entry]:
        if self.commit_number == self.applied_index:
            return []
        committed = self.log.between(self.applied_index, self.commit_number)
        self.applied_index = self.commit_number
        return committed

    # ---- inspection -------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """For `/status`: `role` is primary, backup, view_change, recovering.

        A primary that resigned counts as a backup. `peers` is filled on the primary.
        """
        role = "primary" if self.leading else self.status_.value
        return {
            "node": self.node,
            "role": "backup" if role == "normal" else role,
            "term": self.view,
            "last_normal_view": self.last_normal_view,
            "leader": self.leader,
            "commit_index": self.commit_number,
            "applied_index": self.applied_index,
            "last_index": self.log.last_index,
            "last_term": self.log.last_term,
            "snapshot_index": self.log.snapshot_index,
            "suspects": self.suspects,
            "uncommitted_bytes": self.uncommitted_bytes,
            "lease": self.has_lease(),
            "lives": dict(self.lives),
            "peers": {
                name: {
                    "match_index": peer.prepared,
                    "heard_ticks_ago": self.ticks - peer.heard_tick,
                }
                for name, peer in (self.others.items() if self.leading else ())
            },
        }

    def check_invariants(self) -> None:
        """For tests: walks the log. Raises AssertionError, with the numbers."""
        log, who = self.log, f"{self.node} ({self.status_.value}, view {self.view})"
        log.check_invariants()
        assert log.snapshot_index <= self.applied_index <= self.commit_number <= log.last_index, (
            f"{who}: checkpoint {log.snapshot_index}, applied {self.applied_index}, commit "
            f"{self.commit_number}, last {log.last_index}"
        )
        if self.status_ is Status.RECOVERING:
            assert not self.leading, f"{who}: leads"
            assert not self.suspects, f"{who}: suspects"
            assert not self.last_normal_view, f"{who}: v' {self.last_normal_view}"
            return
        assert log.last_term <= self.view, f"{who}: log of view {log.last_term}"
        normal = self.status_ is Status.NORMAL
        assert normal == (self.last_normal_view == self.view), f"{who}: {self.last_normal_view}"
        assert self.last_normal_view <= self.view, f"{who}: v' {self.last_normal_view}"
        if not self.leading:
            assert self.leader != self.node, f"{who}: follows itself"
            assert not self._waiting_reads, f"{who}: {self._waiting_reads} wait"
            assert not self._asked_reads, f"{who}: {self._asked_reads} wait"
            return
        assert normal, f"{who}: leads"
        assert self.primary(self.view) == self.node, f"{who}: leads"
        assert self.leader == self.node, f"{who}: follows {self.leader}"
        uncommitted = log.between(self.commit_number, log.last_index)
        waiting = sum(len(entry.command) for entry in uncommitted)
        assert self.uncommitted_bytes == waiting, f"{who}: {self.uncommitted_bytes} ≠ {waiting}"
        for name, peer in self.others.items():
            assert peer.prepared <= log.last_index, (
                f"{who}: {name} has {peer.prepared} of {log.last_index}"
            )


if TYPE_CHECKING:

    def _is_a_core(core: Viewstamped) -> Core:
        return core
