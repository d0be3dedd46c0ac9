"""Reading through the cache: hits, misses, single flight, leases, early recomputation.

A read's way: what this node has acknowledged and not written back yet; what stands in the cache; a
flight to the store, its own or somebody's. Whatever the cache cannot give, for any reason, the
store can: a cache that is down costs time, never an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from services.cache.counters import Counters
from services.cache.engines import EngineError
from services.cache.entry import Entry, Kind
from services.cache.expiry import jittered_ms, recompute_early
from services.cache.flights import Flight, SingleFlight
from services.cache.store import Store
from services.cache.tier import Seen, Tier
from services.cache.write_back import DirtyKeys
from services.chassis.app import Context
from services.chassis.errors import DeadlineExceeded, ServiceError

LEASE_POLL_S = 0.010


class Found(NamedTuple):
    """What a reader is told: the entry, and how it came, as RFC 9211 (`Cache-Status`) says it."""

    entry: Entry
    how: str


class Landed(NamedTuple):
    """What a flight brought. `confirmed`: the place in the order of arrivals at which a fill was
    sent that the cache took; None: it took none."""

    entry: Entry
    confirmed: int | None


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long entries last. `jitter`: share (0 … 1); `beta`: XFetch's; `negative_ttl_ms` 0: the
    store's word that there is no such key is not kept; `audit`: share of hits compared with the
    store."""

    ttl_ms: int
    jitter: float
    beta: float
    negative_ttl_ms: int
    fetch_ms: int
    lease_wait_ms: int
    audit: float


