"""Redis and Memcached behind one interface: the same contract, on real servers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed.waiting import until
from services.cache.engines import Engine, EngineLost, EngineRefused
from services.cache.engines.memcached import MemcachedEngine
from services.cache.engines.redis import RedisEngine
from tests.services.cache.servers import Server, missing

TIMEOUT_S = 0.5
KINDS = {"redis": RedisEngine, "memcached": MemcachedEngine}


@pytest.fixture(params=list(KINDS))
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    if why := missing(request.param):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    made = Server(request.param, tmp_path)
    await made.start()
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[Engine]:
    made = KINDS[server.kind](server.address, timeout_s=TIMEOUT_S)
    try:
        yield made
    finally:
        await made.close()


async def fill(engine: Engine, count: int) -> None:
    for number in range(count):
        await engine.set(f"k{number}", b"x" * 60_000, 60_000)


async def gone(engine: Engine, key: str) -> bool:
    return await engine.get(key) is None


async def test_the_commands(engine: Engine) -> None:
    """get, set, add, swap, delete; keys that no Memcached would take as they are."""
    for key in ("a", "a b", "ü" * 200, "x" * 512):
        assert await engine.get(key) is None
        await engine.set(key, b"\x00\r\n1", 60_000)
        assert await engine.get(key) == b"\x00\r\n1"
        assert not await engine.add(key, b"2", 60_000)
        assert not await engine.swap(key, b"9", b"2", 60_000)
        assert await engine.swap(key, b"\x00\r\n1", b"2", 60_000)
        assert await engine.get(key) == b"2"
        await engine.delete(key)
        await engine.delete(key)
        assert not await engine.swap(key, b"2", b"3", 60_000)
        assert await engine.add(key, b"4", 60_000)
        assert await engine.get(key) == b"4"
    assert (await engine.stats()).items == 4
    await engine.flush()
    assert await engine.get("a") is None


async def test_one_of_many_swaps_wins(engine: Engine) -> None:
    """Compare-and-swap is atomic: of many at once exactly one finds what it expects."""
    await engine.set("a", b"0", 60_000)
    won = await asyncio.gather(*(engine.swap("a", b"0", b"%d" % n, 60_000) for n in range(1, 30)))
    assert sum(won) == 1
    assert await engine.get("a") == b"%d" % (won.index(True) + 1)


async def test_an_entry_expires(engine: Engine) -> None:
    """Not before its time; Memcached up to a second after it."""
    await engine.set("a", b"1", 1_000)
    assert await engine.get("a") == b"1"
    await until(lambda: gone(engine, "a"), 5, "it has expired")


async def test_a_dead_server_is_an_error_soon_and_comes_back(
    server: Server, engine: Engine
) -> None:
    """Bounded errors: refused, silent, back again; a restarted server is empty."""
    await engine.set("a", b"1", 60_000)
    server.kill()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(EngineLost):
            await engine.get("a")
        assert time.monotonic() - began < TIMEOUT_S + 1
    await server.start()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await engine.get("a") is None
                break
            except EngineLost:  # a connection that broke while it was idle
                continue
    server.pause()
    began = time.monotonic()
    with pytest.raises(EngineLost):
        await engine.get("a")
    assert TIMEOUT_S * 0.9 < time.monotonic() - began < TIMEOUT_S + 1
    server.pause(False)


async def test_a_redis_that_remembers_is_not_believed(tmp_path: Path) -> None:
    """Restarted with its append-only file it holds what was invalidated in between: never read."""
    server = Server("redis", tmp_path, appendonly="yes", appendfsync="always")
    await server.start()
    engine = RedisEngine(server.address, timeout_s=TIMEOUT_S)
    try:
        await engine.set("a", b"old", 60_000)
        await server.restart()
        seen = []
        while not seen:
            try:
                seen.append(await engine.get("a"))
            except EngineLost:
                continue
        assert seen == [None]
        assert (await engine.stats()).items == 1, "the old value is there, under its old life"
    finally:
        await engine.close()
        server.kill()


async def test_a_command_that_spans_two_lives_is_lost(tmp_path: Path) -> None:
    """The history of the module: begun under life 1, answered on a connection to life 2."""
    server = Server("redis", tmp_path, appendonly="yes", appendfsync="always")
    await server.start()
    engine = RedisEngine(server.address, timeout_s=TIMEOUT_S)
    try:
        await engine.set("a", b"old", 60_000)
        await engine._client.connection_pool.disconnect()  # so that the next command dials anew
        await server.restart()
        with pytest.raises(EngineLost, match="restarted"):
            await engine.get("a")
        assert await engine.get("a") is None
    finally:
        await engine.close()
        server.kill()


async def test_a_full_redis_refuses_and_is_not_taken_for_dead(tmp_path: Path) -> None:
    """`noeviction`: a write is refused, reads and deletes go on."""
    server = Server("redis", tmp_path, maxmemory="2mb", maxmemory_policy="noeviction")
    await server.start()
    engine = RedisEngine(server.address, timeout_s=TIMEOUT_S)
    try:
        with pytest.raises(EngineRefused, match="no memory left"):
            await fill(engine, 60)
        assert await engine.get("k0") is not None
        await engine.delete("k0")
    finally:
        await engine.close()
        server.kill()
