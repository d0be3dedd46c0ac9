"""The Compose substrate: the contract, on both planes and both ways to reach a container."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.links.control import Link, LinkFault, LinksError
from labs.harness.testbed import compose_owners
from labs.harness.testbed.cluster import Cluster
from labs.harness.testbed.compose import ComposeTestbed
from labs.harness.testbed.compose_project import Plane
from tests.compose.engine import TESTS_MOUNT, left_in_engine, require_engine
from tests.harness.testbed.contract import READY_WITHIN_S, SubstrateContract, get, hangs_up
from tests.harness.testbed.members import a_nemesis

pytestmark = pytest.mark.compose


class TestCompose(SubstrateContract):
    """Containers are dialled by their own addresses, if they can be reached by them."""

    published: bool | None = None
    plane: Plane = "proxies"

    @pytest.fixture
    async def testbed(self, tmp_path: Path) -> AsyncIterator[ComposeTestbed]:
        testbed = ComposeTestbed(
            tmp_path,
            require_engine(),
            mounts=TESTS_MOUNT,
            published=self.published,
            plane=self.plane,
        )
        async with testbed:
            self.label = f"{compose_owners.RUN}={testbed.run}"
            yield testbed
        assert not left_in_engine(self.label)

    async def check_nothing_is_left(self, addresses: list[str]) -> None:
        """The addresses went with the network; the engine knows what is left."""
        assert not left_in_engine(self.label)


class LinksAndFaults(TestCompose):
    """Of the contract what depends on how links are made and dialled; the rest is the engine's."""

    __test__ = False
    test_a_polite_stop_lets_the_node_finish = None
    test_wipe_refuses_while_the_node_lives = None
    test_impossible_changes_are_refused = None
    test_statuses_and_primaries_are_the_nodes_own_words = None
    test_one_nodes_clock_is_set = None
    test_a_node_that_ends_by_itself_is_told = None
    test_clusters_one_after_another_do_not_mix = None


class TestComposePublished(LinksAndFaults):
    """As on Docker Desktop: through ports published on 127.0.0.1, whose relay accepts first."""

    __test__ = True
    published = True

    async def refuses(self, address: str) -> bool:
        return await hangs_up(address)

    async def test_every_fault_is_felt(self, cluster: Cluster, tmp_path: Path) -> None:
        """Refused and reset are seen as what the relay makes of them: a connection that ends."""
        link = ("c1", "n1")
        with a_nemesis(cluster, tmp_path) as nemesis:
            for planned in (
                nemesis.blackhole(link),
                nemesis.refuse(link),
                nemesis.reset(link),
                nemesis.kill("n1"),
                nemesis.pause("n1"),
            ):
                async with planned as fault:
                    assert await fault.felt(), fault.record
                assert fault.record.felt, fault.record
                assert fault.record.recovered, fault.record


class TestComposePackets(LinksAndFaults):
    """`FAULTS=packets`: no proxy between nodes, rules of nftables cut their links."""

    __test__ = True
    plane: Plane = "packets"

    async def test_a_node_is_told_its_place(self, cluster: Cluster) -> None:
        """A node dials its peers themselves; what it sends, its own namespace cuts."""
        told = await get(cluster, cluster.direct_address("n1"), "/environ")
        peers = dict(peer.split("=") for peer in told["ECHO_PEERS"].split(","))
        assert peers == {node: cluster.direct_address(node) for node in ("n2", "n3")}

        await cluster.link_control.set({Link("n1", "n2"): LinkFault("blackhole")})
        with pytest.raises(TimeoutError):
            await get(cluster, cluster.address("n1", "n2"), within_s=0.5)
        assert (await get(cluster, cluster.address("n1", "n3")))["node"] == "n3"

    async def test_a_cut_survives_kill_and_start(self, cluster: Cluster) -> None:
        """The rules are in a namespace that outlives the node, at both ends of a link."""
        await cluster.link_control.set({Link("n1", "n2"): LinkFault("blackhole")})
        for node in ("n1", "n2"):
            await cluster.kill(node)
            await cluster.start(node)
            await cluster.ready(READY_WITHIN_S)
            with pytest.raises(TimeoutError):
                await get(cluster, cluster.address("n1", "n2"), within_s=0.5)
            assert (await get(cluster, cluster.address("n2", "n1")))["node"] == "n1"

        await cluster.link_control.set({Link("n1", "n2"): None})
        assert (await get(cluster, cluster.address("n1", "n2")))["node"] == "n2"

    async def test_every_fault_that_packets_allow_is_felt(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        """The nemesis sees each bite where it should, nowhere else, and end with the heal."""
        link = ("c1", "n1")
        with a_nemesis(cluster, tmp_path) as nemesis:
            for planned in (
                nemesis.blackhole(link),
                nemesis.drop(link, stream="response"),
                nemesis.refuse(link),
                nemesis.reset(link),
                nemesis.partition([["n1"], ["n2", "n3"]], clients={"c1": "n1"}),
            ):
                async with planned as fault:
                    assert await fault.felt(), fault.record
                assert fault.record.felt, fault.record
                assert fault.record.recovered, fault.record

    async def test_what_packets_do_not_allow_is_refused(self, cluster: Cluster) -> None:
        """Delay needs netem, which many kernels lack: refused, not pretended."""
        fault = LinkFault("delay", time_ms=10)
        with pytest.raises(LinksError, match="delay can"):
            await cluster.link_control.set({Link("c1", "n1"): fault})
