"""Counters, sets and sequences of the store without a leader, over real HTTP.

The two sides of a partition are made by stopping nodes: who takes a write alone has not heard of
what the others took (W = 1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.chassis.errors import DeadlineExceeded
from services.kv import data_types
from services.kv.client import KvClient
from services.protocols.quorum import data
from services.protocols.quorum.data import key_for
from tests.services.cluster import Cluster, leaderless
from tests.services.test_kv_leaderless import agree, core

ALONE = {"write_quorum": "1", "read_quorum": "1", "anti_entropy_ticks": "5"}


@asynccontextmanager
async def two_sides(directory: Path, **settings: str) -> AsyncIterator[Cluster]:
    """n1 and n2, W = R = 1; to be `parted` and brought together by `agree`."""
    async with leaderless(directory, "quorum", 2, **ALONE, **settings) as made:
        yield made


async def only(made: Cluster, node: str) -> None:
    """`node` alone is up, and has heard nothing of what the other took since the last agreement."""
    await made.stop(*made.nodes)
    await made.start(node)


async def together(made: Cluster) -> None:
    """Both are up, and have the same."""
    await made.start(*(node for node in made.addresses if node not in made.nodes))
    await agree(made)


async def post(made: Cluster, path: str, node: str, body: Any, **headers: str) -> Any:
    status, document, _ = await made.request("POST", path, node, json=body, headers=headers)
    assert status == 200, document
    return document


async def get(made: Cluster, path: str, node: str = "n1") -> Any:
    status, document, _ = await made.request("GET", path, node)
    assert status == 200, document
    return document


async def test_both_sides_count_and_every_increment_counts_once(tmp_path: Path) -> None:
    """Study §3.1.3: "a merge takes the maximum of corresponding entries", so none is lost."""
    async with two_sides(tmp_path) as made:
        for node, steps in (("n1", (1, 2, 3)), ("n2", (10, -4))):
            await only(made, node)
            for by in steps:
                await post(made, "/counters/likes", node, {"increment": by})
        await together(made)
        for node in made.nodes:
            assert (await get(made, "/counters/likes", node))["value"] == 12


async def test_a_repeated_increment_counts_once_at_whatever_node(tmp_path: Path) -> None:
    """The client got no answer from n1 and asks n2, which can't know: one increment, not two; and
    the same once more when both know, and after they were started again."""
    async with two_sides(tmp_path) as made:
        for node in ("n1", "n2"):
            await only(made, node)
            named = {"increment": 5}
            said = await post(made, "/counters/likes", node, named, **{"Idempotency-Key": "k"})
            assert said["value"] == 5
        await together(made)
        await made.stop("n1", "n2")
        await made.start("n1", "n2")
        said = await post(made, "/counters/likes", "n1", named, **{"Idempotency-Key": "k"})
        assert said["value"] == 5
        assert (await get(made, "/counters/likes", "n2"))["value"] == 5
        status, problem, _ = await made.request(
            "POST", "/counters/likes", json={"increment": 6}, headers={"Idempotency-Key": "k"}
        )
        assert (status, problem["definite"]) == (422, True)


async def test_an_increment_without_a_key_counts_as_often_as_it_is_sent(tmp_path: Path) -> None:
    """What is not promised: so a client that may have to repeat it sends a key."""
    async with two_sides(tmp_path) as made:
        for _ in range(2):
            said = await post(made, "/counters/likes", "n1", {"increment": 5})
        assert said["value"] == 10


async def test_an_add_wins_over_a_removal_that_has_not_seen_it(tmp_path: Path) -> None:
    """Study §3.3.5; and what was removed, with nobody adding it meanwhile, stays removed."""
    async with two_sides(tmp_path) as made:
        for element in ("milk", "eggs"):
            await post(made, "/sets/cart", "n1", {"add": element})
        await agree(made)
        await only(made, "n1")
        await post(made, "/sets/cart", "n1", {"add": "milk"})
        await post(made, "/sets/cart", "n1", {"add": {"b": 1, "a": [2]}})
        await only(made, "n2")
        for element in ("milk", "eggs"):
            await post(made, "/sets/cart", "n2", {"remove": element})
        await post(made, "/sets/cart", "n2", {"add": {"a": [2], "b": 1}})
        await together(made)
        for node in made.nodes:
            cart = await get(made, "/sets/cart", node)
            assert cart["value"] == ["milk", {"a": [2], "b": 1}], "one object, whatever its order"


async def test_both_sides_write_into_one_text(tmp_path: Path) -> None:
    """Each line stands behind that which its author had seen before it, deleted or not; an insert
    that was repeated at the other side is there once."""
    async with two_sides(tmp_path) as made:
        first = await post(made, "/sequences/text", "n1", {"insert": "a", "after": None})
        (a,) = first["elements"]
        await agree(made)
        await only(made, "n1")
        await post(made, "/sequences/text", "n1", {"insert": "b", "after": a})
        repeated = {"insert": "x", "after": a}
        await post(made, "/sequences/text", "n1", repeated, **{"Idempotency-Key": "k"})
        await post(made, "/sequences/text", "n1", {"delete": a})
        await only(made, "n2")
        await post(made, "/sequences/text", "n2", repeated, **{"Idempotency-Key": "k"})
        after_x = await post(made, "/sequences/text", "n2", {"insert": "c", "after": a})
        assert after_x["value"] == ["a", "c", "x"]
        await together(made)
        texts = [(await get(made, "/sequences/text", node))["value"] for node in made.nodes]
        assert texts[0] == texts[1]
        assert sorted(texts[0]) == ["b", "c", "x"]


async def test_keys_of_one_name_are_three_things(tmp_path: Path) -> None:
    """Two sides that create `likes` as a counter and as a set make no conflict of types."""
    async with two_sides(tmp_path) as made:
        await post(made, "/counters/likes", "n1", {"increment": 1})
        await post(made, "/sets/likes", "n2", {"add": 1})
        await made.request("PUT", "/kv/likes", "n1", json={"value": "plain"})
        await agree(made)
        found = [
            (await get(made, f"/{each}/likes"))["value"] for each in ("counters", "sets", "kv")
        ]
        assert found == [1, [1], "plain"]
        assert (await made.request("GET", "/sequences/likes"))[0] == 404


@pytest.mark.parametrize("conflicts", ["siblings", "last-write-wins"])
async def test_reads_repair_and_a_restart_loses_nothing(tmp_path: Path, conflicts: str) -> None:
    """Read repair without anti-entropy; then from the log alone; whatever settles plain values."""
    async with leaderless(tmp_path, "quorum", anti_entropy_ticks="0", conflicts=conflicts) as made:
        await made.stop("n3")
        await post(made, "/counters/a", "n1", {"increment": 7})
        await post(made, "/sets/a", "n2", {"add": "x"})
        await made.start("n3")
        for path in ("/counters/a", "/sets/a"):
            await get(made, f"{path}?consistency=all", "n3")
        await agree(made)
        await made.stop(*made.nodes)
        await made.start(*made.addresses)
        assert (await get(made, "/counters/a?consistency=eventual", "n3"))["value"] == 7
        assert (await get(made, "/sets/a?consistency=eventual", "n3"))["value"] == ["x"]


async def test_what_a_node_has_missed_can_be_taken_away_there(tmp_path: Path) -> None:
    """n2 and n3 have acknowledged an element (W = 2) that n1 has not got: who removes it at n1 is
    told that it is out of the set, and it is. So with an element of a sequence."""
    settings = {"anti_entropy_ticks": "0", "read_repair": "off"}
    async with leaderless(tmp_path, "quorum", **settings) as made:
        missing = core(made, "n1")
        step = missing.step
        missing.step = lambda message: None  # type: ignore[method-assign]
        await post(made, "/sets/cart", "n2", {"add": "milk"})
        text = await post(made, "/sequences/text", "n2", {"insert": "a", "after": None})
        missing.step = step  # type: ignore[method-assign]
        assert not missing.states
        await post(made, "/sets/cart", "n1", {"remove": "milk"})
        await post(made, "/sequences/text", "n1", {"delete": text["elements"][0]})
        for path in ("/sets/cart", "/sequences/text"):
            assert (await get(made, f"{path}?consistency=all", "n3"))["value"] == [], path


async def test_a_log_that_was_compacted_has_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image in place of all changes: counts, names, contexts of what is gone, tombstones."""
    monkeypatch.setattr("services.chassis.answering.WAL_BYTES_MAX", 2_000)
    async with leaderless(tmp_path, "quorum", 1) as made:
        for number in range(40):
            key = {"Idempotency-Key": f"k{number}"}
            await post(made, "/counters/a", "n1", {"increment": 1}, **key)
            await post(made, "/sets/a", "n1", {"add": number})
            await post(made, "/sets/a", "n1", {"remove": number - 1})
            text = await post(made, "/sequences/a", "n1", {"insert": number, "after": None})
            await post(made, "/sequences/a", "n1", {"delete": text["elements"][0]})
        before = core(made, "n1").states
        await made.stop("n1")
        await made.start("n1")
        assert core(made, "n1").states == before
        assert core(made, "n1").state(key_for("set", "a")).context == {core(made, "n1").disk: 79}
        said = await post(made, "/counters/a", "n1", {"increment": 1}, **{"Idempotency-Key": "k3"})
        assert said["value"] == 40


