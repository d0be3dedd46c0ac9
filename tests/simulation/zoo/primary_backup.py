"""Planted bugs: mistakes that people make in log shipping. Each must be found.

Each is a subclass of `PrimaryBackup` with one rule broken, or a driver or a state machine that
breaks its promise. None of this is ever in the core. Each says which history goes wrong.
"""

from __future__ import annotations

from typing import Any

from services.protocols.core import NodeId
from services.protocols.primary_backup import (
    HardState,
    InstallSnapshot,
    PrimaryBackup,
    Replicate,
)
from tests.simulation.zoo.bug import Bug
from tests.simulation.zoo.machines import SnapshotLosesSessions


class EpochNotPersisted(PrimaryBackup):
    """n1 gave way to n2's epoch, crashes and restarts in its own old one: it answers reads from its
    state, and takes writes that must go."""

    def ready(self) -> Any:
        ready = super().ready()
        ready.persist = [r for r in ready.persist if not isinstance(r, HardState)]
        return ready


class AcknowledgesOneBackupShort(PrimaryBackup):
    """A synchronous write is acknowledged though one backup lacks it; that is the one promoted."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._backups_required = max(0, self._backups_required - 1)


class ReadsBeforeInheritedIsAcknowledged(PrimaryBackup):
    """A primary that restarts answers reads from its snapshot, which is older than what it had
    acknowledged before it crashed."""

    def _grant_reads(self) -> None:
        assert self._shipping is not None, self.epoch
        self._shipping.first_index, first = 0, self._shipping.first_index
        super()._grant_reads()
        self._shipping.first_index = first


class LateReplicateDiscards(PrimaryBackup):
    """A message that says "my last entry is 7" was overtaken by the one that brought 8: the backup
    throws 8 away, which it has acknowledged."""

    def _on_replicate(self, message: Replicate) -> None:
        log = self.history.log
        if message.last_index < log.last_index and message.prev_index >= self.history.commit_index:
            self.history.discard_after(max(message.last_index, self.history.snapshot.last_index))
        super()._on_replicate(message)


class TakesEntriesWithoutLookingBack(PrimaryBackup):
    """A backup appends what comes behind its last index and does not compare what lies before: it
    keeps entries of a deposed primary under those of the new one, and acknowledges both."""

    def _on_replicate(self, message: Replicate) -> None:
        log = self.history.log
        if log.base_index <= message.prev_index <= log.last_index:
            message.prev_digest = log.digest(message.prev_index)
        super()._on_replicate(message)


class TwoClaimOneEpoch(PrimaryBackup):
    """Epochs are not dealt out by rank: n2 and n3, which do not hear each other, both promote
    themselves to the next number, and (index, epoch) names two entries."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._holders: dict[int, NodeId] = {}
        super().__init__(*args, **settings)

    @property
    def primary(self) -> NodeId:
        return self._holders.get(self.epoch, self._members[(self.epoch - 1) % len(self._members)])

    def step(self, message: Any) -> None:
        if isinstance(message, Replicate | InstallSnapshot):
            self._holders.setdefault(message.epoch, message.src)
        super().step(message)

    def _own_epoch_after(self, epoch: int) -> int:
        self._holders[epoch + 1] = self.node
        return epoch + 1


class SnapshotForgetsTheTail(PrimaryBackup):
    """The records after a snapshot leave out the entries behind it: a primary that restarts lacks
    what it has acknowledged."""

    def compact(self, index: int, data: bytes) -> None:
        before = len(self.history.persist)
        super().compact(index, data)
        if self.history.persist[:1] == [self.history.snapshot] and before == 0:
            del self.history.persist[2:]


class NoHeartbeatInSilence(PrimaryBackup):
    """A primary whose backup fell silent once never asks where it stands: nothing reaches the
    backup any more, healed or not."""

    def _send_heartbeats(self) -> None:
        if self._shipping is None or not all(self._silent(peer) for peer in self.peers):
            super()._send_heartbeats()


BUGS = {
    bug.name: bug
    for bug in (
        Bug("epoch_not_persisted", EpochNotPersisted),
        Bug("acknowledges_one_backup_short", AcknowledgesOneBackupShort),
        Bug("reads_before_inherited_is_acknowledged", ReadsBeforeInheritedIsAcknowledged),
        Bug("late_replicate_discards", LateReplicateDiscards),
        Bug("takes_entries_without_looking_back", TakesEntriesWithoutLookingBack),
        Bug("two_claim_one_epoch", TwoClaimOneEpoch),
        Bug("snapshot_forgets_the_tail", SnapshotForgetsTheTail),
        Bug("no_heartbeat_in_silence", NoHeartbeatInSilence),
        Bug("snapshot_loses_sessions", machine=SnapshotLosesSessions),
        Bug("ack_before_persist", persist_before_send=False),
    )
}
