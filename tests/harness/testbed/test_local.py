"""The local substrate: the contract, and what is true of local processes alone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed import launcher
from labs.harness.testbed.cluster import Cluster, NodeExited, TestbedError, ZygoteDied, until
from labs.harness.testbed.description import ClusterSpec, NodeSpec, kv_cluster
from labs.harness.testbed.local import LocalTestbed
from labs.harness.testbed.registry import identify
from tests.harness.testbed.contract import (
    ECHO,
    READY_WITHIN_S,
    SubstrateContract,
    echo_cluster,
    get,
    refuses,
)

MODULES = ("labs.harness.links", ECHO)
WITHOUT_PDEATHSIG = "tests.harness.testbed.without_pdeathsig"


class TestLocal(SubstrateContract):
    @pytest.fixture
    async def testbed(self, tmp_path: Path) -> AsyncIterator[LocalTestbed]:
        async with LocalTestbed(tmp_path, modules=MODULES) as testbed:
            yield testbed


async def pids_of(cluster: Cluster) -> list[int]:
    statuses = await cluster.statuses(within_s=5)
    return [said["pid"] for said in statuses.values() if said]


def alive(pids: list[int]) -> list[int]:
    return list(identify(pids))


async def test_a_zygote_launched_early_is_taken_over(tmp_path: Path) -> None:
    """A run launches its zygote before its own imports; the testbed uses that one."""
    launched = launcher.launch(tmp_path, MODULES)
    async with (
        LocalTestbed(tmp_path, launched=launched) as testbed,
        testbed.cluster(echo_cluster(1)) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        assert launched.directory.exists()

    assert launched.process.returncode is not None
    assert not launched.directory.exists()


async def test_two_testbeds_side_by_side(tmp_path: Path) -> None:
    """Two runs at the same time do not disturb each other, nor does one's end the other."""
    async with (
        LocalTestbed(tmp_path / "a", modules=MODULES) as a,
        a.cluster(echo_cluster()) as cluster_a,
    ):
        await cluster_a.ready(READY_WITHIN_S)
        async with (
            LocalTestbed(tmp_path / "b", modules=MODULES) as b,
            b.cluster(echo_cluster()) as cluster_b,
        ):
            await cluster_b.ready(READY_WITHIN_S)
            used = {c.direct_address(n) for c in (cluster_a, cluster_b) for n in c.nodes}
            assert len(used) == 6
            await cluster_b.kill("n1")
            await cluster_a.ready(READY_WITHIN_S)
        await cluster_a.ready(READY_WITHIN_S)
        assert await get(cluster_a, cluster_a.address("c1", "n1"))


@pytest.mark.parametrize("modules", [MODULES, (*MODULES, WITHOUT_PDEATHSIG)], ids=["linux", "any"])
async def test_the_zygotes_death_takes_the_nodes_and_is_told(
    tmp_path: Path, modules: tuple[str, ...]
) -> None:
    """Without its zygote a run has no reaper: its nodes go at once, and the run fails clearly."""
    testbed = LocalTestbed(tmp_path, modules=modules)
    with pytest.raises(ZygoteDied, match="this run can't go on"):  # noqa: PT012 - its __aexit__
        async with testbed, testbed.cluster(echo_cluster()) as cluster:
            await cluster.ready(READY_WITHIN_S)
            pids = await pids_of(cluster)
            assert len(alive(pids)) == 3
            await cluster.pause("n1")
            os.kill(testbed.spawner.launched.process.pid, signal.SIGKILL)

            await until(lambda: not alive(pids), 5, "the nodes are gone")
            await until(lambda: cluster.state("n1") == "stopped", 5, "the runner knows")
            with pytest.raises(ZygoteDied):
                await cluster.start("n1")
            with pytest.raises(ZygoteDied):
                await cluster.ready(READY_WITHIN_S)
            assert await refuses(cluster.direct_address("n1"))

    assert not testbed.spawner.launched.directory.exists()


async def test_who_waits_for_an_answer_that_nobody_reads_is_told(tmp_path: Path) -> None:
    """Every task is cancelled, also the one that listens to the zygote: the run is killed at once,
    and nobody waits 20 s for each of its answers to end the nodes in good order."""
    testbed = LocalTestbed(tmp_path, modules=MODULES)
    with pytest.raises(ZygoteDied, match="nobody listens to it"):  # noqa: PT012 - its __aexit__
        async with testbed, testbed.cluster(echo_cluster()) as cluster:
            await cluster.ready(READY_WITHIN_S)
            pids = await pids_of(cluster)
            testbed.spawner._reading.cancel()
            with pytest.raises(ZygoteDied):
                await cluster.kill("n1")
            assert not alive(pids)
            assert {cluster.state(node) for node in cluster.nodes} == {"stopped"}

    assert not testbed.spawner.launched.directory.exists()


