"""Exactly-once by idempotency key: which commands were already applied, and what was answered.

Theory of operation (Raft §8; Ongaro, *Consensus: Bridging Theory and Practice*, §6.3)
---------------------------------------------------------------------------------------
**Invariant.** While a key is in the table, the command that carries it changes the state machine
at most once, and every attempt gets the reply of the first.

A client that gets no answer cannot know whether its write was done: it must try again, and the
log may then hold the command twice. So each write carries a key that the client chose, the state
machine looks the key up *when it applies the entry*, and a known key is answered from the table.

*Why the table is part of the replicated state machine.* The retry often goes to another node:
leader n1 replicates `x += 1`, then dies before it answers; the client asks n2, the new leader. A
table in n1's memory would let n2 add one again. Built from the log alone, every node's table is
the same at the same index.

*Why it is part of the snapshot.* The entry that filled a row may have been compacted. A node
restored from a snapshot without its rows would apply a retry that its peers skip: from that index
on, the replicas differ for ever.

*Why eviction follows the log.* Memory is bounded, so old rows must go; but a node that evicts by
its own clock, or by when *it* was asked, evicts other rows than its peers, and the next retry is a
duplicate on one and new on another. Rows leave in the order in which the log brought them. A lookup
does not refresh a row: lookups outside of apply happen on one node only. `capacity` decides what is
evicted, hence it is replicated state as well, and travels in the snapshot.

*What eviction loses.* A retry that arrives after `capacity` newer keys is applied again:
exactly-once holds for a window of keys. Ongaro's table keeps a row per *client* with its last
serial number and answers "session expired" when the client is unknown: never silently wrong, but
clients have to register. Idempotency keys need no registration (any HTTP client can make one up),
which is why they are used here; the window has to be larger than what clients can write while one
of them still retries.

*Why a fingerprint.* A key that comes back with another command is a client's bug. To answer with
the old reply would tell it that the new command was done.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


class KeyReused(Exception):
    """The idempotency key came before with another command. Definite: nothing was changed."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the idempotency key {key!r} was used before for another command")
        self.key = key


class SessionTable:
    """The last `capacity` idempotency keys, in log order, with the replies to their commands.

    To be called while applying the log, `lookup` first:

        >>> table = SessionTable(capacity=2)
        >>> table.lookup("k1", "PUT x 1") is None      # new: apply it, then
        True
        >>> table.record("k1", "PUT x 1", ["x", 7])
        >>> table.lookup("k1", "PUT x 1")              # the retry: answer it, change nothing
        ['x', 7]

    Replies are plain values (what JSON and the snapshot's codec can carry) and never None.
    """

    __slots__ = ("_rows", "capacity")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity
        # An OrderedDict, for its popitem(last=False): taking the first item of a plain dict again
        # and again walks over all that was deleted before.
        self._rows: OrderedDict[str, tuple[str, Any]] = OrderedDict()

    def lookup(self, key: str, fingerprint: str) -> Any | None:
        """The reply recorded for `key`, or None when the command is new (or was evicted).

        `fingerprint` stands for the command's content (method, key, body, conditions; a digest
        will do). Raises KeyReused when `key` was recorded with another one.
        """
        row = self._rows.get(key)
        if row is None:
            return None
        if row[0] != fingerprint:
            raise KeyReused(key)
        return row[1]

    def record(self, key: str, fingerprint: str, reply: Any) -> None:
        """Keep the reply to a command just applied; at capacity the oldest row goes."""
        assert reply is not None, "None means 'not known' in lookup()"
        assert key not in self._rows, f"{key!r} was applied twice: lookup() comes before record()"
        if len(self._rows) == self.capacity:
            self._rows.popitem(last=False)
        self._rows[key] = (fingerprint, reply)
        assert len(self._rows) <= self.capacity, (len(self._rows), self.capacity)

    def to_plain(self) -> list[Any]:
        """`[capacity, [[key, fingerprint, reply], …]]`, oldest first: for the snapshot."""
        return [self.capacity, [[key, *row] for key, row in self._rows.items()]]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> SessionTable:
        """The table that `to_plain` described, with the same order and capacity."""
        capacity, rows = plain
        table = cls(capacity)
        for key, fingerprint, reply in rows:
            table.record(key, fingerprint, reply)
        return table

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"SessionTable({len(self._rows)} of {self.capacity})"
