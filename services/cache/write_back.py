"""Write-back: what has been acknowledged and is not in the store yet.

Writes of the same key replace each other while they wait (*coalescing*): that is what write-back
gains. What it risks is everything in here: a crash of the process loses it, acknowledged or not.
So the queue is bounded, in keys; when it is full, a write waits for the store as under
write-through, which is back-pressure and not loss.

Decides only; the flusher is in `writes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, eq=False)
class Dirty:
    """One acknowledged write: `value` as JSON, and when it was acknowledged (monotonic seconds).

    `token`: the idempotency key of its way to the store, however often it has to be sent.
    """

    key: str
    value: bytes
    since_s: float
    token: str


class DirtyKeys:
    """At most `keys_max` keys, the longest waiting first.

    One that is being flushed (`take`) stays visible to readers until `settled`: else a read in
    between would find the store's old value.
    """

    def __init__(self, keys_max: int) -> None:
        assert keys_max >= 1, keys_max
        self.keys_max = keys_max
        self.coalesced = 0
        self._waiting: dict[str, Dirty] = {}
        self._flushing: dict[str, Dirty] = {}

    def put(self, dirty: Dirty) -> bool:
        """Keep a write; False when the queue is full and the caller must write through."""
        before = self._waiting.get(dirty.key)
        if before is not None:
            # It keeps its place: a key written all the time must not wait for ever.
            self._waiting[dirty.key] = replace(dirty, since_s=before.since_s)
            self.coalesced += 1
            return True
        # A key that is being flushed has its place, and must not be written through meanwhile: the
        # flush might arrive in the store after it, and the older value would be the last.
        if len(self) >= self.keys_max and dirty.key not in self._flushing:
            return False
        self._waiting[dirty.key] = dirty
        return True

    def get(self, key: str) -> Dirty | None:
        """The newest write of `key` that the store may not have."""
        return self._waiting.get(key) or self._flushing.get(key)

    def take(self, count: int) -> list[Dirty]:
        """Up to `count` writes to be flushed now; none of a key that is being flushed already."""
        ready = [dirty for key, dirty in self._waiting.items() if key not in self._flushing]
        for dirty in ready[:count]:
            self._flushing[dirty.key] = self._waiting.pop(dirty.key)
        return ready[:count]

    def settled(self, dirty: Dirty, *, flushed: bool) -> None:
        """A taken write is in the store; or it is not, and waits again unless a newer one does."""
        taken = self._flushing.pop(dirty.key)
        assert taken is dirty, (taken, dirty)
        if not flushed and dirty.key not in self._waiting:
            self._waiting = {dirty.key: dirty, **self._waiting}  # in its old place: the front

    def newest(self, dirty: Dirty) -> bool:
        """Has nothing newer been acknowledged of this key?"""
        return dirty.key not in self._waiting

    def oldest_s(self) -> float | None:
        """Since when the longest waiting write has been acknowledged."""
        waiting = (*self._flushing.values(), *self._waiting.values())
        return min((dirty.since_s for dirty in waiting), default=None)

    def __len__(self) -> int:
        return len(self._waiting.keys() | self._flushing.keys())
