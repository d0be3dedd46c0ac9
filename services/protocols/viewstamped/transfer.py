"""State transfer (§5.2): how a replica gets the log it lacks, whatever made it lack it.

One who asks names an entry of its own; the answer continues from there, or, when the logs differ at
it, names the sender's nearest entry that is not younger: the two go back, a view at a time, until
they meet, at the latest at a committed operation (log.py says why equal names mean equal logs).
Entries are compared from there on, and the log is cut **at the first one that differs, and not
before**: that one, and what follows it, is in no log that counts any more. To throw away first and
fetch then would forget, in a crash between the two, what this replica had acknowledged.

It serves four: a backup with a gap, a backup that enters a view, the primary that has chosen
another's log for its view, and a replica that recovers. For all but the first the end is also a
cut: what is left behind the last entry of the source is not of this view, and with v' = v it would
be taken for it by the next view change.

Where the source has only a checkpoint left (§5.1), pieces of that are asked for one by one; the
source keeps the one it began with, however many newer ones it takes meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.protocols.core import Entry, NodeId, Snapshot
from services.protocols.viewstamped.messages import GetState, NewCheckpoint, NewState
from services.protocols.viewstamped.state import ReplicaState, Status


@dataclass(slots=True)
class Transfer:
    """What is being fetched. Up to `after` the log equals that of `source`, once `matched`.

    `target`: where it ends; None until the source has said.
    """

    source: NodeId
    target: int | None
    after: int
    matched: bool = False
    asked_tick: int = 0
    progress_tick: int = 0


class StateTransfer(ReplicaState):
    """Both sides of state transfer, and compaction."""

    _transfer: Transfer | None = None
    _lent: dict[NodeId, Snapshot]  # the checkpoint that a replica is being sent
    # The checkpoint being received; its bytes are the sender's own, so two are never mixed.
    _receiving: tuple[NodeId, int, int] | None = None
    _received = bytearray()

    # ---- asking -----------------------------------------------------------------------------

    def transfer_from(
        self, source: NodeId, *, target: int | None = None, target_view: int | None = None
    ) -> None:
        """Fetch the log of `source` up to `target`, whose entry is of `target_view` (None: the
        source will say); begin where the logs can have met."""
        running = self._transfer
        if running is not None and running.source == source:
            if self.status_ is Status.NORMAL and running.target is not None:
                running.target = max(running.target, target or 0)
            return
        log = self.log
        after, view = log.last_index, log.last_term
        if target is not None and target_view is not None:
            after, view = log.meeting_point(target, target_view)
        met = (after, view) == (target, target_view)  # then all up to there is the same
        after = max(after, self.commit_number)
        self._transfer = Transfer(source, target, after, met, progress_tick=self.ticks)
        if met:
            self._continue()
        else:
            self._ask()

    def stop_transfer(self) -> None:
        self._transfer = None
        self._lent = {}
        self._forget_pieces()

    def _forget_pieces(self) -> None:
        self._receiving, self._received = None, bytearray()

    def _ask(self, checkpoint: int = 0, offset: int = 0) -> None:
        transfer = self._transfer
        assert transfer is not None, f"{self.node} asks nobody"
        if self.status_ is Status.NORMAL:
            transfer.after = self.log.last_index  # what came by itself may be compacted already
        view = self.log.term(transfer.after)
        assert view is not None, f"{self.node} lacks {transfer.after}, from {self.log.offset} on"
        transfer.asked_tick = self.ticks
        self.send(
            GetState(
                self.node, transfer.source, self.view, transfer.after, view, checkpoint, offset
            )
        )

    def tick_transfer(self) -> None:
        """The request, or its answer, may be lost."""
        transfer = self._transfer
        if transfer is None:
            return
        if self.status_ is Status.NORMAL and self.log.last_index >= (transfer.target or 0):
            self._transfer = None  # what was missing came by itself
        elif self.ticks - transfer.asked_tick >= 2 * self.heartbeat_ticks:
            if self._receiving is not None and self._receiving[0] == transfer.source:
                self._ask(self._receiving[1], len(self._received))
            else:
                self._ask()

    # ---- answering --------------------------------------------------------------------------

    def on_get_state(self, message: GetState) -> None:
        """The primary tells who is in its view; and a replica in a view change the new primary:
        until STARTVIEW its log stays what its DOVIEWCHANGE has said."""
        primary = self.primary(self.view) if self.view else None
        asked_rightly = {
            Status.NORMAL: primary == self.node,
            Status.VIEW_CHANGE: primary == message.src,
            Status.RECOVERING: False,
        }[self.status_]
        if message.view != self.view or not asked_rightly:
            return
        log, src = self.log, message.src
        lent = self._lent.get(src)
        if message.checkpoint and lent is not None and lent.last_index == message.checkpoint:
            self._send_piece(src, lent, message.offset)
            return
        matched = log.term(message.op_number) == message.op_view
        after, view = message.op_number, message.op_view
        if not matched:
            after, view = log.meeting_point(after, view)
        if message.op_number < log.offset or view > message.op_view:
            # They can only meet where this log has become a checkpoint.
            assert log.snapshot is not None, f"log starts after {log.offset} without a checkpoint"
            self._lent[src] = log.snapshot
            self.emit("send_snapshot", peer=src, last_index=log.snapshot_index)
            self._send_piece(src, log.snapshot, 0)
            return
        self._lent.pop(src, None)
        entries: list[Entry] = []
        if matched:
            limits = self.limits
            entries = log.batch(after, limits.entries_per_message, limits.bytes_per_message)
        self.send(
            NewState(
                self.node,
                src,
                self.view,
                matched,
                after,
                view,
                entries,
                log.last_index,
                self.commit_number,
            )
        )

    def _send_piece(self, dst: NodeId, snapshot: Snapshot, offset: int) -> None:
        end = offset + self.limits.snapshot_chunk_bytes
        self.send(
            NewCheckpoint(
                self.node,
                dst,
                self.view,
                snapshot.last_index,
                snapshot.last_term,
                offset,
                snapshot.data[offset:end],
                end >= len(snapshot.data),
            )
        )

    # ---- taking over ------------------------------------------------------------------------

    def _expects(self, message: NewState | NewCheckpoint) -> Transfer | None:
        transfer = self._transfer
        if transfer is None or (transfer.source, self.view) != (message.src, message.view):
            return None
        transfer.progress_tick = self.ticks
        if message.src == self.primary(self.view):
            self.hear_primary(message.src)
        else:
            self.reset_timer()
        return transfer

    def on_new_state(self, message: NewState) -> None:
        transfer = self._expects(message)
        if transfer is None:
            return
        if self.status_ is Status.NORMAL:
            # Of one log we are a prefix, so nothing can differ, and what came meanwhile is kept.
            transfer.after, transfer.matched = self.log.last_index, True
            skipped = transfer.after - message.after
            if not message.matched or not 0 <= skipped < len(message.entries):
                return
            self._merge(message.entries[skipped:], transfer)
        elif not message.matched:
            after, _ = self.log.meeting_point(message.after, message.after_view)
            after = max(after, self.commit_number)
            if not transfer.matched and after < transfer.after:
                transfer.after = after
                self._ask()
            return
        elif message.after != transfer.after:
            return  # late
        else:
            transfer.matched = True
            self._merge(message.entries, transfer)
        if transfer.target is None:
            transfer.target = message.op_number
        self.commit_number = max(self.commit_number, min(message.commit_number, transfer.after))
        self._continue(asking=bool(message.entries))

    def _merge(self, entries: list[Entry], transfer: Transfer) -> None:
        """Skip what is here already, cut at the first entry that differs, append the rest."""
        log = self.log
        for position, entry in enumerate(entries):
            if log.term(entry.index) != entry.term:
                if entry.index <= log.last_index:
                    self.truncate(entry.index - 1, transfer.source)
                self.append(entries[position:])
                break
        transfer.after += len(entries)

    def on_new_checkpoint(self, message: NewCheckpoint) -> None:
        transfer = self._expects(message)
        number = message.op_number
        if transfer is None:
            return
        if number <= self.commit_number:
            self._forget_pieces()  # what it stands for has come by itself
            return
        if self.log.term(number) == message.op_view:
            # The entry is here, so the log up to it is the source's, and committed.
            self._forget_pieces()
            self.commit_number = number
            known, transfer.matched = transfer.after, True
            transfer.after = max(known, number)
            self._continue(asking=transfer.after > known)
            return
        key = (message.src, number, message.op_view)
        if key != self._receiving:
            self._receiving, self._received = key, bytearray()
        if message.offset != len(self._received):
            return  # it came twice, or is late; the request is repeated when time has passed
        self._received += message.data
        if not message.done:
            self._ask(number, len(self._received))
            return
        self._install(Snapshot(number, message.op_view, bytes(self._received)), transfer)
        self._continue()

    def _install(self, snapshot: Snapshot, transfer: Transfer) -> None:
        assert snapshot.last_index > self.commit_number, (snapshot.last_index, self.commit_number)
        self.log.reset(snapshot)
        self._snapshot_changed = True
        self._restore = snapshot
        self.commit_number = self.applied_index = snapshot.last_index
        self._forget_pieces()
        transfer.after, transfer.matched = snapshot.last_index, True
        self.emit(
            "install_snapshot",
            leader=transfer.source,
            last_index=snapshot.last_index,
            last_term=snapshot.last_term,
            bytes=len(snapshot.data),
        )

    def _continue(self, *, asking: bool = True) -> None:
        """Finished? If not, ask on; but not `asking` for an answer that brought nothing new: where
        the network repeats messages, one question would become ever more of them."""
        transfer = self._transfer
        assert transfer is not None, f"{self.node} fetches nothing"
        if transfer.target is None or transfer.after < transfer.target:
            if asking:
                self._ask()
            return
        self._transfer = None
        if self.status_ is Status.NORMAL:
            self.acknowledge(0)
            return
        self.cut_behind(transfer.after, transfer.source)
        if transfer.source == self.primary(self.view):
            self.become_normal()
            self.emit("become_backup", term=self.view, leader=transfer.source)
            self.leader = transfer.source
            self.acknowledge(0)
        else:
            self.transfer_done()

    def cut_behind(self, op_number: int, source: NodeId) -> None:
        """What follows is not in the log of this view."""
        if self.log.last_index > op_number:
            self.truncate(op_number, source)

    # ---- checkpoints (§5.1) -----------------------------------------------------------------

    def compact(self, index: int, data: bytes) -> None:
        """The state machine after applying `index` is `data`. Older than what we have: ignored."""
        assert index <= self.applied_index, (index, self.applied_index)
        if index <= self.log.snapshot_index:
            return
        view = self.log.term(index)
        assert view is not None, f"operation {index} is applied but not in the log"
        self.log.compact(Snapshot(index, view, data), self.limits.kept_entries)
        self._snapshot_changed = True
