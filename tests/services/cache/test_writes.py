"""Writing through the cache: the three policies, what a crash loses, a Redis with a memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.cache.service import Cache
from services.chassis.errors import DeadlineExceeded
from tests.services.cache.bed import Bed, a_bed
from tests.services.cluster import until


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with a_bed(tmp_path) as made:
        yield made


@pytest.mark.parametrize("guard", ["none", "lease", "version"])
@pytest.mark.parametrize("policy", ["aside", "through", "back"])
async def test_what_was_written_is_read(bed: Bed, policy: str, guard: str) -> None:
    """Read your writes, at the node that took them; and in the end in the store."""
    cache = await bed.start("c1", policy=policy, guard=guard, flush_ms="5")
    for number in range(20):
        await bed.put("a", number)
        assert (await bed.get("a"))[0] == number
    await until(lambda: not len(cache.dirty))
    assert (await bed.request("GET", "/kv/a", "n1"))[1]["value"] == 19
    assert (await bed.get("a"))[0] == 19
    status, _, _ = await bed.request("DELETE", "/kv/a")
    assert status == 200
    assert (await bed.get("a"))[0] is None
    assert (await bed.request("DELETE", "/kv/a"))[0] == 404


async def test_write_through_leaves_the_value_in_the_cache(bed: Bed) -> None:
    """And cache-aside leaves nothing: the next reader brings it."""
    through, aside = await bed.start("c1", policy="through"), await bed.start("c2")
    await bed.put("a", 1, "c1")
    assert (await bed.get("a"))[1].startswith("hit")
    assert through.counters.store_reads == 0
    await bed.put("a", 2, "c2")
    assert await bed.get("a") == (2, "fwd=miss; stored")
    assert aside.counters.store_writes == 1


async def test_conditions_are_the_stores(bed: Bed) -> None:
    """If-Match, If-None-Match and Idempotency-Key mean what they mean at the store."""
    await bed.start("c1", policy="through")
    version = await bed.put("a", 1)
    status, document, _ = await write(bed, "a", 2, If_Match=f'"{version + 7}"')
    assert (status, document["value"], document["version"]) == (412, 1, version)
    status, document, _ = await write(bed, "a", 2, If_Match=f'"{version}"')
    assert status == 200
    assert (await write(bed, "a", 3, If_None_Match="*"))[0] == 412
    assert (await write(bed, "a", 3, If_Match="*"))[0] == 200
    assert (await bed.get("a"))[0] == 3
    assert (await bed.request("DELETE", "/kv/a", headers={"If-Match": '"1"'}))[0] == 412


async def write(bed: Bed, key: str, value: Any, **headers: str) -> tuple[int, Any, Any]:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return await bed.request("PUT", f"/kv/{key}", json={"value": value}, headers=names)


async def test_a_replayed_write_does_not_bring_the_old_value_back(bed: Bed) -> None:
    """A retry is answered as the first attempt was; by now the store has another value."""
    await bed.start("c1", policy="through")
    first = await write(bed, "a", "first", Idempotency_Key="k")
    await bed.put("a", "second")
    await bed.request("POST", "/admin/flush")  # nothing newer stands in the cache to compare with
    again = await write(bed, "a", "first", Idempotency_Key="k")
    assert again[1] == first[1]
    assert (await bed.get("a"))[0] == "second"


async def test_a_write_of_unknown_outcome_keeps_the_entry_away(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline passed; the write happens later, after a reader has asked the store."""
    cache = await bed.start("c1")
    await bed.put("a", "old")
    await bed.get("a")
    real = cache.store.put

    async def lost(*_: Any) -> Any:
        raise DeadlineExceeded("nobody knows")

    monkeypatch.setattr(cache.store, "put", lost)
    status, document, _ = await write(bed, "a", "new")
    assert (status, document["definite"]) == (504, False)
    assert await bed.get("a") == ("old", "fwd=miss")
    monkeypatch.setattr(cache.store, "put", real)
    await bed.put("a", "new", "n1")  # now it happens
    assert (await bed.get("a"))[0] == "new", "nothing was stored in between"


