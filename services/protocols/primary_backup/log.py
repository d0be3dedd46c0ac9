"""A replicated log whose every position carries the digest of all that came before it.

Two logs with the same digest at an index are the same up to that index. Raft needs no digest: its
elections make (index, term) name one entry. Here a primary that has lost its disk starts epoch 1
again and gives the same (index, epoch) to other commands; compared by these, its log and the
backups' would look alike and stay different for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from services.protocols.core import Entry
from services.protocols.log import batch

NO_DIGEST = 0  # of the empty log


def extend_digest(digest: int, entry: Entry) -> int:
    """The digest of a log that had `digest` before `entry` was appended (CRC-32, chained).

    The length goes in, since otherwise ["x", "y1z"] and ["x1y", "z"] would read the same.
    """
    head = b"%d %d " % (entry.term, len(entry.command))
    return crc32(entry.command, crc32(head, digest))


def chain(digest: int, entries: Iterable[Entry]) -> list[int]:
    """The digests at each position of `entries`, that before the first one included."""
    digests = [digest]
    for entry in entries:
        digest = extend_digest(digest, entry)
        digests.append(digest)
    return digests


class Log:
    """Entries `base_index` + 1 … `last_index`; what lies before is known by its digest only."""

    __slots__ = ("_digests", "_entries", "base_index", "base_term")

    def __init__(self, base_index: int = 0, base_term: int = 0, digest: int = NO_DIGEST) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._entries: list[Entry] = []
        self._digests: list[int] = [digest]  # one more than entries: the first is the base's

    @property
    def last_index(self) -> int:
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    def term(self, index: int) -> int:
        """The epoch of the entry at `index`; base_index ≤ index ≤ last_index."""
        if index == self.base_index:
            return self.base_term
        assert self.base_index < index <= self.last_index, (self.base_index, index, self.last_index)
        return self._entries[index - self.base_index - 1].term

    def digest(self, index: int) -> int:
        """Stands for the whole log up to `index`; base_index ≤ index ≤ last_index."""
        assert self.base_index <= index <= self.last_index, (
            self.base_index,
            index,
            self.last_index,
        )
        return self._digests[index - self.base_index]

    def append(self, entry: Entry) -> None:
        assert entry.index == self.last_index + 1, (entry.index, self.last_index)
        assert entry.term >= self.last_term, (entry, self.last_term)
        self._digests.append(extend_digest(self._digests[-1], entry))
        self._entries.append(entry)

    def truncate(self, last_index: int) -> None:
        """Discard the entries after `last_index`."""
        kept = last_index - self.base_index
        assert 0 <= kept <= len(self._entries), (self.base_index, last_index, self.last_index)
        del self._entries[kept:]
        del self._digests[kept + 1 :]

    def compact(self, base_index: int) -> None:
        """Forget the entries up to `base_index`, but not their digest."""
        dropped = base_index - self.base_index
        if dropped <= 0:
            return
        self.base_term = self.term(base_index)
        del self._entries[:dropped]
        del self._digests[:dropped]
        self.base_index = base_index

    def entries(self, first: int, last: int) -> list[Entry]:
        """The entries at `first` … `last`; empty when `first` > `last`."""
        assert first > self.base_index, (first, self.base_index)
        return self._entries[first - self.base_index - 1 : last - self.base_index]

    def batch(self, first: int, *, entries_max: int, bytes_max: int) -> list[Entry]:
        """The entries from `first` on, as `services.protocols.log.batch` bounds them."""
        last = min(self.last_index, first + entries_max - 1)
        return batch(self.entries(first, last), entries_max, bytes_max)

    def last_common(self, index: int, prev_index: int, digests: list[int]) -> int:
        """The last index, from the common `index` on, where `digests` (after `prev_index`, …) and
        this log agree."""
        end = min(self.last_index, prev_index + len(digests) - 1)
        while index < end and self.digest(index + 1) == digests[index + 1 - prev_index]:
            index += 1
        return index

    def before_term_of(self, index: int) -> int:
        """The last index before the run of entries with the term of the one at `index`."""
        term = self.term(index)
        while index > self.base_index and self.term(index) == term:
            index -= 1
        return index
