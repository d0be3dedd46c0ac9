"""How the primary ships its log to its backups, and what their answers make acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from services.protocols.core import Entry, NodeId
from services.protocols.primary_backup.history import History
from services.protocols.primary_backup.messages import (
    Acknowledge,
    Heartbeat,
    InstallSnapshot,
    Replicate,
)

ENTRIES_PER_MESSAGE_MAX = 512
BYTES_PER_MESSAGE_MAX = 1 << 20
ENTRIES_IN_FLIGHT_MAX = 4096  # per backup: sent and not yet acknowledged


@dataclass(slots=True)
class Progress:
    """One backup, as the primary sees it.

    `match_index`: the backup has said that it has everything up to here. `next_index`: what to send
    next. While `probing`, one message is on its way at a time: the place where the backup's log
    joins the primary's is not known, and what is sent beyond would be refused as well.
    `snapshot_ticks`: how long to wait yet before a snapshot is sent again.
    """

    match_index: int
    next_index: int
    probing: bool = True
    snapshot_ticks: int = 0

    def acknowledge(self, index: int) -> None:
        """The backup has everything up to `index`. An old acknowledgement changes nothing."""
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, index + 1)
        self.probing = False
        self.snapshot_ticks = 0

    def reject(self, prev_index: int, hint: int) -> bool:
        """The backup could not join at `prev_index` and asks for what follows `hint`.

        False when the refusal is outdated: of a row of messages in flight, the first refusal sets
        the probe going, and the others must not each start one of their own.
        """
        if self.probing and prev_index != self.next_index - 1:
            return False
        self.next_index = hint + 1
        self.probing = True
        self.snapshot_ticks = 0
        return True


def acknowledged_index(match_indexes: Collection[int], backups: int, last_index: int) -> int:
    """The highest index that the primary (at `last_index`) and `backups` backups have."""
    if backups == 0:
        return last_index
    return min(last_index, sorted(match_indexes, reverse=True)[backups - 1])


class Shipping:
    """One primary's work in one epoch: made when it becomes primary, dropped when it steps down.

    `silent(peer)`: nothing was heard of it for too long. Such a peer gets heartbeats, no entries:
    messages must not pile up for someone who is gone. `resend_ticks`: after how long an unanswered
    snapshot is sent again.
    """

    def __init__(
        self,
        node: NodeId,
        peers: Sequence[NodeId],
        *,
        epoch: int,
        history: History,
        silent: Callable[[NodeId], bool],
        send: Callable[[Any], None],
        resend_ticks: int,
    ) -> None:
        self.node = node
        self.epoch = epoch
        self.history = history
        self.first_index = history.log.last_index + 1  # what is before it, it has inherited
        self.progress = {peer: Progress(0, self.first_index) for peer in peers}
        self._silent = silent
        self._send = send
        self._resend_ticks = resend_ticks

    def acknowledged_index(self, backups: int) -> int:
        """The highest index that the primary and `backups` backups have."""
        matches = [progress.match_index for progress in self.progress.values()]
        return acknowledged_index(matches, backups, self.history.log.last_index)

    def heartbeat(self, ticks: int) -> None:
        """`ticks` after the last one: a message to every backup, with entries if there are any."""
        for peer, progress in self.progress.items():
            progress.snapshot_ticks -= ticks
            progress.probing = progress.probing or self._silent(peer)
            self._send_log(peer, progress)

    def ship(self) -> None:
        """What was appended since goes to the backups whose place is known."""
        for peer, progress in self.progress.items():
            while not progress.probing and self._may_send_entries(peer, progress):
                self._send_log(peer, progress)

    def on_acknowledge(self, message: Acknowledge) -> None:
        progress, last_index = self.progress[message.src], self.history.log.last_index
        if message.matched:
            progress.acknowledge(min(message.index, last_index))
        elif progress.reject(message.prev_index, min(message.index, last_index)):
            self._send_log(message.src, progress)

    def check_invariants(self, backups_required: int) -> None:
        last_index, commit_index = self.history.log.last_index, self.history.commit_index
        for peer, progress in self.progress.items():
            assert progress.match_index <= last_index, (peer, progress, last_index)
            assert progress.next_index <= last_index + 1, (peer, progress, last_index)
        if commit_index >= self.first_index:  # acknowledged by this primary
            having = sum(p.match_index >= commit_index for p in self.progress.values())
            assert having >= backups_required, (commit_index, self.progress)

    def _may_send_entries(self, peer: NodeId, progress: Progress) -> bool:
        return (
            progress.next_index <= self.history.log.last_index
            and progress.next_index - progress.match_index <= ENTRIES_IN_FLIGHT_MAX
            and not self._silent(peer)
        )

    def _send_log(self, peer: NodeId, progress: Progress) -> None:
        log = self.history.log
        prev_index = progress.next_index - 1
        if prev_index < log.base_index:
            self._send_snapshot(peer, progress)
            return
        entries: list[Entry] = []
        if self._may_send_entries(peer, progress):
            entries = log.batch(
                progress.next_index,
                entries_max=ENTRIES_PER_MESSAGE_MAX,
                bytes_max=BYTES_PER_MESSAGE_MAX,
            )
        if not progress.probing:
            progress.next_index += len(entries)
        self._send(
            Replicate(
                src=self.node,
                dst=peer,
                epoch=self.epoch,
                prev_index=prev_index,
                prev_digest=log.digest(prev_index),
                entries=entries,
                last_index=log.last_index,
                commit_index=self.history.commit_index,
            )
        )

    def _send_snapshot(self, peer: NodeId, progress: Progress) -> None:
        progress.probing = True
        if progress.snapshot_ticks > 0 or self._silent(peer):  # it is large: not more than needed
            self._send(Heartbeat(self.node, peer, self.epoch))
            return
        progress.snapshot_ticks = self._resend_ticks
        snapshot = self.history.snapshot
        digest = self.history.log.digest(snapshot.last_index)
        prev_index = progress.next_index - 1
        self._send(InstallSnapshot(self.node, peer, self.epoch, snapshot, digest, prev_index))