async def test_who_hangs_up_leaves_no_stale_entry(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The invalidation belongs to the write, whatever becomes of the caller."""
    cache = await bed.start("c1")
    await bed.put("a", "old")
    await bed.get("a")
    written, go_on = asyncio.Event(), asyncio.Event()
    real = cache.store.put

    async def slowly(*args: Any) -> Any:
        reply = await real(*args)
        written.set()
        await go_on.wait()
        return reply

    monkeypatch.setattr(cache.store, "put", slowly)
    loop = asyncio.get_running_loop()
    writing = asyncio.create_task(
        cache.writer.put("a", "new", (None, False, None), loop.time() + 5)
    )
    await written.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    go_on.set()
    await until(lambda: not cache.writer._writes)
    assert (await bed.get("a"))[0] == "new"


# --- write-back


async def crash(cache: Cache) -> None:
    """What SIGKILL leaves: nothing is flushed, nothing is told."""
    for task in cache._tasks:
        task.cancel()
    await asyncio.gather(*cache._tasks, return_exceptions=True)


async def test_write_back_loses_what_waits_in_a_crash(bed: Bed) -> None:
    """Acknowledged, and gone; write-through loses nothing of it."""
    back = await bed.start("c1", policy="back", flush_ms="60000")
    through = await bed.start("c2", policy="through")
    for number in range(10):
        assert await bed.put(f"back-{number}", number, "c1") == 0, "version 0: not in the store"
        await bed.put(f"through-{number}", number, "c2")
    await crash(back)
    await crash(through)
    for number in range(10):
        assert (await bed.request("GET", f"/kv/back-{number}", "n1"))[0] == 404
        assert (await bed.request("GET", f"/kv/through-{number}", "n1"))[0] == 200
    back.dirty._waiting.clear()  # a dead process flushes nothing when the test ends


async def test_write_back_flushes_when_it_is_told_to_stop(bed: Bed) -> None:
    """SIGTERM is no crash."""
    cache = await bed.start("c1", policy="back", flush_ms="60000")
    for number in range(100):
        await bed.put(f"k{number}", number)
    await bed.caches.pop("c1").stop()
    for number in range(100):
        assert (await bed.request("GET", f"/kv/k{number}", "n1"))[1]["value"] == number
    assert cache.counters.lost == 0


async def test_a_full_queue_writes_through_and_coalescing_spares_the_store(bed: Bed) -> None:
    """Bounded: the eleventh key waits for the store; a hundred writes of one key are one."""
    cache = await bed.start("c1", policy="back", dirty_max="10", flush_ms="60000")
    for number in range(10):
        assert await bed.put(f"k{number}", number) == 0
    assert await bed.put("k10", 10) > 0
    for number in range(100):
        assert await bed.put("k0", number) == 0
    assert (cache.counters.written_through, cache.counters.store_writes) == (1, 1)
    assert cache.dirty.coalesced == 100


async def test_write_back_waits_for_a_store_that_is_away(bed: Bed) -> None:
    """Retried under one idempotency key until the store has it."""
    cache = await bed.start("c1", policy="back", flush_ms="5")
    await bed.store.stop("n1")
    assert await bed.put("a", 1) == 0
    assert (await bed.get("a"))[0] == 1
    await until(lambda: cache.counters.store_writes >= 2)
    await bed.store.start("n1")
    await bed.store.leader()
    await until(lambda: not len(cache.dirty))
    assert (await bed.request("GET", "/kv/a", "n1"))[1]["value"] == 1


async def test_an_operator_may_have_it_written_back_now(bed: Bed) -> None:
    cache = await bed.start("c1", policy="back", flush_ms="60000")
    for number in range(100):
        await bed.put(f"k{number}", number)
    assert len(cache.dirty) == 100
    assert (await bed.request("POST", "/admin/write-back"))[0] == 200
    assert len(cache.dirty) == 0
    assert (await bed.request("GET", "/kv/k99", "n1"))[1]["value"] == 99


async def test_a_condition_waits_for_what_is_not_written_back(bed: Bed) -> None:
    """A compare-and-set must not be overtaken by an earlier write of the same key."""
    cache = await bed.start("c1", policy="back", flush_ms="1")
    await bed.put("a", 1)
    status, _, _ = await write(bed, "a", 2, If_Match="*")
    assert status == 200
    assert (await bed.request("GET", "/kv/a", "n1"))[1]["value"] == 2
    assert not len(cache.dirty)


# --- a Redis that was away, or is full


async def test_debts_are_bounded(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """More invalidations owed than can be remembered: the server is emptied before it is read."""
    monkeypatch.setattr("services.cache.shards.OWED_MAX", 3)
    cache = await bed.start("c1", engine_timeout_ms="100", failures_to_open="1", open_ms="200")
    keys = [f"k{number}" for number in range(8)]
    for key in keys:
        await bed.put(key, "old", "n1")
        await bed.get(key)
    shard = cache.tier.shards["redis-1"]
    bed.servers["redis-1"].pause()
    for key in keys[:5]:
        await bed.put(key, "new")
    assert shard.owes_flush
    assert len(shard.owed) <= 3
    bed.servers["redis-1"].pause(False)
    await until(lambda: not shard.owes_flush and not shard.owed)
    assert [(await bed.get(key))[0] for key in keys] == ["new"] * 5 + ["old"] * 3


@pytest.mark.parametrize("guard", ["lease", "version"])
async def test_a_full_redis_keeps_nothing_old(tmp_path: Path, guard: str) -> None:
    """No memory left for the new value: then the old one goes, too."""
    async with a_bed(tmp_path, maxmemory="2500kb", maxmemory_policy="noeviction") as bed:
        cache = await bed.start("c1", policy="through", guard=guard)
        keys = [f"k{number}" for number in range(40)]
        for round_ in ("old", "new"):
            for key in keys:
                await bed.put(key, round_ + "x" * (40_000 if round_ == "old" else 60_000))
        assert cache.counters.engine_errors["redis-1"] > 0, "it was full"
        assert {(await bed.get(key))[0][:3] for key in keys} == {"new"}


async def test_redis_restarted_with_its_memory_serves_nothing_old(tmp_path: Path) -> None:
    """It comes back with what was overwritten while it was down: no reader ever sees that."""
    async with a_bed(tmp_path, appendonly="yes", appendfsync="always") as bed:
        await bed.start("c1", policy="through", open_ms="50")
        await bed.start("c2", open_ms="50")
        for number in range(20):
            await bed.put(f"k{number}", "old")
        bed.servers["redis-1"].kill()
        for number in range(20):
            await bed.put(f"k{number}", "new")
        await bed.servers["redis-1"].start()
        async with asyncio.timeout(20):
            hits = 0
            while hits < 50:
                for number in range(20):
                    for node in ("c1", "c2"):
                        value, said = await bed.get(f"k{number}", node)
                        assert value == "new", (node, said)
                        hits += said.startswith("hit")
