"""What stands under a key in the cache, and when one such thing may replace another.

Four kinds:

- `value`: what the store had, with the store's version.
- `absent`: the store had no such key (negative caching): a flood of reads for keys that are not
  there costs the database as much as any other.
- `lease`: nobody has the value, one caller is fetching it (Nishtala et al., *Scaling Memcache at
  Facebook*, NSDI 2013, §3.2.1). Its token must still stand here when the value comes back.
- `tombstone`: the key was just written. `version` is what the write made of it, or UNKNOWN when
  nobody knows whether and when the write takes effect; it is no answer to a reader, and keeps
  older values out while it lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

UNKNOWN = 2**63 - 1  # a write that may yet happen: newer than everything


class Kind(IntEnum):
    """What an entry is. The numbers are those on the wire."""

    VALUE = 1
    ABSENT = 2
    LEASE = 3
    TOMBSTONE = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """`value` is JSON, as the store gave it. Times are wall-clock ms of the node that wrote it.

    `delta_ms`: how long the store took to answer (XFetch's delta). `token`: of a lease, or random
    in a value, so that no two writes of an entry are the same bytes and a compare-and-swap cannot
    mistake one for the other.
    """

    kind: Kind
    version: int = 0
    value: bytes = b"null"
    stored_ms: int = 0
    expires_ms: int = 0
    delta_ms: int = 0
    token: int = 0

    @property
    def answers(self) -> bool:
        """Is it something to tell a reader?"""
        return self.kind in (Kind.VALUE, Kind.ABSENT)

    def good(self, now_ms: float) -> bool:
        """Not yet expired. The engine's own expiry may come later (Memcached counts seconds)."""
        return now_ms < self.expires_ms


def may_replace(old: Entry | None, new: Entry) -> bool:
    """May `new` take the place of `old` where versions guard? Only what is not older may.

    The stale-set race (Nishtala §3.2.1): a reader fetches version 1 and is slow; version 2 is
    written; the reader now sets version 1, and it stays until it expires. A lease has no version:
    whoever has a value may put it over one, and the lease's holder then finds its token gone.
    """
    if old is None or old.kind is Kind.LEASE:
        return True
    # Of the same version a value may replace a tombstone, and a refreshed value the one before.
    return new.version >= old.version
