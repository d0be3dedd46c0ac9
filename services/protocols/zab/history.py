"""A node's history: a snapshot, and the transactions behind it in the order of their zxids.

**Invariant.** Two histories that hold the same zxid are equal up to it. A leader takes zxids of its
own epoch only and appends them to its initial history; and whoever accepts them has been made equal
to that initial history first. So where two histories part follows from the last zxid of each epoch
in them (`ends`, `common`): they share all of an epoch that both have, up to the shorter one.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from services.protocols.log import Log, term_of
from services.protocols.zab.messages import Zxid

if TYPE_CHECKING:
    from collections.abc import Sequence


class History(Log):
    """A log in which the index is a zxid's counter, and the term its epoch."""

    __slots__ = ()

    @property
    def base(self) -> Zxid:
        """The zxid before the transactions that are here."""
        return Zxid(self.offset_term, self.offset)

    @property
    def last(self) -> Zxid:
        """lastZxid (Medeiros §3)."""
        return Zxid(self.last_term, self.last_index)

    def zxid(self, counter: int) -> Zxid:
        epoch = self.term(counter)
        assert epoch is not None, (counter, self.base, self.last_index)
        return Zxid(epoch, counter)

    def holds(self, zxid: Zxid) -> bool:
        """Is it here, or where the entries that are here begin?"""
        return self.term(zxid.counter) == zxid.epoch

    def ends(self) -> list[Zxid]:
        """The last zxid of each epoch, oldest first: for ACK-E."""
        ends = [self.base] if self.offset else []
        position = 0
        while position < len(self._entries):
            epoch = self._entries[position].term
            position = bisect_right(self._entries, epoch, lo=position, key=term_of)
            if ends and ends[-1].epoch == epoch:
                ends.pop()
            ends.append(Zxid(epoch, self._entries[position - 1].index))
        return ends

    def common(self, ends: Sequence[Zxid]) -> int:
        """The last counter up to which this history and the one with these `ends` are equal.

        It may lie below `base`, and is 0 if they have no epoch in common that is still here.
        """
        for end in reversed(ends):
            here = self.last_index_of_term(end.epoch)
            if here is not None:
                return min(here, end.counter)
        return 0