async def test_a_killed_node_is_told_with_its_signal(tmp_path: Path) -> None:
    """A node that something else kills is not taken for one that the nemesis killed."""
    async with (
        LocalTestbed(tmp_path, modules=MODULES) as testbed,
        testbed.cluster(echo_cluster()) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        status = await cluster.status("n1", within_s=5)
        assert status
        os.kill(status["pid"], signal.SIGKILL)
        await until(lambda: cluster.state("n1") == "stopped", 5, "n1 is dead")

        with pytest.raises(NodeExited, match="exit code -9"):
            await cluster.ready(READY_WITHIN_S)


async def test_a_pause_from_outside_is_seen(tmp_path: Path) -> None:
    """`state` is the operating system's word, not a note of what the harness has done."""
    async with (
        LocalTestbed(tmp_path, modules=MODULES) as testbed,
        testbed.cluster(echo_cluster(1)) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        status = await cluster.status("n1", within_s=5)
        assert status
        os.kill(status["pid"], signal.SIGSTOP)
        await until(lambda: cluster.state("n1") == "paused", 5, "n1 is paused")
        os.kill(status["pid"], signal.SIGCONT)
        await until(lambda: cluster.state("n1") == "running", 5, "n1 goes on")


async def test_dead_link_proxies_are_told(tmp_path: Path) -> None:
    """Without its proxies a cluster's links are all cut: an experiment of its own, not a node's."""
    async with (
        LocalTestbed(tmp_path, modules=MODULES) as testbed,
        testbed.cluster(echo_cluster(1)) as cluster,
    ):
        await cluster.ready(READY_WITHIN_S)
        await cluster.kill("n1")
        os.kill(cluster._processes["links"].pid, signal.SIGKILL)

        with pytest.raises(NodeExited, match="links ended by itself"):
            await until(cluster.check, 5, "the proxies' end is noticed")


async def test_a_missing_service_is_told(tmp_path: Path) -> None:
    """A module that can't be imported does not stop the zygote; its own process says why."""
    spec = ClusterSpec("none", (NodeSpec("n1", "services.no_such_service"),))
    async with LocalTestbed(tmp_path, modules=(*MODULES, "services.no_such_service")) as testbed:
        with pytest.raises(NodeExited, match="ModuleNotFoundError"):
            async with testbed.cluster(spec) as cluster:
                await cluster.ready(READY_WITHIN_S)
        async with testbed.cluster(echo_cluster(1)) as cluster:
            await cluster.ready(READY_WITHIN_S)


async def test_an_error_in_a_lab_stops_the_cluster(tmp_path: Path) -> None:
    """The scope's own error comes out, and nothing is left behind it."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what the scope lets out
        async with (
            LocalTestbed(tmp_path, modules=MODULES) as testbed,
            testbed.cluster(echo_cluster()) as cluster,
        ):
            await cluster.ready(READY_WITHIN_S)
            statuses = await cluster.statuses(within_s=5)
            await cluster.pause("n1")
            raise ZeroDivisionError

    assert not alive([said["pid"] for said in statuses.values() if said])
    assert not testbed.spawner.launched.directory.exists()


async def test_cancelled_in_the_middle_of_a_start(tmp_path: Path) -> None:
    """A start that is cancelled at any await leaves nothing behind."""
    async with LocalTestbed(tmp_path, modules=MODULES) as testbed:
        await testbed.spawner.warm.wait()

        async def start() -> None:
            async with testbed.cluster(echo_cluster()) as cluster:
                await cluster.ready(READY_WITHIN_S)
                raise TestbedError("not meant to come this far")

        for turns in (1, 2, 3, 5, 8, 13, 21, 34):
            task = asyncio.create_task(start())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: not testbed.spawner._processes, 5, "no process is left")
        assert not list(testbed.spawner.launched.directory.iterdir())


def test_a_description_names_its_links() -> None:
    """Every (n_i, n_j), every (client, node)."""
    spec = kv_cluster(5, protocol="raft", environment={"KV_TICK_MS": "10"})

    assert spec.node_names == ("n1", "n2", "n3", "n4", "n5")
    assert len(spec.links) == 5 * 4 + 2 * 5
    assert ("n1", "n2") in spec.links
    assert ("c2", "n5") in spec.links
    assert spec.nodes[0].module == "services.kv"
    assert spec.nodes[0].prefix == "KV"
    assert spec.nodes[0].environment["KV_TICK_MS"] == "10"
    assert spec.nodes[0].environment["KV_PROTOCOL"] == "raft"


@pytest.mark.parametrize(
    ("nodes", "clients"), [((), ()), (("n1", "n1"), ()), (("n1",), ("n1",))], ids=str
)
def test_a_description_that_makes_no_sense_is_refused(
    nodes: tuple[str, ...], clients: tuple[str, ...]
) -> None:
    """Names are how faults are aimed: each may stand for one thing only."""
    with pytest.raises(ValueError, match="cluster 'x'"):
        ClusterSpec("x", tuple(NodeSpec(name, "kv") for name in nodes), clients)
