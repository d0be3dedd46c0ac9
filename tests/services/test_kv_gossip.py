"""The store that gossips over real HTTP: answered by one disk, told to the others, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.services.cluster import Cluster, connected, leaderless, until


def _status(cluster: Cluster, node: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.nodes[node].driver.status()
    return found


async def test_a_write_at_one_node_is_told_to_all(tmp_path: Path) -> None:
    """A node answers alone; by and by all have the same, and no rumour is told for ever."""
    made = Cluster(tmp_path, 5, protocol="gossip", conflicts="last-write-wins")
    try:
        await made.start()
        status, document, _ = await made.request("PUT", "/kv/a", "n1", json={"value": 1})
        assert (status, list(document["context"].values())) == (200, [1])

        def settled() -> bool:
            all_of_them = [_status(made, node) for node in made.nodes]
            alike = len({each["digest"] for each in all_of_them}) == 1
            return alike and all(each["keys"] and not each["hot"] for each in all_of_them)

        await until(settled)
        for node in made.nodes:
            status, document, _ = await made.request("GET", "/kv/a", node)
            assert (status, document["value"]) == (200, 1)
        status, problem, _ = await made.request("GET", "/kv/a?consistency=quorum", "n1")
        assert (status, problem["allowed"]) == (400, ["eventual"])
    finally:
        await made.close()


async def test_who_was_away_is_found_out_and_told_when_it_is_back(tmp_path: Path) -> None:
    """Anti-entropy brings what no rumour tells any more; the returned node is alive again, in a new
    incarnation, and has its own writes from its disk."""
    made = Cluster(tmp_path, 3, protocol="gossip", anti_entropy_ticks="20")
    try:
        await made.start()
        await connected(made)
        await made.request("PUT", "/kv/own", "n3", json={"value": "mine"})
        await made.stop("n3")
        await until(lambda: _status(made, "n1")["members"]["n3"] == "faulty")
        await made.request("PUT", "/kv/a", "n1", json={"value": 1})
        await until(lambda: not _status(made, "n1")["hot"])
        await made.start("n3")
        assert (await made.request("GET", "/kv/own", "n3"))[1]["value"] == "mine"
        assert _status(made, "n3")["incarnation"] >= 2
        await until(lambda: len({_status(made, node)["digest"] for node in made.nodes}) == 1)
        await until(lambda: _status(made, "n1")["members"]["n3"] == "alive")
        assert (await made.request("GET", "/kv/a", "n3"))[1]["value"] == 1
        await connected(made)
    finally:
        await made.close()


async def test_data_types_merge_whatever_the_rumours_bring(tmp_path: Path) -> None:
    """Where the last write of a plain value wins: two counts of one counter add up, an increment
    that is repeated at another node counts once, and an add that a removal has not seen stays."""
    async with leaderless(tmp_path, "gossip", conflicts="last-write-wins") as made:
        named = {"headers": {"Idempotency-Key": "k"}}
        for node, how in (("n1", {}), ("n2", {}), ("n2", named), ("n3", named)):
            status, _, _ = await made.request(
                "POST", "/counters/likes", node, json={"increment": 2}, **how
            )
            assert status == 200
        await made.request("POST", "/sets/cart", "n1", json={"add": "milk"})
        await made.request("POST", "/sets/cart", "n1", json={"remove": "milk"})
        await made.request("POST", "/sets/cart", "n2", json={"add": "milk"})

        def settled() -> bool:
            all_of_them = [_status(made, node) for node in made.nodes]
            return len({each["digest"] for each in all_of_them}) == 1 and not any(
                each["hot"] for each in all_of_them
            )

        await until(settled)
        for node in made.nodes:
            assert (await made.request("GET", "/counters/likes", node))[1]["value"] == 6
            assert (await made.request("GET", "/sets/cart", node))[1]["value"] == ["milk"]
