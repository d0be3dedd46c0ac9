"""Redis (or Valkey) as an engine, through redis-py's asyncio client.

No retries: by default redis-py sends a command up to eleven times, five seconds each. A cache that
is slower than what it caches is none.

**A Redis that comes back with its memory.** If it persists (`appendonly yes`), a restarted server
holds what was true when it died; invalidations of the meantime were lost, and readers get values
that have long been overwritten. So keys carry the server's `run_id`, which is new with each start:
what an earlier life of the server knew is never asked for, and expires. Every connection learns
the id when it is made, before its first command:

    a command begins under life 1; the server restarts; the command's *new* connection learns of
    life 2 and tells the engine; the command's key still says life 1, so whatever it brings is not
    to be trusted: `_in_one_life` compares before and after, and calls it lost.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from services.cache.engines import EngineLost, EngineRefused, EngineStats
from services.chassis.config import Address

# More of them are slower: 200 calls at once take 18 ms over 8 connections, 116 over 64 (measured; a
# connection is made with four round trips, and all who wait are woken for each that is free).
CONNECTIONS_MAX = 8

T = TypeVar("T")

_RUN_ID = re.compile(rb"run_id:([0-9a-f]{40})")

# Redis 8.4 and Valkey 8.1 have SET … IFEQ, each with its own rules; a script works on all of them.
_SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


class RedisEngine:
    """See the package. `life`: the server's run_id, empty before the first connection."""

    def __init__(self, address: Address, *, timeout_s: float) -> None:
        self.life = ""
        self._client: Any = redis.asyncio.Redis.from_pool(
            redis.asyncio.BlockingConnectionPool(
                host=address.host,
                port=address.port,
                max_connections=CONNECTIONS_MAX,
                timeout=timeout_s,  # for one of them to become free
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                redis_connect_func=self._connected,
            )
        )

    async def get(self, key: str) -> bytes | None:
        async def ask(k: str) -> bytes | None:
            found = await self._client.get(k)
            assert found is None or isinstance(found, bytes), found
            return found

        return await self._in_one_life(key, ask)

    async def set(self, key: str, data: bytes, ttl_ms: int) -> None:
        await self._in_one_life(key, lambda k: self._client.set(k, data, px=ttl_ms))

    async def add(self, key: str, data: bytes, ttl_ms: int) -> bool:
        return bool(
            await self._in_one_life(key, lambda k: self._client.set(k, data, px=ttl_ms, nx=True))
        )

    async def swap(self, key: str, expected: bytes, data: bytes, ttl_ms: int) -> bool:
        return bool(
            await self._in_one_life(
                key, lambda k: self._client.eval(_SWAP, 1, k, expected, data, ttl_ms)
            )
        )

    async def delete(self, key: str) -> None:
        await self._in_one_life(key, self._client.delete)

    async def flush(self) -> None:
        await self._mapped(self._client.flushdb)

    async def stats(self) -> EngineStats:
        told = await self._mapped(self._client.info)
        items = await self._mapped(self._client.dbsize)
        return EngineStats(items, int(told["used_memory"]), int(told["evicted_keys"]))

    async def close(self) -> None:
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _in_one_life(self, key: str, ask: Callable[[str], Awaitable[T]]) -> T:
        if not self.life:
            await self._mapped(self._client.ping)
        life = self.life
        answer = await self._mapped(lambda: ask(f"{life[:8]}:{key}"))
        if self.life != life:
            raise EngineLost("Redis was restarted in between")
        return answer

    async def _connected(self, connection: Any) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        told = await connection.read_response()
        text = told if isinstance(told, bytes) else str(told).encode()
        found = _RUN_ID.search(text)
        if found is None:
            raise redis.exceptions.ConnectionError("INFO says no run_id: is this Redis?")
        self.life = found[1].decode()

    async def _mapped(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except OutOfMemoryError as exc:
            raise EngineRefused(f"Redis has no memory left: {exc}") from exc
        except ResponseError as exc:
            raise EngineRefused(f"Redis refused: {exc}") from exc
        except (RedisError, OSError, TimeoutError, RuntimeError) as exc:
            # RuntimeError: uvloop's word for a write to a connection that was lost meanwhile.
            raise EngineLost(f"Redis did not answer: {exc or type(exc).__name__}") from exc
