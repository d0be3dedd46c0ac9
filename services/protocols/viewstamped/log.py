"""The log of a replica: its index is the op-number, its term the view, its snapshot the checkpoint.

An entry keeps the view in which it was proposed (`Entry.term`) when later views take it over. In
one view one replica gives out the op-numbers, each once, and appends to a log that everybody in
that view holds a prefix of; so two logs that hold an entry of the same number and view are equal
up to there. State transfer finds with it where two logs part.
"""

from __future__ import annotations

from bisect import bisect_right

from services.protocols import log


class Log(log.Log):
    """`log.Log`, and where two of them can meet."""

    __slots__ = ()

    def meeting_point(self, op_number: int, view: int) -> tuple[int, int]:
        """The last entry (number, view) that can be in a log that has `view` at `op_number`: one
        not above that number, and not younger than that view."""
        position = min(op_number, self.last_index) - self.offset
        if position <= 0:
            return self.offset, self.offset_term
        position = bisect_right(self._entries, view, 0, position, key=log.term_of)
        return self.offset + position, self.term(self.offset + position) or 0
