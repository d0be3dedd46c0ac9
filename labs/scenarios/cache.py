"""The parts of lab-cache, each a small experiment of its own; `labs/cache.py` tells the story.

(A lab file is one page. Six experiments are more than that.)
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from labs.harness.checkers.regular import check_regular
from labs.harness.history import load
from labs.harness.workloads.cached import Burst, CacheLoad, CacheUsers
from labs.harness.workloads.statistics import percentile
from services.chassis.errors import NotFound
from services.kv.client import KvClient

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

REDIS = ("redis-1", "redis-2", "redis-3", "redis-4")
KEYS = [f"item-{number}" for number in range(60)]
BURST, PATIENCE_MS = 300, 3_000
BLOBS, BLOB_BYTES, BLOB_READS = 100, 48_000, 200


async def overtake(stage: Stage, users: CacheUsers) -> None:
    await users.put("c2", "race", "old")
    await in_the_database(stage, users)
    await emptied(stage, users)
    since = stage.now_ns()
    held = stage.nemesis.clog(("c1", "db"), stream="response")
    async with stage.fault(held, "the database's answers to c1 are held up"):
        slow = asyncio.create_task(users.get("c1", "race"))
        await stage.require(lambda: any(
            event["path"] == "/kv/race" and event["method"] == "GET"
            for event in stage.protocol_events("db", "request", since_ns=since)),
            within_s=5, what="the database has answered c1")
        await users.put("c2", "race", "new")
        await in_the_database(stage, users)
    await slow
    found = await users.get("c2", "race")
    stage.claim("A slow reader does not put an overwritten value back into the cache",
                found == "new", f"after c1 had its answer, c2 read {found!r}", control_breaks=True)


async def emptied(stage: Stage, users: CacheUsers) -> None:
    await stage.require(
        lambda: users.operate("/admin/flush"), within_s=10, what="the cache is empty"
    )


async def in_the_database(stage: Stage, users: CacheUsers) -> None:
    """Write-back would get there some time; these experiments want to begin now."""
    await stage.require(
        lambda: users.operate("/admin/write-back"), within_s=20, what="the database has it all"
    )


async def restart_redis(stage: Stage, users: CacheUsers) -> None:
    reads = CacheLoad(users, seed=stage.seed, reads_per_s=120, writes_per_s=40)
    async with stage.running(reads):
        await stage.require(lambda: len(reads.ended) >= 50, within_s=20, what="50 operations")
        killing = stage.nemesis.kill(list(REDIS))
        async with stage.fault(killing, "killed: all four Redis, which remember what they had"):
            down = stage.now_ns()
            await stage.require(lambda: len(reads.since(down)) >= 50, within_s=20,
                                what="50 operations without Redis")
        back = stage.now_ns()
        await stage.require(lambda: len(reads.since(back)) >= 50, within_s=20,
                            what="50 operations with Redis again")
    failed = [each for each in reads.ended if not each.answered]
    slowest = max(each.took_ms for each in reads.ended)
    writes = [each.took_ms for each in reads.ended if each.f == "write" and each.answered]
    result = check_regular(load(stage.history_path))
    stale, judged = result.stats["stale"], result.stats["reads"]
    stage.figures(
        failed=len(failed),
        operations=len(reads.ended),
        stale=stale,
        judged=judged,
        write_ms=percentile(writes, 50),
    )
    stage.claim("Redis killed and restarted under load: no reader gets an overwritten value",
                result, f"{stale} of {judged} reads were stale, {result.stats['phantoms']} of "
                "what nobody wrote", control_breaks=True)
    stage.claim("Without Redis the database answers", len(failed) * 100 <= len(reads.ended),
                f"{len(failed)} of {len(reads.ended)} failed, the slowest took {slowest:.0f} ms")


async def lose_servers(stage: Stage, users: CacheUsers) -> None:
    await lose_a_server(stage, users)
    await crash(stage, users)


async def lose_a_server(stage: Stage, users: CacheUsers) -> None:
    """One of four is gone; an operator takes it out, so that its keys find a new place."""
    await users.put_all("c1", {key: key for key in KEYS})
    await in_the_database(stage, users)

    async def all_cached() -> bool:
        return await missed_share(users, "c1", KEYS) == 0

    # A circuit to a Redis that has just come back may still be open: those keys are not kept yet.
    await stage.require(all_cached, within_s=20, what="every key is in the cache")
    twins = CacheUsers(
        stage.cluster, "users", {*stage.cluster.nodes} & {"twins"}, seed=stage.seed
    )
    copies = [f"twin-{key}" for key in KEYS]
    if twins.nodes:
        await stage.require(lambda: kept_twice(twins, copies), within_s=20,
                            what="every copy is kept by both its servers")
    async with stage.fault(stage.nemesis.kill(["redis-4"]), "killed: redis-4, for good"):
        if twins.nodes:
            missed = await missed_share(twins, "twins", copies)
            stage.claim(
                "Of keys that two servers keep, none is missed when one is lost",
                missed == 0,
                f"{missed:.0%} of {len(KEYS)} keys missed, before anybody did anything",
            )
        await users.operate("/admin/shards", {"shards": list(REDIS[:3])})
        share = await missed_share(users, "c1", KEYS)
    await twins.close()
    await stage.require(
        lambda: users.operate("/admin/shards", {"shards": list(REDIS)}),
        within_s=10,
        what="redis-4 keeps keys again",
    )
    stage.figures(missed=share)
    stage.claim(
        "A lost cache server costs its own share of the keys",
        share < 0.5,
        f"{share:.0%} of {len(KEYS)} keys missed, with one of four lost",
        control_breaks=True,
    )


async def kept_twice(twins: CacheUsers, keys: list[str]) -> bool:
    """Write all of them; did no server fail meanwhile? (That a server which died and came back has
    closed a connection is found out by using it; what was written meanwhile has one copy.)"""
    before = await twins.status("twins")
    await twins.put_all("twins", dict.fromkeys(keys, 1))
    after = await twins.status("twins")
    if not before or not after:
        return False
    circuits = {each["circuit"] for told in (before, after) for each in told["shards"].values()}
    failed = [told["counters"]["engine_errors"] for told in (before, after)]
    return circuits == {"closed"} and failed[0] == failed[1]


async def missed_share(users: CacheUsers, node: str, keys: list[str]) -> float:
    """Which share of these keys `node` had to ask the database for."""
    before = await users.counts(node)
    await users.read_all(node, keys)
    after = await users.counts(node)
    return 1 - (after["hits"] - before["hits"]) / (after["reads"] - before["reads"])


async def crash(stage: Stage, users: CacheUsers) -> None:
    """Orders are written until their cache node dies; then the database is asked for each."""
    orders: list[str] = []
    writing = asyncio.create_task(users.write_on("c1", "order", orders, pause_s=0.02))
    await stage.require(lambda: len(orders) >= 20, within_s=20, what="20 orders acknowledged")
    async with stage.fault(stage.nemesis.kill(["c1"]), "killed: c1, while it takes orders"):
        await writing
        lost = await missing(stage, orders)
    stage.figures(lost=lost, acknowledged=len(orders))
    stage.claim(
        "A crash of a cache node loses no acknowledged write",
        not lost,
        f"{lost} of {len(orders)} are not in the database",
        control_breaks=True,
    )


async def missing(stage: Stage, keys: list[str]) -> int:
    """How many of these keys the database has not."""
    gate = asyncio.Semaphore(32)

    async def absent(client: KvClient, key: str) -> bool:
        async with gate:
            try:
                await client.get(key, deadline_ms=20_000)
            except NotFound:
                return True
            return False

    async with KvClient({"db": stage.cluster.address("users", "db")}) as client:
        return sum(await asyncio.gather(*(absent(client, key) for key in keys)))


async def stampede(stage: Stage, users: CacheUsers) -> None:
    """A hot key is gone, and its value takes a while to come; all its readers come meanwhile."""
    await users.put("c1", "hot", "news")
    await in_the_database(stage, users)
    await users.burst("hot", BURST, Burst(), deadline_ms=20_000)  # all get their connections
    await emptied(stage, users)
    before = await users.counts()
    slow = stage.nemesis.clog([(node, "db") for node in users.nodes], stream="response")
    burst = Burst()
    async with stage.fault(slow, f"a hot key is gone, and slow to come; {BURST} readers want it"):
        readers = asyncio.create_task(users.burst("hot", BURST, burst, deadline_ms=PATIENCE_MS))

        # Not only sent: who has not looked into the cache yet when the first value comes finds it
        # there, and would never have asked the database, control or not.
        async def all_wait() -> bool:
            waiting: int = sum([(await users.status(node))["waiting"] for node in users.nodes])
            return waiting + len(burst.failed) >= BURST

        await stage.require(all_wait, within_s=10, what=f"{BURST} readers wait")
    await readers
    asked = (await users.counts())["store_reads"] - before["store_reads"]
    stage.figures(asked=asked, gone=len(burst.failed), burst=BURST)
    stage.claim(
        "Of many that miss a key at once, at most one at each cache node asks the database",
        asked <= len(users.nodes),
        f"{asked} of {BURST} requests reached it",
        control_breaks=True,
    )
    stage.claim(
        "The database does not fall over when a hot key expires",
        not burst.failed,
        f"{len(burst.failed)} of {BURST} had no answer within {PATIENCE_MS} ms; those that had "
        f"took up to {max(burst.answered, default=0):.0f} ms",
        control_breaks=True,
    )
    # In the control it would go on working for readers who have given up.
    await stage.cluster.kill("db")


async def compare_engines(stage: Stage) -> None:
    """Redis and Memcached, JSON and Protobuf, behind the nodes `r` and, if it is there, `m`.

    Both get the same memory, which is too little, the same values and the same skewed reads. What
    comes of it is measured, not decided: they differ in what they count as memory and in what they
    throw out, and the service's own work is most of each request.
    """
    if "r" not in stage.cluster.nodes:
        return  # it is not what the control is about
    random = Random(stage.seed)
    keys = [f"blob-{number}" for number in range(BLOBS)]
    drawn = random.choices(keys, [1 / rank for rank in range(1, BLOBS + 1)], k=BLOB_READS)  # Zipf
    random.shuffle(keys)
    found: dict[str, dict[str, Any]] = {}
    for node, engine in (("r", "Redis"), ("m", "Memcached")):
        claim = f"{engine} with too little memory throws entries out, and readers miss"
        if node not in stage.cluster.nodes:
            stage.needs(claim, engine)
            continue
        told = found[engine] = await _measure(stage, node, keys, drawn)
        stage.claim(claim, told["evictions"] > 0 and told["hit_ratio"] < 1,
                    f"{told['evictions']} evictions, hit ratio {told['hit_ratio']:.2f}, median "
                    f"{told['p50_ms']:.1f} ms")  # fmt: skip
        stage.tell(
            f"{engine}, {told['encoding']}: {told['bytes']:.0f} bytes around a value, "
            f"{told['cpu_us']:.1f} µs to encode or decode"
        )
    stage.figures(engines=found)


async def _measure(
    stage: Stage, node: str, keys: list[str], drawn: list[str]
) -> dict[str, Any]:
    users = CacheUsers(stage.cluster, "users", (node,), seed=stage.seed)
    try:
        small = {f"small-{number}": {"price": number, "stock": [1, 2]} for number in range(BLOBS)}
        await users.put_all(node, small)
        await users.read_all(node, small)
        encoding = (await users.status(node))["encoding"]
        await users.put_all(node, dict.fromkeys(keys, "x" * BLOB_BYTES))
        before = await users.counts()
        burst = await users.read_all(node, drawn)
        after = await users.counts()

        async def evictions() -> int:
            shards = (await users.status(node))["shards"].values()
            return sum(int(shard["evictions"]) for shard in shards)

        evicted = await stage.eventually(evictions, within_s=5, what=f"{node} counts evictions")
    finally:
        await users.close()
    return {
        "evictions": evicted or 0,
        "hit_ratio": (after["hits"] - before["hits"]) / (after["reads"] - before["reads"]),
        "p50_ms": percentile(burst.answered, 50),
        "encoding": encoding["name"],
        # A cache that keeps nothing has encoded nothing: the claims say so.
        "bytes": (encoding["bytes"] - encoding["value_bytes"]) / max(1, encoding["encoded"]),
        "cpu_us": encoding["cpu_us"],
    }