async def test_a_state_above_the_limit_is_not_written_with_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image whenever the log has doubled: 3 of them for 100 keys, not one for each change."""
    monkeypatch.setattr("services.chassis.answering.WAL_BYTES_MAX", 2_000)
    async with leaderless(tmp_path, "quorum", 1) as made:
        for number in range(100):
            await post(made, f"/counters/{number}", "n1", {"increment": 1})
        assert made.nodes["n1"].storage._generation < 10


async def test_the_client_repeats_an_increment_until_it_knows(tmp_path: Path) -> None:
    """W = 2, and n2 is down: nobody knows. With it back the same increment is answered "done", and
    has counted once."""
    async with (
        leaderless(tmp_path, "quorum", 2, write_quorum="2") as made,
        KvClient(made.addresses) as client,
    ):
        await made.stop("n2")
        with pytest.raises(DeadlineExceeded):
            await client.update("counters", "a", {"increment": 3}, idempotency_key="k", node="n1",
                                deadline_ms=300)  # fmt: skip
        await made.start("n2")
        async with KvClient(made.addresses, retries=50) as patient:
            for node in ("n2", "n1"):
                done = await patient.update(
                    "counters", "a", {"increment": 3}, idempotency_key="k", node=node,
                    deadline_ms=10_000,
                )  # fmt: skip
        assert done.value == 3
        assert (await client.read_data("counters", "a", consistency="all", node="n2")).value == 3
        await client.update("sets", "a", {"add": "x"}, node="n1")
        (inserted,) = (
            await client.update("sequences", "a", {"insert": 1, "after": None}, node="n1")
        ).elements
        gone = await client.update("sequences", "a", {"delete": inserted}, node="n2")
        assert (gone.value, gone.elements) == ([], [])


async def test_concurrent_increments_of_one_node_all_count(tmp_path: Path) -> None:
    """Of one batch, too: each finds the entry as the one before it left it."""
    async with leaderless(tmp_path, "quorum") as made:
        work = [post(made, "/counters/a", f"n{1 + n % 3}", {"increment": 1}) for n in range(60)]
        await asyncio.gather(*work)
        assert (await get(made, "/counters/a?consistency=all"))["value"] == 60


KEY = {"Idempotency-Key": "k"}
BAD: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/counters/a", {"json": {"increment": "1"}}, 400),
    ("POST", "/counters/a", {"json": {"increment": 1.5}}, 400),
    ("POST", "/counters/a", {"json": {"increment": 2**31}}, 400),
    ("POST", "/counters/a", {"json": {"increment": -(2**70)}}, 400),
    ("POST", "/counters/a", {"json": {}}, 400),
    ("POST", "/counters/a", {"json": {"add": 1}}, 400),
    ("POST", "/counters/a", {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
    ("POST", "/counters/a", {"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
    ("POST", "/counters/a", {"json": {"increment": 1}, "headers": {"If-Match": '"1"'}}, 400),
    ("POST", "/counters/a", {"json": {"increment": 1}, "headers": {"Idempotency-Key": "é"}}, 400),
    ("POST", "/counters/a?consistency=most", {"json": {"increment": 1}}, 400),
    ("POST", "/counters/%00", {"json": {"increment": 1}}, 400),
    ("PUT", "/counters/a", {"json": {"value": 1}}, 405),
    ("GET", "/counters/a", {"headers": KEY}, 400),
    ("GET", "/counters/a", {}, 404),
    ("POST", "/sets/a", {"json": {}}, 400),
    ("POST", "/sets/a", {"json": {"add": 1, "remove": 1}}, 400),
    ("POST", "/sets/a", {"json": {"add": 1}, "headers": KEY}, 400),
    ("POST", "/sets/a", {"json": {"add": "x" * 2_000}}, 413),
    ("POST", "/sequences/a", {"json": {"insert": 1}}, 400),
    ("POST", "/sequences/a", {"json": {"insert": 1, "after": "first"}}, 400),
    ("POST", "/sequences/a", {"json": {"insert": 1, "after": "7@n1"}}, 404),
    ("POST", "/sequences/a", {"json": {"delete": "7@n1"}}, 404),
    ("POST", "/sequences/a", {"json": {"delete": "7@n1", "after": None}}, 400),
    ("POST", "/sequences/a", {"json": {"delete": None}}, 400),
]


async def test_what_it_cannot_do_it_refuses(tmp_path: Path) -> None:
    """Definite, as problem+json, and nothing was changed."""
    async with leaderless(tmp_path, "quorum", 1) as made:
        for method, path, how, expected in BAD:
            status, problem, headers = await made.request(method, path, **how)
            assert (status, problem["definite"]) == (expected, True), (method, path, how)
            assert headers["Content-Type"] == "application/problem+json"
        assert not core(made, "n1").states


async def test_what_may_grow_for_ever_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """413 before it hurts: 5 names here. Without names the counter goes on, and a name that was
    counted is still known."""
    monkeypatch.setattr(data, "ENTRIES_MAX", 5)
    async with leaderless(tmp_path, "quorum", 1) as made:
        for number in range(5):
            key = {"Idempotency-Key": f"k{number}"}
            await post(made, "/counters/a", "n1", {"increment": 1}, **key)
        status, problem, _ = await made.request(
            "POST", "/counters/a", json={"increment": 1}, headers={"Idempotency-Key": "k5"}
        )
        assert (status, problem["definite"]) == (413, True)
        await post(made, "/counters/a", "n1", {"increment": 1}, **key)
        assert (await post(made, "/counters/a", "n1", {"increment": 1}))["value"] == 6


async def test_the_largest_increments_do_not_stop_a_node(tmp_path: Path) -> None:
    """No number of 64 bits overflows on its way to the disk."""
    async with leaderless(tmp_path, "quorum", 1) as made:
        for by in (data_types.BY_MAX, data_types.BY_MAX, -data_types.BY_MAX):
            said = await post(made, "/counters/a", "n1", {"increment": by})
        assert said["value"] == data_types.BY_MAX
