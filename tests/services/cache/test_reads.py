"""Reading through the cache, on a real store and a real Redis: stampedes, races, Redis gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.services.cache.bed import Bed, a_bed, held
from tests.services.cluster import until

STALE_SECONDS = 30


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with a_bed(tmp_path) as made:
        yield made


async def test_a_miss_is_stored_and_a_hit_spares_the_store(bed: Bed) -> None:
    """Cache-Status says which (RFC 9211); the version and the value are the store's."""
    cache = await bed.start("c1")
    version = await bed.put("a", {"x": [1, "ü", None]}, "n1")
    assert await bed.get("a") == ({"x": [1, "ü", None]}, "fwd=miss; stored")
    for _ in range(3):
        value, said = await bed.get("a")
        assert value == {"x": [1, "ü", None]}
        assert said.startswith("hit; ttl=")
    status, document, headers = await bed.request("GET", "/kv/a")
    assert (status, document["version"], headers["ETag"]) == (200, version, f'"{version}"')
    assert int(headers["Age"]) < STALE_SECONDS
    assert cache.counters.store_reads == 1


@pytest.mark.parametrize("guard", ["none", "lease", "version"])
async def test_single_flight_lets_one_request_through(bed: Bed, guard: str) -> None:
    """1,000 concurrent misses of one key: one request reaches the store; all get its answer."""
    cache = await bed.start("c1", guard=guard, engine_timeout_ms="4000")
    version = await bed.put("hot", 17, "n1")
    loop = asyncio.get_running_loop()
    found = await asyncio.gather(
        *(cache.reader.read("hot", loop.time() + 20) for _ in range(1_000))
    )
    assert {(each.entry.version, each.entry.value) for each in found} == {(version, b"17")}
    assert cache.counters.store_reads == 1
    assert sum(cache.counters.reads.values()) == 1_000


