"""The cache servers as one: where a key lives, what stands there, what may be put there.

Three guards against the stale-set race (a slow reader puts a value there that has been overwritten
since it read it):

- `none`: whoever comes last wins. The control.
- `lease` (Nishtala et al. 2013, §3.2.1): who finds nothing puts a lease there, and may put a value
  in the place of *that* lease alone. A write removes whatever stands there, leases included.
- `version`: a write leaves a tombstone with its version, and nothing older may take its place. A
  tombstone ends after `hold_off_ms`, so a value that took longer than that to arrive is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from services.cache.codec import Codec
from services.cache.counters import Counters
from services.cache.engines import EngineError, EngineRefused
from services.cache.entry import UNKNOWN, Entry, Kind, may_replace
from services.cache.shards import Shard
from services.protocols.placement import Modulo, Ring

GUARDS = ("none", "lease", "version")
SWAPS_MAX = 8


@dataclass(frozen=True, slots=True)
class Seen:
    """What stood under a key: `raw` as it is, `entry` if it is one and has not expired.

    `shard` None: no server could be asked, or none whose word is good.
    """

    shard: Shard | None
    raw: bytes | None = None
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things last, in ms, and under which guard; `replicas`: servers that keep a key."""

    guard: str
    replicas: int
    lease_ms: int
    hold_off_ms: int
    engine_timeout_ms: int


