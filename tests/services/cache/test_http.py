"""The cache's HTTP face: the store's contract, bad input, fuzzing, status, metrics, admin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from services.cache.config import load_cache
from services.chassis.config import ConfigError
from tests.services.cache.bed import Bed, a_bed
from tests.services.faces import JSON, KEYS, VALUES, anything, fuzz, refuses, standing

BAD: list[tuple[str, str, Any, dict[str, str], int]] = [
    ("GET", "/kv/a?consistency=eventual", None, {}, 400),
    ("GET", "/kv/a?consistency=", None, {}, 400),
    ("GET", "/kv/a?consistency=local&consistency=local", None, {}, 400),
    ("GET", "/kv/a?color=red", None, {}, 400),
    ("GET", "/kv/", None, {}, 400),
    ("GET", "/kv/%zz", None, {}, 400),
    ("GET", "/kv/%ff", None, {}, 400),
    ("GET", "/kv/%00", None, {}, 400),
    ("GET", "/kv/" + "x" * 513, None, {}, 400),
    ("GET", "/kv/a", None, {"X-Deadline-Ms": "soon"}, 400),
    ("GET", "/", None, {}, 404),
    ("POST", "/kv/a", '{"value": 1}', JSON, 405),
    ("PUT", "/kv/a?consistency=local", '{"value": 1}', JSON, 400),
    ("PUT", "/kv/a", "", JSON, 400),
    ("PUT", "/kv/a", "[]", JSON, 400),
    ("PUT", "/kv/a", '{"value": 1, "ttl": 5}', JSON, 400),
    ("PUT", "/kv/a", '{"value": NaN}', JSON, 400),
    ("PUT", "/kv/a", b'{"value": "\xff"}', JSON, 400),
    ("PUT", "/kv/a", "[" * 100_000, JSON, 400),
    ("PUT", "/kv/a", '{"value": 1}', {"Content-Type": "text/plain"}, 415),
    ("PUT", "/kv/a", '{"value": "' + "x" * 70_000 + '"}', JSON, 413),
    ("PUT", "/kv/a", '{"value": "' + "x" * 300_000 + '"}', JSON, 413),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-Match": "1"}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"If-Match": "*", "If-None-Match": "*"}, 400),
    ("PUT", "/kv/a", '{"value": 1}', JSON | {"Idempotency-Key": "a b"}, 400),
    ("DELETE", "/kv/a", '{"value": 1}', JSON, 400),
    ("DELETE", "/kv/a", None, {"If-None-Match": "*"}, 400),
    ("POST", "/admin/flush", "x", {}, 400),
    ("POST", "/admin/write-back", "x", {}, 400),
    ("POST", "/admin/shards", '{"shards": []}', JSON, 400),
    ("POST", "/admin/shards", '{"shards": ["redis-9"]}', JSON, 400),
    ("POST", "/admin/shards", '{"shards": ["redis-1", "redis-1"]}', JSON, 400),
    ("POST", "/admin/shards", "{}", JSON, 400),
]


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with a_bed(tmp_path, servers=2) as made:
        yield made


@pytest.mark.parametrize("policy", ["aside", "back"])
async def test_bad_input_changes_nothing(bed: Bed, policy: str) -> None:
    """Every bad request gets a 4xx problem document, definite, and changes nothing."""
    cache = await bed.start("c1", policy=policy)
    await bed.put("a", "before")
    await refuses(bed.request, BAD)
    assert (await bed.get("a"))[0] == "before"
    assert len(cache.dirty) <= 1


@pytest.mark.parametrize(
    ("path", "key"), [("a%2Fb", "a/b"), ("%C3%BC", "ü"), ("a%20b", "a b"), ("x" * 512, "x" * 512)]
)
async def test_keys_are_the_stores(bed: Bed, path: str, key: str) -> None:
    """Percent-decoded once; the store knows the key under the same name."""
    await bed.start("c1")
    assert (await bed.request("PUT", f"/kv/{path}", json={"value": 1}))[1]["key"] == key
    for node in ("c1", "c1", "n1"):
        assert (await bed.request("GET", f"/kv/{path}", node))[1]["value"] == 1


async def test_other_consistencies_are_passed_on(bed: Bed) -> None:
    """A cache promises none of them: it asks the store, and keeps nothing."""
    cache = await bed.start("c1")
    await bed.put("a", "old", "n1")
    await bed.get("a")
    await bed.put("a", "new", "n1")
    for consistency in ("linearizable", "lease", "local"):
        status, document, headers = await bed.request("GET", f"/kv/a?consistency={consistency}")
        assert (status, document["value"]) == (200, "new")
        assert headers["Cache-Status"] == "c1; fwd=request"
    status, document, _ = await bed.request("GET", "/kv/a?consistency=cached")
    assert document["value"] == "old"
    assert (await bed.request("GET", "/kv/no?consistency=local"))[0] == 404
    assert cache.counters.reads["hit"] == 1


ASKED = anything(
    KEYS.map(lambda key: f"/kv/{key}")
    | st.sampled_from(["/kv/a?consistency=cached", "/kv/a?x=1", "/", "/status", "/metrics",
                       "/health/live", "/admin/flush", "/admin/shards", "/admin/write-back",
                       "/admin/clock", "/admin/"]),
    st.fixed_dictionaries({"value": VALUES}),
    ["If-Match", "If-None-Match", "Idempotency-Key", "Range"],
)  # fmt: skip


def test_fuzzing_finds_no_5xx(tmp_path: Path) -> None:
    """Whatever is asked: an answer below 500, and an error is a problem document."""
    with standing(a_bed(tmp_path)) as (runner, bed):
        runner.run(bed.start("c1", policy="through"))
        fuzz(runner, bed.request, ASKED)


async def test_status_and_metrics(bed: Bed) -> None:
    """Hit ratio, evictions, staleness, circuits, queue, encoding."""
    await bed.start("c1", encoding="protobuf")
    await bed.put("a", 1, "n1")
    for _ in range(4):
        await bed.get("a")
    _, status, _ = await bed.request("GET", "/status")
    assert (status["node"], status["role"], status["policy"]) == ("c1", "cache", "aside")
    assert status["counters"]["hit_ratio"] == 0.75
    assert status["counters"]["reads"] == {"hit": 3, "negative_hit": 0, "dirty_hit": 0, "miss": 1,
                                           "collapsed": 0, "bypass": 0}  # fmt: skip
    assert status["encoding"]["name"] == "protobuf"
    assert set(status["shards"]) == {"redis-1", "redis-2"}
    _, metrics, _ = await bed.request("GET", "/metrics")
    for line in (
        'cache_reads_total{result="hit"} 3.0',
        "cache_hit_ratio 0.75",
        "cache_store_reads_total 1.0",
        'cache_fills_total{outcome="stored"} 1.0',
        'cache_shard_up{shard="redis-1"} 1.0',
        'cache_evictions_total{shard="redis-1"} 0.0',
        "cache_hit_age_seconds ",
        "cache_stale_total 0.0",
        "cache_dirty 0.0",
        'requests_total{method="GET",outcome="ok"}',
    ):
        assert line in metrics.decode(), line


async def test_shards_are_taken_out_and_come_back_empty(bed: Bed) -> None:
    """What a server missed while it was out must not be read when it is back."""
    cache = await bed.start("c1")
    kept = [f"k{n}" for n in range(40)]
    for key in kept:
        await bed.put(key, "old")
        await bed.get(key)
    status, _, _ = await bed.request("POST", "/admin/shards", json={"shards": ["redis-2"]})
    assert status == 200
    for key in kept:
        await bed.put(key, "new")
    await bed.request("POST", "/admin/shards", json={"shards": ["redis-1", "redis-2"]})
    assert {(await bed.get(key))[0] for key in kept} == {"new"}
    assert cache.tier.placement.nodes == ("redis-1", "redis-2")

    bed.servers["redis-1"].kill()
    await bed.request("POST", "/admin/shards", json={"shards": ["redis-2"]})
    back = await bed.request("POST", "/admin/shards", json={"shards": ["redis-1", "redis-2"]})
    assert back[0] == 503
    assert cache.tier.placement.nodes == ("redis-2",), "it could not be emptied, so it stays out"


GOOD = {"CACHE_NODE": "c1", "CACHE_LISTEN": "127.0.0.1:0", "CACHE_PEERS": "n1=127.0.0.1:1",
        "MEMBER_REDIS": "127.0.0.1:2"}  # fmt: skip


def test_configuration_names_members_and_store() -> None:
    config, shards = load_cache(
        GOOD | {"MEMBER_REDIS_2": "h:3", "CACHE_SHARDS": "redis-2", "CACHE_POLICY": "back"}
    )
    assert {name: str(at) for name, at in shards.items()} == {"redis-2": "h:3"}
    assert config.store_addresses == {"n1": "127.0.0.1:1"}
    assert set(load_cache(GOOD)[1]) == {"redis"}


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"CACHE_POLICY": "throuh"}, "did you mean through?"),
        ({"CACHE_TTL": "1"}, "the nearest is CACHE_TTL_MS"),
        ({"CACHE_JITTER": "2"}, "a number from 0 to 1"),
        ({"CACHE_STORE": "n7"}, "allowed are names of CACHE_PEERS: n1"),
        ({"CACHE_SHARDS": "redis-9"}, "MEMBER_REDIS_9 is missing"),
        ({"CACHE_REPLICAS": "2"}, "allowed only with CACHE_GUARD=version"),
        ({"CACHE_GUARD": "version", "CACHE_HOLD_OFF_MS": "10"}, "or nothing is ever stored"),
        ({"MEMBER_REDIS": "nowhere"}, "host:port"),
        ({"CACHE_PEERS": ""}, "a cache needs a store to ask"),
    ],
)
def test_bad_configuration_is_one_line(environ: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("?", r"\?")) as error:
        load_cache(GOOD | environ)
    assert "\n" not in str(error.value)


def test_without_a_server_it_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="MEMBER_REDIS is missing"):
        load_cache({key: value for key, value in GOOD.items() if key != "MEMBER_REDIS"})


async def test_changes_need_the_operators_token(bed: Bed) -> None:
    """A reader must not be able to empty the cache, nor to take servers out of it."""
    await bed.start("c1", admin_token="correct-horse-battery")
    await bed.put("k", "v")
    for headers in ({}, {"Authorization": "Bearer wrong-horse-battery"}):
        for path in ("/admin/flush", "/admin/write-back", "/admin/shards"):
            status, problem, told = await bed.request("POST", path, headers=headers)
            assert (status, problem["type"]) == (401, "urn:faultline:unauthorized"), path
            assert told["WWW-Authenticate"].startswith("Bearer")
    operator = {"Authorization": "Bearer correct-horse-battery"}
    assert (await bed.request("POST", "/admin/flush", headers=operator))[0] == 200
