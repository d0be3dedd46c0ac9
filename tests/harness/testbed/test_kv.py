"""The testbed with the real store: what its stand-in can't show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from labs.harness.testbed.cluster import Cluster, until
from labs.harness.testbed.description import kv_cluster
from labs.harness.testbed.launcher import ROOT
from labs.harness.testbed.local import LocalTestbed
from tests.harness.testbed.contract import READY_WITHIN_S
from tests.services.cluster import CONSENSUS


async def written(cluster: Cluster) -> str:
    """Write `x`; the leader that has acknowledged it.

    Not who led a moment before: on a busy machine nodes that have just started elect anew.
    """

    async def acknowledged() -> str | None:
        for node in await cluster.primaries():
            url = f"http://{cluster.address('c1', node)}/kv/x"
            async with cluster.session.put(url, json={"value": 1}) as response:
                if response.status == 200:
                    return node
        return None

    return str(await until(acknowledged, 30, "a leader acknowledges a write"))


@pytest.mark.parametrize("protocol", CONSENSUS)
async def test_five_nodes_of_the_store_lose_a_leader_and_get_it_back(
    tmp_path: Path, protocol: str
) -> None:
    """Kill the leader: another one leads; the old one returns with its data, as a follower."""
    async with (
        LocalTestbed(tmp_path) as testbed,
        testbed.cluster(kv_cluster(5, protocol=protocol)) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        leader = await written(cluster)
        url = f"http://{cluster.address('c1', leader)}/kv/x"

        await cluster.kill(leader)
        await until(cluster.primaries, 10, "another leader")
        await cluster.start(leader)
        await cluster.ready(READY_WITHIN_S)

        async def local_value() -> object:
            async with cluster.session.get(f"{url}?consistency=local") as response:
                return (await response.json()).get("value")

        # Ready is who knows a leader; what is committed, it learns with the leader's next message.
        await until(local_value, 10, f"{leader} applies what its log holds")

        await cluster.set_clock(leader, offset_ms=5_000)
        status = await cluster.status(leader, within_s=5)
        assert status
        assert status["clock"]["offset_ms"] >= 5_000


async def test_a_wiped_replica_recovers_before_it_takes_part(tmp_path: Path) -> None:
    """Viewstamped Replication §4.3 over real processes: the primary's disk is wiped, it recovers
    from the others, and then it can make up a quorum that still has every acknowledged write."""
    async with (
        LocalTestbed(tmp_path) as testbed,
        testbed.cluster(kv_cluster(5, protocol="viewstamped")) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        wiped = await written(cluster)
        await cluster.kill(wiped)
        await cluster.wipe(wiped)
        await cluster.start(wiped)
        await cluster.ready(READY_WITHIN_S)
        status = await cluster.status(wiped, within_s=5)
        assert status
        assert (status["role"], status["lives"]) == ("backup", {wiped: 1})

        others = [node for node in cluster.nodes if node != wiped]
        for node in others[:2]:
            await cluster.kill(node)

        async def value() -> object:
            for node in (wiped, *others[2:]):
                url = f"http://{cluster.address('c1', node)}/kv/x"
                async with cluster.session.get(url) as response:
                    if response.status == 200:
                        return (await response.json())["value"]
            return None

        assert await until(value, 10, "a linearizable read at the quorum that is left") == 1


def test_a_launch_is_cheap() -> None:
    """The launcher must not import what the zygote is to import in the meantime."""
    code = (
        "import sys, labs.harness.testbed.launcher;"
        "print([m for m in ('asyncio', 'aiohttp', 'msgspec', 'rich') if m in sys.modules])"
    )
    heavy = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert heavy.stdout.strip() == "[]"


async def test_a_causal_write_survives_the_kill_of_the_only_node_that_has_it(
    tmp_path: Path,
) -> None:
    """Acknowledged by n1 alone, which is killed at once: all three come back, and n3 is told."""
    async with (
        LocalTestbed(tmp_path) as testbed,
        testbed.cluster(kv_cluster(3, protocol="causal")) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        for node in ("n2", "n3"):
            await cluster.kill(node)
        async with cluster.session.put(
            f"http://{cluster.address('c1', 'n1')}/kv/x", json={"value": 1}
        ) as response:
            assert response.status == 200, await response.text()
            token = response.headers["Session-Token"]
        await cluster.kill("n1")
        for node in cluster.nodes:
            await cluster.start(node)
        await cluster.ready(READY_WITHIN_S)

        url = f"http://{cluster.address('c1', 'n3')}/kv/x"
        async with cluster.session.get(url, headers={"Session-Token": token}) as response:
            assert response.status == 200, await response.text()
            assert (await response.json())["value"] == 1
