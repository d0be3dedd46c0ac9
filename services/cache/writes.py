"""Writing through the cache: cache-aside, write-through, write-back.

- `aside`: the store first, then the entry is removed. The next reader brings the new value.
- `through`: the store first, then the cache gets the value that the store has now.
- `back`: acknowledged at once, the store later. Fast, and a crash loses what waits; until it is
  written, this node alone knows of it.

Never the cache first and then the store: if the store then refuses, readers have seen a value that
never was. And after a write that nobody knows the outcome of, the entry goes *and stays away* for a
while (a tombstone of unknown version): the write may happen yet.

A crash of this process between the store's yes and the invalidation leaves a stale entry for the
rest of its time to live: two systems, no transaction. (Facebook deletes from the database's own
log, Nishtala §4.1.)
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import msgspec

from services.cache.counters import Counters
from services.cache.entry import UNKNOWN
from services.cache.reads import Reader
from services.cache.store import Store
from services.cache.tier import Tier
from services.cache.write_back import Dirty, DirtyKeys
from services.chassis.app import Context
from services.chassis.errors import BadRequest, Indefinite, ServiceError, Unavailable
from services.chassis.limits import encode_value
from services.kv.client import Reply

POLICIES = ("aside", "through", "back")
FLUSH_BATCH, FLUSH_DEADLINE_S = 32, 2.0
FLUSH_RETRY_S = 0.1
Conditions = tuple[int | None, bool, str | None]

T = TypeVar("T")


class Written(NamedTuple):
    """`version` 0: not in the store yet. `how`: for `Cache-Status`."""

    version: int
    how: str


class Writer:
    """See the module. `monotonic`: seconds."""

    def __init__(
        self,
        policy: str,
        tier: Tier,
        store: Store,
        reader: Reader,
        dirty: DirtyKeys,
        counters: Counters,
        monotonic: Callable[[], float],
        log: Any,
    ) -> None:
        self._policy = policy
        self._tier = tier
        self._store = store
        self._reader = reader
        self._dirty = dirty
        self._counters = counters
        self._monotonic = monotonic
        self._log = log
        self._writes: set[asyncio.Task[Any]] = set()
        self._settled = asyncio.Event()  # set, and replaced, whenever a flush has ended
        self._wake = asyncio.Event()

    async def put(
        self,
        key: str,
        value: Any,
        conditions: Conditions,
        deadline: float,
        context: Context | None = None,
    ) -> Written:
        """Write `value`. Raises what `KvClient.put` does."""
        data = encode_value(value)
        if self._policy == "back":
            if conditions == (None, False, None):
                if self._dirty.put(Dirty(key, data, self._monotonic(), secrets.token_hex(16))):
                    self._wake.set()
                    return Written(0, 'fwd=method; detail="not written back"')
                self._counters.written_through += 1
            await self._written_back(key, deadline)

        async def write() -> Written:
            reply = await self._store.put(key, value, conditions, deadline, context)
            return await self._after(key, reply, data, replayed=conditions[2] is not None)

        return await self._whole(key, write())

    async def delete(
        self, key: str, conditions: Conditions, deadline: float, context: Context | None = None
    ) -> Written:
        """Remove. Raises what `KvClient.delete` does."""
        if self._policy == "back":
            await self._written_back(key, deadline)

        async def write() -> Written:
            reply = await self._store.delete(key, conditions, deadline, context)
            return await self._after(key, reply, None, replayed=conditions[2] is not None)

        return await self._whole(key, write())

    async def _after(
        self, key: str, reply: Reply, data: bytes | None, *, replayed: bool
    ) -> Written:
        """The store has it: now the cache, before the caller is told."""
        self._reader.flights.forget(key)
        # A retry with the same idempotency key is answered as the first one was: that is not what
        # the store has *now*, if somebody has written in between.
        if self._policy == "aside" or replayed or data is None:
            done = await self._tier.invalidate(key, reply.version)
        else:
            done = await self._tier.replace(key, self._reader.written(reply.version, data))
        owed = "" if done else '; detail="invalidation owed"'
        return Written(reply.version, f"fwd=method{owed}")

    async def _whole(self, key: str, write: Coroutine[Any, Any, T]) -> T:
        """Carry a write to its end whatever becomes of its caller: else a client that hangs up
        between the store's yes and the invalidation would leave a stale entry."""

        async def to_its_end() -> T:
            try:
                return await write
            except Indefinite:
                self._reader.flights.forget(key)
                await self._tier.invalidate(key, UNKNOWN)
                raise

        task = asyncio.create_task(to_its_end())
        self._writes.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller, if there still is one

    # ------------------------------------------------------------------ write-back

    async def _written_back(self, key: str, deadline: float) -> None:
        """Wait until nothing of `key` waits: what comes now must not be overtaken by it.

        Raises Unavailable: nothing was done.
        """
        while self._dirty.get(key) is not None:
            self._wake.set()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._settled.wait()
            except TimeoutError:
                raise Unavailable("an earlier write of the key is not in the store yet") from None

    async def flush_on(self, interval_s: float) -> None:
        """Write back for ever: what waits, every `interval_s`."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(interval_s)  # in which writes of the same key coalesce
            self._wake.clear()
            if not await self.flush():
                await asyncio.sleep(FLUSH_RETRY_S)
            if len(self._dirty):
                self._wake.set()

    async def flush(self) -> bool:
        """Write back what waits now; False when some of it did not get through."""
        through = True
        while through and (batch := self._dirty.take(FLUSH_BATCH)):
            through = all(await asyncio.gather(*map(self._write_back, batch)))
            settled, self._settled = self._settled, asyncio.Event()
            settled.set()
        return through

    async def _write_back(self, dirty: Dirty) -> bool:
        """One write of the queue; as often as need be, under one idempotency key."""
        deadline = asyncio.get_running_loop().time() + FLUSH_DEADLINE_S
        value = msgspec.json.decode(dirty.value)
        try:
            reply = await self._store.put(
                dirty.key, value, (None, False, dirty.token), deadline, None
            )
        except BadRequest as exc:
            self._counters.lost += 1
            self._log.error("the store refuses what was acknowledged", error=str(exc))
            self._dirty.settled(dirty, flushed=True)
            return True
        except ServiceError:
            self._dirty.settled(dirty, flushed=False)
            return False
        except BaseException:
            self._dirty.settled(dirty, flushed=False)
            raise
        self._counters.written_back += 1
        if self._dirty.newest(dirty):
            await self._tier.replace(dirty.key, self._reader.written(reply.version, dirty.value))
        self._dirty.settled(dirty, flushed=True)
        return True

    async def close(self, grace_s: float) -> None:
        """Let writes end and the queue empty itself, for `grace_s`; then tell what is lost."""
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*self._writes, return_exceptions=True)
                while len(self._dirty):
                    await self.flush()
                    await asyncio.sleep(FLUSH_RETRY_S if len(self._dirty) else 0)
        except TimeoutError:
            pass
        if len(self._dirty):
            self._counters.lost += len(self._dirty)
            self._log.error("acknowledged writes are lost", keys=len(self._dirty))