async def test_who_found_nothing_before_a_flight_landed_looks_again(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "The history that goes wrong": the answer to its look is under way while another's flight
    departs and lands. One request reaches the store."""
    cache = await bed.start("c1", guard="none", engine_timeout_ms="4000")
    await bed.put("hot", 17, "n1")
    look, looked, may_know = cache.tier.get, asyncio.Event(), asyncio.Event()

    async def slowly(key: str) -> Any:
        seen = await look(key)
        looked.set()
        await may_know.wait()
        return seen

    monkeypatch.setattr(cache.tier, "get", slowly)
    late = asyncio.create_task(bed.get("hot"))
    await looked.wait()
    monkeypatch.setattr(cache.tier, "get", look)
    assert (await bed.get("hot"))[1].startswith("fwd=miss")
    may_know.set()
    assert (await late)[1].startswith("hit")
    assert cache.counters.store_reads == 1


async def test_single_flight_over_http(bed: Bed) -> None:
    """The same with requests: 300 connections at once."""
    cache = await bed.start("c1", engine_timeout_ms="4000")
    await bed.put("hot", 17, "n1")
    answers = await asyncio.gather(*(bed.get("hot") for _ in range(300)))
    assert {value for value, _ in answers} == {17}
    assert cache.counters.store_reads == 1


async def test_without_single_flight_all_of_them_reach_the_store(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a stampede."""
    cache = await bed.start("c1", guard="none", single_flight="off", engine_timeout_ms="4000")
    await bed.put("hot", 17, "n1")
    _, let_go = held(cache, monkeypatch)
    loop = asyncio.get_running_loop()
    reads = [asyncio.create_task(cache.reader.read("hot", loop.time() + 20)) for _ in range(100)]
    await until(lambda: cache.counters.store_reads == 100)
    let_go.set()
    await asyncio.gather(*reads)


async def test_who_waits_has_looked_and_found_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that has not looked yet may still find what another brings: it does not wait."""
    cache = await bed.start("c1", guard="none", single_flight="off", engine_timeout_ms="4000")
    await bed.put("hot", 17, "n1")
    answered, let_go = held(cache, monkeypatch)
    reading = asyncio.create_task(bed.get("hot"))
    await answered.wait()
    look, looks, may_look = cache.tier.get, asyncio.Event(), asyncio.Event()

    async def slowly(key: str) -> Any:
        looks.set()
        await may_look.wait()
        return await look(key)

    monkeypatch.setattr(cache.tier, "get", slowly)
    late = asyncio.create_task(bed.get("hot"))
    await looks.wait()
    _, told, _ = await bed.request("GET", "/status")
    assert told["waiting"] == 1
    let_go.set()
    await reading
    may_look.set()
    assert (await late)[1].startswith("hit")
    _, told, _ = await bed.request("GET", "/status")
    assert (told["waiting"], cache.counters.store_reads) == (0, 1)


async def test_leases_let_one_node_through(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nishtala §3.2.1: of two nodes that miss, one gets the lease; the other waits."""
    first, second = await bed.start("c1"), await bed.start("c2")
    await bed.put("hot", 17, "n1")
    answered, let_go = held(first, monkeypatch)
    reading = asyncio.create_task(bed.get("hot", "c1"))
    await answered.wait()
    waiting = asyncio.create_task(bed.get("hot", "c2"))
    await until(lambda: len(second.reader.flights))
    let_go.set()
    assert [(await reading)[0], (await waiting)[0]] == [17, 17]
    assert first.counters.store_reads + second.counters.store_reads == 1


async def test_a_lease_that_nobody_redeems_ends(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder died: who waits asks the store itself, and after the lease's end stores again."""
    first, second = await bed.start("c1"), await bed.start("c2", lease_wait_ms="50")
    first.tier.terms = type(first.tier.terms)("lease", 1, 600, 1000, 200)
    await bed.put("hot", 17, "n1")
    answered, _ = held(first, monkeypatch)
    reading = asyncio.create_task(bed.get("hot", "c1"))
    await answered.wait()
    assert await bed.get("hot", "c2") == (17, "fwd=miss")
    assert second.counters.store_reads == 1
    await until(lambda: reading.cancel() or reading.done())

    async with asyncio.timeout(10):
        while (await bed.get("hot", "c2"))[1] != "fwd=miss; stored":
            pass


@pytest.mark.parametrize(("guard", "stale"), [("none", True), ("lease", False), ("version", False)])
async def test_the_stale_set_race(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, guard: str, stale: bool
) -> None:
    """A slow reader sets what a write has made wrong: it stays, unless a guard keeps it out."""
    slow, _ = await bed.start("c1", guard=guard), await bed.start("c2", guard=guard)
    await bed.put("a", "old", "c2")
    if guard == "version":  # the tombstone of this write would end by itself
        await bed.request("POST", "/admin/flush")
    answered, let_go = held(slow, monkeypatch)
    reading = asyncio.create_task(bed.get("a", "c1"))
    await answered.wait()
    await bed.put("a", "new", "c2")
    let_go.set()
    assert (await reading)[0] == "old", "it asked before the write, and may be told so"
    monkeypatch.undo()
    assert (await bed.get("a", "c2"))[0] == ("old" if stale else "new")
    assert slow.counters.fills["stored"] == int(stale)
    assert slow.counters.fills["refused"] == int(not stale)


async def test_who_asks_after_a_write_does_not_join_a_flight_from_before_it(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history in `flights`: the write is another node's, so this one does not know of it."""
    slow, _ = await bed.start("c1"), await bed.start("c2")
    await bed.put("a", "old", "c2")
    answered, let_go = held(slow, monkeypatch)
    before = asyncio.create_task(bed.get("a", "c1"))
    await answered.wait()
    await bed.put("a", "new", "c2")
    after = asyncio.create_task(bed.get("a", "c1"))
    arrived = slow.reader.flights.arrive()
    await until(lambda: slow.reader.flights.arrive() > arrived + 1)
    let_go.set()
    assert (await before)[0] == "old"
    assert (await after)[0] == "new"


async def test_absence_is_cached_for_a_while(bed: Bed) -> None:
    """Negative caching: one read of the store for many of a key that is not there."""
    cache = await bed.start("c1", negative_ttl_ms="60000")
    for expected in ("fwd=miss; stored", "hit; ttl=", "hit; ttl="):
        value, said = await bed.get("nothing")
        assert value is None
        assert said.startswith(expected)
    assert cache.counters.store_reads == 1
    await bed.put("nothing", 1)
    assert (await bed.get("nothing"))[0] == 1, "a write through the cache ends it"


async def test_absence_is_not_cached_when_that_is_off(bed: Bed) -> None:
    cache = await bed.start("c1", negative_ttl_ms="0")
    for _ in range(3):
        assert await bed.get("nothing") == (None, "fwd=miss")
    assert cache.counters.store_reads == 3


async def test_absence_that_is_not_cached_leaves_no_lease(bed: Bed) -> None:
    """Nothing comes in its place: until it ended by itself, every reader would wait for that."""
    settings = {"negative_ttl_ms": "0", "lease_ms": "9000", "lease_wait_ms": "9000"}
    first, second = await bed.start("c1", **settings), await bed.start("c2", **settings)
    async with asyncio.timeout(5):
        for node in ("c1", "c2", "c1"):
            assert await bed.get("nothing", node) == (None, "fwd=miss")
    assert first.counters.store_reads + second.counters.store_reads == 3
    await bed.put("nothing", 1, "n1")
    assert await bed.get("nothing", "c2") == (1, "fwd=miss; stored")


async def test_early_recomputation_spares_readers_the_miss(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XFetch: near its end a hot key is brought anew, in the background; nobody misses."""
    cache = await bed.start("c1", ttl_ms="60000", jitter="0")
    await bed.put("hot", 17, "n1")
    fetch = cache.store.fetch

    async def slowly(*args: Any) -> Any:
        return replace(await fetch(*args), delta_ms=5_000)

    monkeypatch.setattr(cache.store, "fetch", slowly)
    await bed.get("hot")
    assert (await bed.get("hot"))[1].startswith("hit")
    assert cache.counters.early == 0, "a minute before the end the chance is exp(-60/5)"
    cache.clock.set(offset_ms=57_000)
    async with asyncio.timeout(10):
        while cache.counters.early == 0:  # three seconds before it, exp(-3/5)
            assert (await bed.get("hot"))[1].startswith("hit")
    await until(lambda: cache.counters.fills["stored"] == 2)
    cache.clock.set(offset_ms=90_000)
    assert (await bed.get("hot"))[1].startswith("hit"), "the new one lasts longer"


async def test_redis_down_is_served_by_the_store_and_says_so(bed: Bed) -> None:
    """Header, metric, status; quick after the circuit has opened; and back when Redis is."""
    cache = await bed.start("c1", engine_timeout_ms="100", open_ms="100")
    await bed.put("a", 1)
    await bed.get("a")
    bed.servers["redis-1"].kill()
    for _ in range(10):
        assert await bed.get("a") == (1, 'fwd=bypass; detail="cache unavailable"')
    await bed.put("a", 2)
    assert (await bed.get("a"))[0] == 2
    _, status, _ = await bed.request("GET", "/status")
    assert status["shards"]["redis-1"]["circuit"] != "closed"
    assert status["counters"]["reads"]["bypass"] == 11
    await bed.servers["redis-1"].start()
    async with asyncio.timeout(10):
        while not (await bed.get("a"))[1].startswith("hit"):
            pass
    assert (await bed.get("a"))[0] == 2
    assert cache.counters.engine_errors["redis-1"] > 0


async def test_many_readers_without_redis_share_two_flights(bed: Bed) -> None:
    """Nothing confirms a flight's answer then; who came too late for it shares the next."""
    cache = await bed.start("c1", failures_to_open="1", open_ms="60000")
    await bed.put("a", 1, "n1")
    bed.servers["redis-1"].kill()
    await bed.get("a")
    before = cache.counters.store_reads
    loop = asyncio.get_running_loop()
    found = await asyncio.gather(*(cache.reader.read("a", loop.time() + 10) for _ in range(500)))
    assert {each.entry.value for each in found} == {b"1"}
    assert cache.counters.store_reads - before <= 2


async def test_a_silent_redis_costs_its_timeout_and_then_nothing(bed: Bed) -> None:
    """Paused, not dead: the circuit opens after so many timeouts, and requests do not wait."""
    await bed.start("c1", engine_timeout_ms="100", failures_to_open="2", open_ms="60000")
    await bed.put("a", 1, "n1")
    bed.servers["redis-1"].pause()
    loop = asyncio.get_running_loop()
    for _ in range(3):
        assert (await bed.get("a"))[0] == 1
    began = loop.time()
    for _ in range(20):
        assert (await bed.get("a"))[0] == 1
    assert loop.time() - began < 1.5
    bed.servers["redis-1"].pause(False)


async def test_a_write_that_redis_missed_is_made_good(bed: Bed) -> None:
    """An invalidation that is owed: until it is paid the entry is not read, then it is gone."""
    cache = await bed.start("c1", engine_timeout_ms="100", failures_to_open="1", open_ms="300")
    await bed.put("a", "old", "n1")
    await bed.get("a")
    bed.servers["redis-1"].pause()
    status, _, headers = await bed.request("PUT", "/kv/a", json={"value": "new"})
    assert (status, headers["Cache-Status"]) == (200, 'c1; fwd=method; detail="invalidation owed"')
    assert cache.tier.shards["redis-1"].owed
    bed.servers["redis-1"].pause(False)
    async with asyncio.timeout(10):
        while (found := await bed.get("a"))[1][:3] != "hit":
            assert found[0] == "new"
    assert found[0] == "new"
    assert not cache.tier.shards["redis-1"].owed


async def test_replicas_keep_a_key_when_its_home_dies(tmp_path: Path) -> None:
    """Two homes on the ring: the second answers, with what it has, when the first does not."""
    async with a_bed(tmp_path, servers=3) as bed:
        cache = await bed.start("c1", replicas="2", guard="version")
        for number in range(20):
            await bed.put(f"k{number}", number, "n1")
            await bed.get(f"k{number}")
        home = cache.tier.shards_of("k0")[0].name
        bed.servers[home].kill()
        reads = cache.counters.store_reads
        for number in range(20):
            assert (await bed.get(f"k{number}"))[1].startswith("hit"), number
        assert cache.counters.store_reads == reads
        await bed.put("k0", "new")
        assert (await bed.get("k0"))[0] == "new"


async def test_rubbish_in_redis_is_a_miss(bed: Bed) -> None:
    """Another program's keys, another encoding's entries: never an error, never an answer."""
    cache = await bed.start("c1")
    await bed.put("a", 1, "n1")
    shard = cache.tier.shards["redis-1"]
    await shard.ask(lambda engine: engine.set("a", b"\x00rubbish", 60_000))
    assert await bed.get("a") == (1, "fwd=miss; stored")
    assert cache.counters.undecodable >= 1


async def test_stale_entries_are_found_by_the_audit(bed: Bed) -> None:
    """A write past the cache makes its entry stale; a sample of hits is compared with the store."""
    cache = await bed.start("c1", audit="1", engine_timeout_ms="500")
    await bed.put("a", "old", "n1")
    await bed.get("a")
    await bed.put("a", "new", "n1")
    assert (await bed.get("a"))[0] == "old", "nobody told the cache"
    await until(lambda: cache.counters.stale == 1)
    async with asyncio.timeout(10):
        while (await bed.get("a"))[0] != "new":
            pass


@pytest.mark.parametrize("guard", ["lease", "version"])
async def test_memcached_behind_the_same_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    """Hits, the stale-set race and its cure, killed and back: as with Redis."""
    async with a_bed(tmp_path, kind="memcached") as bed:
        settings = {"engine": "memcached", "encoding": "protobuf", "guard": guard,
                    "open_ms": "100", "engine_timeout_ms": "500"}  # fmt: skip
        slow = await bed.start("c1", **settings)
        await bed.start("c2", **settings)
        await bed.put("a", "old", "n1")
        answered, let_go = held(slow, monkeypatch)
        reading = asyncio.create_task(bed.get("a", "c1"))
        await answered.wait()
        await bed.put("a", "new", "c2")
        let_go.set()
        assert (await reading)[0] == "old"
        monkeypatch.undo()
        assert [(await bed.get("a", node))[0] for node in ("c1", "c2", "c1")] == ["new"] * 3
        assert (await bed.get("a"))[1].startswith("hit")

        bed.servers["memcached-1"].kill()
        assert await bed.get("a") == ("new", 'fwd=bypass; detail="cache unavailable"')
        await bed.servers["memcached-1"].start()
        async with asyncio.timeout(15):
            while not (await bed.get("a"))[1].startswith("hit"):
                pass
