"""The log as a node holds it in memory: a snapshot, and the entries behind it.

One for all protocols that order one log. Its words are those of `core.Entry`: index and term stand
for op-number and view, or for the counter and the epoch of a zxid.

Entries below the snapshot's last index may be kept for a while (`kept_entries`), so that a follower
that is a little late when the leader compacts need not be sent the whole state.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from services.protocols.core import Entry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence


def term_of(entry: Entry) -> int:
    return entry.term


def batch(entries: list[Entry], max_entries: int, max_bytes: int) -> list[Entry]:
    """The first of `entries`: at most `max_entries`, and `max_bytes` of commands.

    At least one, if there is one, whatever its size: it must be sent some time.
    """
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.command)
        if count == max_entries or (size > max_bytes and count > 0):
            return entries[:count]
    return entries


class Log:
    """Entries `offset + 1 … last_index`; `offset_term` is the term of the entry at `offset`.

    Positions start at 1; index 0 (term 0) stands for "before the first entry" and always matches.
    Terms never decrease along the log, which is what lets searches by term bisect.
    """

    __slots__ = ("_entries", "last_index", "offset", "offset_term", "snapshot")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.offset = 0
        self.offset_term = 0
        self.last_index = 0
        self.snapshot: Snapshot | None = None

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.offset_term

    @property
    def snapshot_index(self) -> int:
        """The last index covered by the snapshot; 0 without one."""
        return self.snapshot.last_index if self.snapshot else 0

    def term(self, index: int) -> int | None:
        """The term of the entry at `index`; None if it is not (or no longer) in the log."""
        position = index - self.offset
        if 0 < position <= len(self._entries):
            return self._entries[position - 1].term
        return self.offset_term if position == 0 else None

    def entry(self, index: int) -> Entry:
        assert self.offset < index <= self.last_index, (index, self.offset, self.last_index)
        return self._entries[index - self.offset - 1]

    def between(self, after: int, upto: int) -> list[Entry]:
        """The entries with after < index ≤ upto."""
        offset = self.offset
        assert offset <= after <= upto <= self.last_index, (offset, after, upto, self.last_index)
        return self._entries[after - offset : upto - offset]

    def batch(self, after: int, max_entries: int, max_bytes: int) -> list[Entry]:
        """The next entries after `after`, as `batch` bounds them."""
        assert self.offset <= after <= self.last_index, (self.offset, after, self.last_index)
        start = after - self.offset
        return batch(self._entries[start : start + max_entries], max_entries, max_bytes)

    def append(self, entry: Entry) -> None:
        assert entry.index == self.last_index + 1, (entry.index, self.last_index)
        self._entries.append(entry)
        self.last_index = entry.index

    def extend(self, entries: Sequence[Entry]) -> None:
        assert entries[0].index == self.last_index + 1, (entries[0].index, self.last_index)
        self._entries.extend(entries)
        self.last_index = entries[-1].index

    def truncate(self, last_index: int) -> None:
        """Drop everything after `last_index`."""
        least = max(self.offset, self.snapshot_index)
        assert least <= last_index <= self.last_index, (least, last_index, self.last_index)
        del self._entries[last_index - self.offset :]
        self.last_index = last_index

    def first_index_of_term_at(self, index: int) -> int:
        """The first index held that has the same term as the entry at `index`."""
        term = self.entry(index).term
        return self.offset + 1 + bisect_left(self._entries, term, key=term_of)

    def last_index_of_term(self, term: int) -> int | None:
        """The last index whose entry has `term`; None when no entry held has it."""
        position = bisect_right(self._entries, term, key=term_of)
        if position > 0 and self._entries[position - 1].term == term:
            return self.offset + position
        return self.offset if position == 0 and self.offset_term == term else None

    def compact(self, snapshot: Snapshot, kept_entries: int) -> None:
        """`snapshot` stands for the entries up to its last index; keep the last few of them."""
        assert self.snapshot_index < snapshot.last_index <= self.last_index, snapshot.last_index
        assert self.term(snapshot.last_index) == snapshot.last_term, snapshot.last_term
        self.snapshot = snapshot
        offset = max(self.offset, snapshot.last_index - kept_entries)
        term = self.term(offset)
        assert term is not None, offset
        del self._entries[: offset - self.offset]
        self.offset, self.offset_term = offset, term

    def reset(self, snapshot: Snapshot) -> None:
        """Discard the entire log; `snapshot` stands for everything."""
        self.snapshot = snapshot
        self._entries.clear()
        self.offset = self.last_index = snapshot.last_index
        self.offset_term = snapshot.last_term

    def check_invariants(self) -> None:
        assert self.last_index == self.offset + len(self._entries), (self.last_index, self.offset)
        assert self.offset <= self.snapshot_index, (self.offset, self.snapshot_index)
        term = self.offset_term
        for index, entry in enumerate(self._entries, self.offset + 1):
            assert entry.index == index, (entry.index, index)
            assert entry.term >= term, (entry.index, entry.term, term)
            term = entry.term
