"""Memcached as an engine, through emcache.

What differs from Redis, and is hidden here: keys have at most 250 bytes without spaces, so they are
hashed; times to live are whole seconds; compare-and-swap is `gets` and `cas` (the server's own
unique number: what was replaced and put back in between does not pass for the same).

A restarted Memcached is empty, so there is no earlier life to guard against.

emcache dials a lost server again after 1, 2, 4 … 60 s. Here the circuit breaker decides when to try
again, so after a failure the next call makes a new client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, TypeVar

import emcache

from services.cache.engines import EngineError, EngineLost, EngineRefused, EngineStats
from services.chassis.config import Address

CONNECTIONS_MAX = 16

T = TypeVar("T")


class MemcachedEngine:
    """See the package."""

    def __init__(self, address: Address, *, timeout_s: float) -> None:
        self._server = emcache.MemcachedHostAddress(address.host, address.port)
        self._timeout_s = timeout_s
        self._client: Any = None

    async def get(self, key: str) -> bytes | None:
        item = await self._mapped(lambda client: client.get(_key(key)))
        return None if item is None else bytes(item.value)

    async def set(self, key: str, data: bytes, ttl_ms: int) -> None:
        await self._mapped(lambda client: client.set(_key(key), data, exptime=_seconds(ttl_ms)))

    async def add(self, key: str, data: bytes, ttl_ms: int) -> bool:
        async def ask(client: Any) -> bool:
            try:
                await client.add(_key(key), data, exptime=_seconds(ttl_ms))
            except emcache.NotStoredStorageCommandError:
                return False
            return True

        return await self._mapped(ask)

    async def swap(self, key: str, expected: bytes, data: bytes, ttl_ms: int) -> bool:
        async def ask(client: Any) -> bool:
            item = await client.gets(_key(key))
            if item is None or item.value != expected:
                return False
            try:
                await client.cas(_key(key), data, item.cas, exptime=_seconds(ttl_ms))
            except emcache.StorageCommandError:  # EXISTS: it was changed; NOT_FOUND: it went
                return False
            return True

        return await self._mapped(ask)

    async def delete(self, key: str) -> None:
        async def ask(client: Any) -> None:
            try:
                await client.delete(_key(key))
            except emcache.NotFoundCommandError:
                return

        await self._mapped(ask)

    async def flush(self) -> None:
        await self._mapped(lambda client: client.flush_all(self._server))

    async def stats(self) -> EngineStats:
        told = await self._mapped(lambda client: client.stats(self._server))
        return EngineStats(int(told["curr_items"]), int(told["bytes"]), int(told["evictions"]))

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _mapped(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await ask(await self._dialled())
        except emcache.CommandError as exc:
            raise EngineRefused(f"Memcached refused: {exc}") from exc
        except EngineError:
            raise
        except (OSError, TimeoutError, emcache.ClusterNoAvailableNodes, RuntimeError) as exc:
            await self.close()
            raise EngineLost(f"Memcached did not answer: {exc or type(exc).__name__}") from exc

    async def _dialled(self) -> Any:
        if self._client is None:
            client = await emcache.create_client(
                [self._server],
                timeout=None,  # `_mapped` bounds all of a call, waiting for a connection included
                max_connections=CONNECTIONS_MAX,
                connection_timeout=self._timeout_s,
            )
            if self._client is None:
                self._client = client
            else:  # another call was faster
                await client.close()
        return self._client


def _key(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=16).hexdigest().encode()


def _seconds(ttl_ms: int) -> int:
    """Rounded up: zero would be for ever."""
    return -(-ttl_ms // 1000)