class Tier:
    """All shards behind one placement. `now_ms`: wall-clock time of this node."""

    def __init__(
        self,
        shards: dict[str, Shard],
        placement: Ring | Modulo,
        codec: Codec,
        terms: Terms,
        counters: Counters,
        now_ms: Callable[[], int],
        random: Random,
    ) -> None:
        self.shards = shards
        self.placement = placement
        self.codec = codec
        self.terms = terms
        self._counters = counters
        self._now_ms = now_ms
        self._random = random

    def shards_of(self, key: str) -> list[Shard]:
        """Where `key` is kept, its first home first."""
        return [self.shards[name] for name in self.placement.nodes_for(key, self.terms.replicas)]

    # ------------------------------------------------------------------ reading

    async def get(self, key: str) -> Seen:
        """What stands under `key`, at the first of its homes that answers."""
        for shard in self.shards_of(key):
            if not shard.readable(key):
                continue
            try:
                raw = await shard.ask(lambda engine: engine.get(key))
            except EngineError:
                continue
            return Seen(shard, raw, self._decode(raw))
        return Seen(None)

    def _decode(self, raw: bytes | None) -> Entry | None:
        if raw is None:
            return None
        try:
            entry = self.codec.decode(raw)
        except ValueError:
            self._counters.undecodable += 1
            return None
        return entry if entry.good(self._now_ms()) else None

    # ------------------------------------------------------------------ filling

    async def lease(self, key: str, seen: Seen) -> bytes | None:
        """Put a lease where `seen` found nothing; its bytes, or None: somebody else was faster.

        Raises EngineLost or EngineRefused.
        """
        assert seen.shard is not None
        lease = self._marked(Kind.LEASE, 0, self.terms.lease_ms)
        data = self.codec.encode(lease)
        if await self._put_over(seen.shard, key, seen.raw, data, self.terms.lease_ms):
            return data
        return None

    async def give_back(self, key: str, seen: Seen, lease: bytes) -> None:
        """End a lease in whose place nothing is to be put: who waits for it need wait no longer."""
        assert seen.shard is not None, "a lease was put there"
        ended = self.codec.encode(self._marked(Kind.LEASE, 0, 0))
        with contextlib.suppress(EngineError):  # then it ends by itself
            await self._put_over(seen.shard, key, lease, ended, 1)

    async def fill(
        self, key: str, entry: Entry, seen: Seen, lease: bytes | None, began_ms: int
    ) -> bool:
        """Put what the store said under `key`, if the guard lets it. False: not stored.

        `began_ms`: before the store was asked; `lease`: what this reader put there.
        """
        if seen.shard is None:
            return False
        guard = self.terms.guard
        try:
            if guard == "none":
                stored = await self._set(seen.shard, key, entry)
            elif guard == "lease":
                stands = lease if lease is not None else seen.raw
                stored = stands is not None and await self._put_over(
                    seen.shard, key, stands, self.codec.encode(entry), self._ttl_ms(entry)
                )
            elif self._now_ms() - began_ms + self.terms.engine_timeout_ms < self.terms.hold_off_ms:
                stored = await self._put_newer(seen.shard, key, entry)
                for other in self.shards_of(key):
                    if stored and other is not seen.shard and other.readable(key):
                        await self._put_newer(other, key, entry)
            else:
                stored = False
        except EngineError:
            self._counters.fills["failed"] += 1
            return False
        self._counters.fills["stored" if stored else "refused"] += 1
        return stored

    # ------------------------------------------------------------------ after a write

    async def replace(self, key: str, entry: Entry) -> bool:
        """Write-through: `entry` is what the store has now. False: an invalidation is owed."""
        put = self._set if self.terms.guard == "none" else self._put_newer

        async def change(shard: Shard) -> None:
            try:
                await put(shard, key, entry)
            except EngineRefused:  # no memory left: then at least not the old value
                await self.leave(shard, key, entry.version)

        return await self._everywhere(key, entry.version, change)

    async def invalidate(self, key: str, version: int) -> bool:
        """`key` was written, and is at `version` (or UNKNOWN). False: an invalidation is owed."""
        return await self._everywhere(key, version, lambda shard: self.leave(shard, key, version))

    async def _everywhere(
        self, key: str, version: int, change: Callable[[Shard], Awaitable[None]]
    ) -> bool:
        done = True
        for shard in self.shards_of(key):
            try:
                await change(shard)
            except EngineError:
                shard.owe(key, version)
                done = False
        self._counters.invalidations["done" if done else "owed"] += 1
        return done

    async def leave(self, shard: Shard, key: str, version: int) -> None:
        """Invalidate `key` at `shard`, as the guard wants it. Raises EngineLost."""
        guard = self.terms.guard
        # Under leases a delete is enough: it takes the leases along. But not for a write that may
        # happen yet: a lease given after the delete would bring the value before it.
        if guard == "none" or (guard == "lease" and version != UNKNOWN):
            await shard.ask(lambda engine: engine.delete(key))
            return
        try:
            await self._put_newer(shard, key, self._tombstone(version))
        except EngineRefused:
            try:
                # Contended: whose write is the newest, nobody knows. Nothing may take its place.
                await self._set(shard, key, self._tombstone(UNKNOWN))
            except EngineRefused:  # no memory left, not even for a tombstone
                await shard.ask(lambda engine: engine.delete(key))

    def _tombstone(self, version: int) -> Entry:
        return self._marked(Kind.TOMBSTONE, version, self.terms.hold_off_ms)

    # ------------------------------------------------------------------ the engine's commands

    async def _set(self, shard: Shard, key: str, entry: Entry) -> bool:
        data = self.codec.encode(entry)
        await shard.ask(lambda engine: engine.set(key, data, self._ttl_ms(entry)))
        return True

    async def _put_over(
        self, shard: Shard, key: str, stands: bytes | None, data: bytes, ttl_ms: int
    ) -> bool:
        """Put `data` where exactly `stands` stands (None: nothing)."""
        if stands is None:
            return await shard.ask(lambda engine: engine.add(key, data, ttl_ms))
        return await shard.ask(lambda engine: engine.swap(key, stands, data, ttl_ms))

    async def _put_newer(self, shard: Shard, key: str, entry: Entry) -> bool:
        """Put `entry` over whatever is not newer; False: something newer stands there."""
        data, ttl_ms = self.codec.encode(entry), self._ttl_ms(entry)
        for _ in range(SWAPS_MAX):
            raw = await shard.ask(lambda engine: engine.get(key))
            if not may_replace(self._decode(raw), entry):
                return False
            if await self._put_over(shard, key, raw, data, ttl_ms):
                return True
        raise EngineRefused(f"so many write {key!r} that this one never got a word in")

    def _marked(self, kind: Kind, version: int, lasts_ms: int) -> Entry:
        now = self._now_ms()
        return Entry(
            kind, version, stored_ms=now, expires_ms=now + lasts_ms, token=self.new_token()
        )

    def new_token(self) -> int:
        """Makes an entry's bytes its own."""
        return self._random.getrandbits(63)

    def _ttl_ms(self, entry: Entry) -> int:
        return max(1, entry.expires_ms - self._now_ms())
