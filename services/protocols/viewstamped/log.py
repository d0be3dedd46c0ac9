"""The log as a replica holds it in memory: a checkpoint, and the entries behind it.

An entry keeps the view in which it was proposed (`Entry.term`) when later views take it over. In
one view one replica gives out the op-numbers, each once, and appends to a log that everybody in
that view holds a prefix of; so two logs that hold an entry of the same number and view are equal
up to there. State transfer finds with it where two logs part.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from services.protocols.core import Entry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence


def _view_of(entry: Entry) -> int:
    return entry.term


class Log:
    """Entries `offset + 1 … last`; `offset_view` is the view of the entry at `offset`.

    Positions start at 1; 0 (view 0) stands for "before the first entry" and always matches.
    Views never decrease along the log.
    """

    __slots__ = ("_entries", "last", "offset", "offset_view", "snapshot")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.offset = 0
        self.offset_view = 0
        self.last = 0
        self.snapshot: Snapshot | None = None

    @property
    def last_view(self) -> int:
        return self._entries[-1].term if self._entries else self.offset_view

    @property
    def checkpoint(self) -> int:
        """The last op-number that the checkpoint covers; 0 without one."""
        return self.snapshot.last_index if self.snapshot else 0

    def view(self, op_number: int) -> int | None:
        """The view of the entry there; None if it is not (or no longer) in the log."""
        position = op_number - self.offset
        if 0 < position <= len(self._entries):
            return self._entries[position - 1].term
        return self.offset_view if position == 0 else None

    def entry(self, op_number: int) -> Entry:
        assert self.offset < op_number <= self.last, (op_number, self.offset, self.last)
        return self._entries[op_number - self.offset - 1]

    def between(self, after: int, upto: int) -> list[Entry]:
        """The entries with after < op-number ≤ upto."""
        assert self.offset <= after <= upto <= self.last, (self.offset, after, upto, self.last)
        return self._entries[after - self.offset : upto - self.offset]

    def batch(self, after: int, max_entries: int, max_bytes: int) -> list[Entry]:
        """The next entries after `after`: at most `max_entries`, and `max_bytes` of commands.

        At least one, if there is one, whatever its size: it must be sent some time.
        """
        assert self.offset <= after <= self.last, (self.offset, after, self.last)
        start = after - self.offset
        entries = self._entries[start : start + max_entries]
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.command)
            if size > max_bytes and count > 0:
                return entries[:count]
        return entries

    def meeting_point(self, op_number: int, view: int) -> tuple[int, int]:
        """The last entry (number, view) that can be in a log that has `view` at `op_number`: one
        not above that number, and not younger than that view."""
        position = min(op_number, self.last) - self.offset
        if position <= 0:
            return self.offset, self.offset_view
        position = bisect_right(self._entries, view, 0, position, key=_view_of)
        return self.offset + position, self.view(self.offset + position) or 0

    def extend(self, entries: Sequence[Entry]) -> None:
        assert entries[0].index == self.last + 1, (entries[0].index, self.last)
        self._entries.extend(entries)
        self.last = entries[-1].index

    def truncate(self, op_number: int) -> None:
        """Drop everything after `op_number`."""
        assert max(self.offset, self.checkpoint) <= op_number <= self.last, op_number
        del self._entries[op_number - self.offset :]
        self.last = op_number

    def compact(self, snapshot: Snapshot, kept_entries: int) -> None:
        """`snapshot` stands for the entries up to its last one; keep the last few of them."""
        assert self.checkpoint < snapshot.last_index <= self.last, snapshot.last_index
        assert self.view(snapshot.last_index) == snapshot.last_term, snapshot.last_term
        self.snapshot = snapshot
        offset = max(self.offset, snapshot.last_index - kept_entries)
        view = self.view(offset)
        assert view is not None, offset
        del self._entries[: offset - self.offset]
        self.offset, self.offset_view = offset, view

    def reset(self, snapshot: Snapshot) -> None:
        """`snapshot` stands for everything."""
        self.snapshot = snapshot
        self._entries.clear()
        self.offset = self.last = snapshot.last_index
        self.offset_view = snapshot.last_term

    def check_invariants(self) -> None:
        assert self.last == self.offset + len(self._entries), (self.last, self.offset)
        assert self.offset <= self.checkpoint or self.offset == 0, self.offset
        view = self.offset_view
        for number, entry in enumerate(self._entries, self.offset + 1):
            assert entry.index == number, (entry.index, number)
            assert entry.term >= view, (entry.index, entry.term, view)
            view = entry.term