class Reader:
    """See the module. `now_ms`: wall-clock time of this node."""

    def __init__(
        self,
        tier: Tier,
        store: Store,
        flights: SingleFlight,
        dirty: DirtyKeys,
        freshness: Freshness,
        counters: Counters,
        now_ms: Callable[[], int],
        random: Random,
    ) -> None:
        self._tier = tier
        self._store = store
        self.flights = flights
        self.waiting = 0  # reads that found nothing in the cache and wait for the store
        self._dirty = dirty
        self._freshness = freshness
        self._counters = counters
        self._now_ms = now_ms
        self._random = random
        self._landings: dict[Flight, asyncio.Task[Landed]] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def read(self, key: str, deadline: float, context: Context | None = None) -> Found:
        """The value of `key`, or the word that there is none.

        `deadline`: on the event loop's clock. Raises DeadlineExceeded, and what the store raises.
        """
        arrival = self.flights.arrive()
        waited = again = False
        while True:
            dirty = self._dirty.get(key)
            if dirty is not None:
                self._counters.hit("dirty_hit")
                return Found(Entry(Kind.VALUE, 0, dirty.value), 'hit; detail="not written back"')
            look = self.flights.look(key)
            try:
                seen = await self._tier.get(key)
            finally:
                outdated = self.flights.looked(key, look)
            if seen.entry is not None and seen.entry.answers:
                return self._hit(key, seen, waited, context)
            if outdated and not again and seen.shard is not None:
                again = True  # once: what no cache keeps would land and land while we look
                continue
            flight, leads = self.flights.join(key)
            if leads:
                self._depart(flight, seen, context)
            self.waiting += 1
            try:
                landed = await _until(deadline, self._landings[flight])
            finally:
                self.waiting -= 1
            if leads or self.flights.good_for(flight, arrival, confirmed=landed.confirmed):
                return self._missed(seen, landed, collapsed=not leads)
            waited = True

    def _hit(self, key: str, seen: Seen, waited: bool, context: Context | None) -> Found:
        entry = seen.entry
        assert entry is not None
        now = self._now_ms()
        result = "negative_hit" if entry.kind is Kind.ABSENT else "hit"
        self._counters.hit("collapsed" if waited else result, now - entry.stored_ms)
        draw = self._random.random()
        if recompute_early(now, entry.expires_ms, entry.delta_ms, self._freshness.beta, draw):
            self._refresh(key, seen, context)
        if self._freshness.audit and self._random.random() < self._freshness.audit:
            self._spawn(self._audit(key, seen))
        # RFC 9211: ttl is in whole seconds; rounded down, so that it promises nothing.
        return Found(entry, f"hit; ttl={max(0, entry.expires_ms - now) // 1000}")

    def _missed(self, seen: Seen, landed: Landed, *, collapsed: bool) -> Found:
        if seen.shard is None:
            self._counters.reads["bypass"] += 1
            return Found(landed.entry, 'fwd=bypass; detail="cache unavailable"')
        self._counters.reads["collapsed" if collapsed else "miss"] += 1
        how = "fwd=miss" + ("; stored" if landed.confirmed is not None else "")
        return Found(landed.entry, how + ("; collapsed" if collapsed else ""))

    # ------------------------------------------------------------------ flights

    def _depart(self, flight: Flight, seen: Seen, context: Context | None) -> None:
        landing = asyncio.create_task(self._whole_flight(flight, seen, context))
        self._landings[flight] = landing
        landing.add_done_callback(_told)

    async def _whole_flight(self, flight: Flight, seen: Seen, context: Context | None) -> Landed:
        # Over before anybody is told: a joiner for whom the answer is too old must find the way
        # free for the next flight, or it would join this one for ever.
        try:
            return await self._fly(flight, seen, context)
        finally:
            self.flights.land(flight)
            del self._landings[flight]

    async def _fly(self, flight: Flight, seen: Seen, context: Context | None) -> Landed:
        """Ask the store, and put what it says where `seen` found nothing.

        A task of its own: it goes on when the caller who led it has gone, for those who joined.
        """
        key, lease = flight.key, None
        deadline = asyncio.get_running_loop().time() + self._freshness.fetch_ms / 1000
        leased = self._tier.terms.guard == "lease" and seen.shard is not None
        if leased and (seen.entry is None or not seen.entry.answers):
            lease, elsewhere = await self._lease(key, seen)
            if elsewhere is not None:
                return Landed(elsewhere, None)
            if lease is None:
                seen = Seen(seen.shard)  # it may not be stored; the lease is another's
        began_ms = self._now_ms()
        entry = self._expiring(await self._store.fetch(key, deadline, context))
        if entry.kind is Kind.ABSENT and not self._freshness.negative_ttl_ms:
            if lease is not None:
                await self._tier.give_back(key, seen, lease)
            return Landed(entry, None)
        sent = self.flights.arrive()
        stored = await self._tier.fill(key, entry, seen, lease, began_ms)
        # Without a guard the cache takes everything, and taking it confirms nothing.
        return Landed(entry, sent if stored and self._tier.terms.guard != "none" else None)

    async def _lease(self, key: str, seen: Seen) -> tuple[bytes | None, Entry | None]:
        """The lease that was put there; or what its holder brought meanwhile; or neither.

        Nishtala §3.2.1: told that a lease is out, a client waits a moment and asks again; mostly
        the holder has put the value there by then.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._freshness.lease_wait_ms / 1000
        try:
            while True:
                entry = seen.entry
                if entry is not None and entry.answers:
                    return None, entry
                if entry is None:
                    lease = await self._tier.lease(key, seen)
                    if lease is not None:
                        return lease, None
                elif entry.kind is Kind.TOMBSTONE:
                    return None, None  # a write that may happen yet: nothing may be stored
                if loop.time() >= patience:
                    return None, None
                await asyncio.sleep(LEASE_POLL_S)
                seen = await self._tier.get(key)
                if seen.shard is None:
                    return None, None
        except EngineError:
            return None, None

    def _expiring(self, entry: Entry) -> Entry:
        ttl_ms = self._freshness.ttl_ms
        if entry.kind is Kind.ABSENT:
            ttl_ms = self._freshness.negative_ttl_ms
        ttl_ms = jittered_ms(max(1, ttl_ms), self._freshness.jitter, self._random.random())
        return replace(entry, expires_ms=entry.stored_ms + ttl_ms, token=self._tier.new_token())

    def written(self, version: int, value: bytes) -> Entry:
        """What a write-through puts into the cache."""
        return self._expiring(Entry(Kind.VALUE, version, value, stored_ms=self._now_ms()))

    # ------------------------------------------------------------------ in the background

    def _refresh(self, key: str, seen: Seen, context: Context | None) -> None:
        """XFetch: recompute now; readers go on with what is there until it comes."""
        flight, leads = self.flights.join(key)
        if not leads:
            return
        self._counters.early += 1
        self._depart(flight, seen, context)

    async def _audit(self, key: str, seen: Seen) -> None:
        """Compare a hit with the store: is there a newer version, and does the entry stay?

        What is overwritten at this very moment is not stale, so the entry is looked at again after
        a while; and what has been found is removed.
        """
        deadline = asyncio.get_running_loop().time() + self._freshness.fetch_ms / 1000
        try:
            truth = await self._store.fetch(key, deadline, None)
        except ServiceError:
            return  # nobody to compare with
        assert seen.entry is not None
        self._counters.audited += 1
        if truth.kind is seen.entry.kind and truth.version == seen.entry.version:
            return
        await asyncio.sleep(self._tier.terms.engine_timeout_ms / 1000)
        if (await self._tier.get(key)).raw == seen.raw:
            self._counters.stale += 1
            await self._tier.invalidate(key, truth.version)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """End what goes on in the background."""
        tasks = [*self._background, *self._landings.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _told(landing: asyncio.Task[Landed]) -> None:
    """Who waited for it has been told how it ended; perhaps nobody did."""
    if not landing.cancelled():
        landing.exception()


async def _until(deadline: float, landing: asyncio.Task[Landed]) -> Landed:
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(landing)
    except TimeoutError:
        raise DeadlineExceeded("the store did not answer in time") from None
