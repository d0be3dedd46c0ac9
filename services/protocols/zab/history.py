"""A node's history: a snapshot, and the transactions behind it in the order of their zxids.

**Invariant.** Two histories that hold the same zxid are equal up to it. A leader takes zxids of its
own epoch only and appends them to its initial history; and whoever accepts them has been made equal
to that initial history first. So where two histories part follows from the last zxid of each epoch
in them (`ends`, `common`): they share all of an epoch that both have, up to the shorter one.

Entries below the snapshot's last may be kept for a while, for followers that are a little late.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from services.protocols.core import Entry, Snapshot
from services.protocols.zab.messages import Zxid

if TYPE_CHECKING:
    from collections.abc import Sequence


def _epoch_of(entry: Entry) -> int:
    return entry.term


class History:
    """Entries with counters `base.counter + 1 … last_counter`; `base` is the zxid before them."""

    __slots__ = ("_entries", "base", "last_counter", "snapshot")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.base = Zxid(0, 0)
        self.last_counter = 0
        self.snapshot: Snapshot | None = None

    @property
    def last(self) -> Zxid:
        """lastZxid (Medeiros §3)."""
        entries = self._entries
        return Zxid(entries[-1].term, entries[-1].index) if entries else self.base

    @property
    def snapshot_counter(self) -> int:
        """The last counter covered by the snapshot; 0 without one."""
        return self.snapshot.last_index if self.snapshot else 0

    def epoch(self, counter: int) -> int | None:
        """The epoch of the transaction at `counter`; None if it is not (or no longer) here."""
        position = counter - self.base.counter
        if 0 < position <= len(self._entries):
            return self._entries[position - 1].term
        return self.base.epoch if position == 0 else None

    def zxid(self, counter: int) -> Zxid:
        epoch = self.epoch(counter)
        assert epoch is not None, (counter, self.base, self.last_counter)
        return Zxid(epoch, counter)

    def holds(self, zxid: Zxid) -> bool:
        """Is it here, or where the entries that are here begin?"""
        return self.epoch(zxid.counter) == zxid.epoch

    def between(self, after: int, upto: int) -> list[Entry]:
        """The entries with after < counter ≤ upto."""
        base = self.base.counter
        assert base <= after <= upto <= self.last_counter, (base, after, upto, self.last_counter)
        return self._entries[after - base : upto - base]

    def batch(self, after: int, max_entries: int, max_bytes: int) -> list[Entry]:
        """The next entries after `after`: at most `max_entries`, and `max_bytes` of commands.

        At least one, whatever its size: an entry above the limit must be sent some time.
        """
        start = after - self.base.counter
        assert 0 <= start < len(self._entries), (after, self.base, self.last_counter)
        entries = self._entries[start : start + max_entries]
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.command)
            if size > max_bytes and count > 0:
                return entries[:count]
        return entries

    # ---- where two histories part -----------------------------------------------------------

    def ends(self) -> list[Zxid]:
        """The last zxid of each epoch, oldest first: for ACK-E."""
        ends = [self.base] if self.base.counter else []
        position = 0
        while position < len(self._entries):
            epoch = self._entries[position].term
            position = bisect_right(self._entries, epoch, lo=position, key=_epoch_of)
            if ends and ends[-1].epoch == epoch:
                ends.pop()
            ends.append(Zxid(epoch, self._entries[position - 1].index))
        return ends

    def common(self, ends: Sequence[Zxid]) -> int:
        """The last counter up to which this history and the one with these `ends` are equal.

        It may lie below `base`, and is 0 if they have no epoch in common that is still here.
        """
        for end in reversed(ends):
            here = self._last_counter_of(end.epoch)
            if here is not None:
                return min(here, end.counter)
        return 0

    def _last_counter_of(self, epoch: int) -> int | None:
        position = bisect_right(self._entries, epoch, key=_epoch_of)
        if position > 0 and self._entries[position - 1].term == epoch:
            return self.base.counter + position
        return self.base.counter if epoch == self.base.epoch else None

    # ---- changes ----------------------------------------------------------------------------

    def extend(self, entries: Sequence[Entry]) -> None:
        assert entries[0].index == self.last_counter + 1, (entries[0].index, self.last_counter)
        self._entries.extend(entries)
        self.last_counter = entries[-1].index

    def truncate(self, counter: int) -> None:
        """Drop everything after `counter`."""
        least = max(self.base.counter, self.snapshot_counter)
        assert least <= counter <= self.last_counter, (least, counter, self.last_counter)
        del self._entries[counter - self.base.counter :]
        self.last_counter = counter

    def compact(self, snapshot: Snapshot, kept_entries: int) -> None:
        """`snapshot` stands for everything up to its last zxid; keep the last few entries of it."""
        assert self.snapshot_counter < snapshot.last_index <= self.last_counter, snapshot.last_index
        self.snapshot = snapshot
        base = self.zxid(max(self.base.counter, snapshot.last_index - kept_entries))
        del self._entries[: base.counter - self.base.counter]
        self.base = base

    def reset(self, snapshot: Snapshot) -> None:
        """`snapshot` stands for everything, and nothing follows it."""
        self.snapshot = snapshot
        self._entries.clear()
        self.base = Zxid(snapshot.last_term, snapshot.last_index)
        self.last_counter = snapshot.last_index

    def check_invariants(self) -> None:
        assert self.last_counter == self.base.counter + len(self._entries), self.last_counter
        assert self.base.counter <= self.snapshot_counter, (self.base, self.snapshot_counter)
        before = self.base
        for entry in self._entries:
            assert entry.index == before.counter + 1, (entry.index, before)
            assert entry.term >= before.epoch, (entry.index, entry.term, before)
            before = Zxid(entry.term, entry.index)
