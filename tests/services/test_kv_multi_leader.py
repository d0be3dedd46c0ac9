"""The store with many leaders over real HTTP: writes anywhere, conflicts, restarts, refusals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.services.cluster import Cluster, leaderless, until


async def agree(cluster: Cluster) -> None:
    """Wait until all running nodes have the same."""
    await until(lambda: len({_digest(cluster, node) for node in cluster.nodes}) == 1)


def _digest(cluster: Cluster, node: str) -> str:
    return str(cluster.nodes[node].driver.status()["digest"])


async def test_each_node_takes_writes_and_all_get_them(tmp_path: Path) -> None:
    """Each is answered by its own leader; then all have all."""
    async with leaderless(tmp_path, "multi_leader") as made:
        for node in made.nodes:
            status, document, _ = await made.request("PUT", f"/kv/{node}", node, json={"value": 1})
            assert (status, document["version"]) == (200, 1)
        await agree(made)
        for node in made.nodes:
            for key in made.nodes:
                status, document, _ = await made.request("GET", f"/kv/{key}", node)
                assert (status, document["value"]) == (200, 1)


async def test_a_conflict_is_settled_alike_and_shown(tmp_path: Path) -> None:
    """In `/status`, with what is gone, in `/metrics`, and in the node's events."""
    async with leaderless(tmp_path, "multi_leader", 2) as made:
        for _ in range(20):
            await asyncio.gather(
                *(made.request("PUT", "/kv/a", node, json={"value": node}) for node in made.nodes)
            )
        await until(lambda: all(node.driver.status()["conflicts"] for node in made.nodes.values()))
        await agree(made)
        shown = [(await made.request("GET", "/kv/a", node))[1]["value"] for node in made.nodes]
        assert shown[0] == shown[1]
        _, status, _ = await made.request("GET", "/status")
        assert status["conflicts"] >= len(status["recent_conflicts"]) > 0
        assert status["recent_conflicts"][0]["value"] in ('"n1"', '"n2"')
        assert any(event["event"] == "conflict" for event in made.events("n1"))
        async with made.session.get(f"http://{made.addresses['n1']}/metrics") as response:
            assert f"conflicts {status['conflicts']}.0" in await response.text()


async def test_it_goes_on_alone_and_ships_when_the_others_are_back(tmp_path: Path) -> None:
    """A write waits for no other node; and after a restart all is there."""
    async with leaderless(tmp_path, "multi_leader") as made:
        await made.stop("n2", "n3")
        assert (await made.request("PUT", "/kv/a", json={"value": "alone"}))[0] == 200
        assert (await made.request("DELETE", "/kv/b"))[0] == 200
        await made.stop("n1")
        await made.start("n1", "n2", "n3")
        await agree(made)
        _, document, _ = await made.request("GET", "/kv/a?consistency=eventual", "n3")
        assert document["value"] == "alone"
        assert (await made.request("GET", "/kv/b", "n2"))[0] == 404


async def test_followers_point_to_a_leader(tmp_path: Path) -> None:
    """KV_LEADERS=1: 421 with the leader as the hint, which KvClient follows."""
    async with leaderless(tmp_path, "multi_leader", 2, leaders="1", topology="ring") as made:
        status, problem, _ = await made.request("PUT", "/kv/a", "n2", json={"value": 1})
        assert (status, problem["leader"], problem["definite"]) == (421, "n1", True)


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("GET", "/kv/a?consistency=linearizable", {}),
        ("GET", "/kv/a?quorum=1", {}),
        ("PUT", "/kv/a?consistency=eventual", {"json": {"value": 1}}),
        ("PUT", "/kv/a", {"json": {"value": 1}, "headers": {"If-Match": '"1"'}}),
        ("PUT", "/kv/a", {"json": {"value": 1}, "headers": {"Idempotency-Key": "k"}}),
        ("PUT", "/kv/a", {"json": {"valu": 1}}),
        ("DELETE", "/kv/a", {"json": 1}),
    ],
)
async def test_what_it_cannot_do_it_refuses(
    tmp_path: Path, method: str, path: str, how: dict[str, Any]
) -> None:
    """400, and nothing was changed."""
    async with leaderless(tmp_path, "multi_leader", 1) as made:
        status, problem, _ = await made.request(method, path, **how)
        assert (status, problem["definite"]) == (400, True)
        assert (await made.request("GET", "/kv/a"))[0] == 404
