"""What one node holds: log, snapshot, how far it is acknowledged, and what of it to persist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.protocols.core import Entry, Event, Snapshot
from services.protocols.primary_backup.log import NO_DIGEST, Log
from services.protocols.primary_backup.messages import HardState, Truncate

EMPTY = Snapshot(0, 0, b"")  # the state machine before the first entry


class History:
    """The durable part of a node and the state machine's place in it.

    Every change goes to `persist` by itself. `restore`, when set, is the snapshot from which the
    state machine has to be rebuilt before more entries are delivered.
    """

    def __init__(self, records: Sequence[Any], events: list[Event]) -> None:
        self.epoch = 1
        self.log = Log()
        self.snapshot = EMPTY
        self.commit_index = 0
        self.delivered_index = 0  # handed out in `committed`, or part of the snapshot restored
        self.restore: Snapshot | None = None
        self.persist: list[Any] = []
        self._events = events
        self._replay(records)

    def set_epoch(self, epoch: int) -> None:
        assert epoch > self.epoch, (epoch, self.epoch)
        self.epoch = epoch
        self._persist_hard_state()

    def append(self, entry: Entry) -> None:
        self.log.append(entry)
        self.persist.append(entry)

    def advance_commit_index(self, index: int) -> None:
        """Entries up to `index` are acknowledged; never goes back by itself."""
        assert index <= self.log.last_index, (index, self.log.last_index)
        self.commit_index = max(self.commit_index, index)

    def deliver(self) -> list[Entry]:
        """The acknowledged entries that the state machine has not had yet."""
        if self.delivered_index == self.commit_index:
            return []
        committed = self.log.entries(self.delivered_index + 1, self.commit_index)
        self.delivered_index = self.commit_index
        return committed

    def discard_unknown_to_primary(self, last_index: int) -> None:
        """Entries beyond the primary's last one go, if they are of an older epoch.

        The primary had all that it will ever have of older epochs when it took its own. Entries of
        its own epoch are no such thing: the message that says `last_index` may have been overtaken
        by the one that brought them, and discarding them would break the promise given with the
        acknowledgement.
        """
        if last_index >= self.log.last_index:
            return
        if self.log.term(max(last_index + 1, self.log.base_index)) < self.epoch:
            self.discard_after(last_index)

    def discard_after(self, index: int) -> None:
        """Keep the log up to `index`; nothing when that lies before the snapshot."""
        if index < self.snapshot.last_index:
            self.discard_all()
            return
        self._tell_discarded(index, exact=True)
        self.log.truncate(index)
        self.persist.append(Truncate(index))
        self.commit_index = min(self.commit_index, index)
        if self.delivered_index > index:  # applied already: rebuild the state machine
            self.restore = self.snapshot
            self.delivered_index = self.snapshot.last_index

    def discard_all(self) -> None:
        """The histories part at or before the snapshot: this node begins from nothing."""
        # Of what the snapshot covers, at least its last entry is not in the primary's log.
        self._tell_discarded(self.snapshot.last_index - 1, exact=False)
        self._replace(EMPTY, NO_DIGEST)

    def install(self, snapshot: Snapshot, digest: int) -> None:
        """The primary's snapshot in place of this log, which is shorter or another one.

        A shorter one may be the beginning of the primary's or not: both have forgotten what would
        tell, and nothing is told as discarded.
        """
        assert self.log.base_index <= snapshot.last_index, (self.log.base_index, snapshot)
        if snapshot.last_index <= self.log.last_index:
            common = min(self.snapshot.last_index, snapshot.last_index - 1)
            self._tell_discarded(common, exact=False)
        self._replace(snapshot, digest)
        self._events.append(Event("install_snapshot", {"last_index": snapshot.last_index}))

    def compact(self, index: int, data: bytes, *, catch_up_entries: int) -> None:
        """Ignored when a newer snapshot is here, or when the entries that `data` was made of have
        been discarded since."""
        if not self.snapshot.last_index < index <= self.delivered_index or self.restore:
            return
        self.snapshot = Snapshot(index, self.log.term(index), data)
        self._persist_snapshot()
        self.log.compact(index - catch_up_entries)

    def check_invariants(self) -> None:
        log, snapshot = self.log, self.snapshot
        numbers = [
            log.base_index,
            snapshot.last_index,
            self.delivered_index,
            self.commit_index,
            log.last_index,
        ]
        assert numbers == sorted(numbers), numbers
        assert log.term(snapshot.last_index) == snapshot.last_term, snapshot
        assert log.last_term <= self.epoch, (log.last_term, self.epoch)

    def _replace(self, snapshot: Snapshot, digest: int) -> None:
        self.log = Log(snapshot.last_index, snapshot.last_term, digest)
        self.snapshot = snapshot
        self.commit_index = self.delivered_index = snapshot.last_index
        self.restore = snapshot
        self._persist_snapshot()

    def _tell_discarded(self, index: int, *, exact: bool) -> None:
        """`acknowledged`: as far as this node knows; it has to be told again after a restart."""
        fields = {
            "after_index": index,
            "entries": self.log.last_index - index,
            "acknowledged": max(0, self.commit_index - index),
            "exact": exact,  # False: at least so many
        }
        self._events.append(Event("discard_suffix", fields))

    def _persist_hard_state(self) -> None:
        digest = self.log.digest(self.snapshot.last_index)
        self.persist.append(HardState(self.epoch, digest))

    def _persist_snapshot(self) -> None:
        """A Snapshot record resets storage: all that must survive follows it in the same list."""
        self.persist = [self.snapshot]
        self._persist_hard_state()
        self.persist += self.log.entries(self.snapshot.last_index + 1, self.log.last_index)

    def _replay(self, records: Sequence[Any]) -> None:
        for record in records:
            match record:
                case Snapshot():
                    self.snapshot = self.restore = record
                case HardState():
                    self.epoch = record.epoch
                    if self.log.last_index < self.snapshot.last_index:
                        digest = record.snapshot_digest
                        self.log = Log(self.snapshot.last_index, self.snapshot.last_term, digest)
                case Entry():
                    self.log.append(record)
                case Truncate():
                    self.log.truncate(record.last_index)
                case _:
                    raise TypeError(f"not a record of primary_backup: {record!r}")
        self.commit_index = self.delivered_index = self.snapshot.last_index
