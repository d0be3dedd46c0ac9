"""What every substrate must do: run the same tests against each implementation of `Cluster`.

A test module takes it over with a class of its own and a `testbed` fixture:

    class TestLocal(SubstrateContract):
        @pytest.fixture
        async def testbed(self, tmp_path): …
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from labs.harness.links.control import Link, LinkFault
from labs.harness.testbed.cluster import Cluster, NodeExited, TestbedError, TimedOut, until
from labs.harness.testbed.description import ClusterSpec, NodeSpec

ECHO = "tests.harness.testbed.echo"
READY_WITHIN_S = 20.0
AT_ONCE_S = 0.9  # a SYN that gets no answer is sent again after a second


def echo_cluster(nodes: int = 3, name: str = "echo", **environment: str) -> ClusterSpec:
    specs = tuple(NodeSpec(f"n{i}", ECHO, environment) for i in range(1, nodes + 1))
    return ClusterSpec(name, specs, ("c1", "c2"))


async def get(cluster: Cluster, address: str, path: str = "/status", within_s: float = 5) -> Any:
    timeout = aiohttp.ClientTimeout(total=within_s)
    async with cluster.session.get(f"http://{address}{path}", timeout=timeout) as response:
        return await response.json()


async def leads_alone(cluster: Cluster, node: str) -> bool:
    """One look; a node that does not answer it in time is none that leads."""
    return await cluster.primaries() == [node]


async def put(cluster: Cluster, node: str, value: Any) -> None:
    url = f"http://{cluster.direct_address(node)}/value"
    async with cluster.session.put(url, json=value) as response:
        assert response.status == 200


async def refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return True
    writer.transport.abort()
    return False


async def hangs_up(address: str, within_s: float = 1.0) -> bool:
    """As `refuses`, behind a relay of the substrate: it accepts first, then there is nobody."""
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return True
    try:
        async with asyncio.timeout(within_s):
            return await reader.read(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    finally:
        writer.transport.abort()


class SubstrateContract:
    """Subclass with a `testbed` fixture (an entered testbed).

    `refuses`: what a dead node's port does; `check_nothing_is_left` after a cluster's end.
    """

    async def refuses(self, address: str) -> bool:
        return await refuses(address)

    async def check_nothing_is_left(self, addresses: list[str]) -> None:
        assert all([await refuses(address) for address in addresses])

    @pytest.fixture
    async def cluster(self, testbed: Any) -> AsyncIterator[Cluster]:
        async with testbed.cluster(echo_cluster(ECHO_LEADER="n2")) as cluster:
            await cluster.ready(READY_WITHIN_S)
            yield cluster

    async def test_every_client_reaches_every_node_over_its_own_link(
        self, cluster: Cluster
    ) -> None:
        """Every directed link has an address of its own, and leads to its node."""
        addresses = [cluster.address(client, node) for client, node in cluster.links]
        addresses += [cluster.direct_address(node) for node in cluster.nodes]

        assert len(set(addresses)) == len(addresses)
        for source, node in cluster.links:
            assert (await get(cluster, cluster.address(source, node)))["node"] == node
        for node in cluster.nodes:
            assert (await get(cluster, cluster.direct_address(node)))["node"] == node
            assert cluster.state(node) == "running"

    async def test_a_node_is_told_its_place(self, cluster: Cluster) -> None:
        """A node dials its peers over its own links, never round them."""
        told = await get(cluster, cluster.direct_address("n1"), "/environ")

        assert told["ECHO_NODE"] == "n1"
        peers = dict(peer.split("=") for peer in told["ECHO_PEERS"].split(","))
        assert set(peers) == {"n2", "n3"}
        for peer, address in peers.items():
            assert (await get(cluster, address))["node"] == peer
        await cluster.link_control.set({Link("n1", "n2"): LinkFault("blackhole")})
        with pytest.raises(TimeoutError):
            await get(cluster, peers["n2"], within_s=0.2)

    async def test_a_node_that_dials_one_is_told_of_that_one(self, testbed: Any) -> None:
        """A chain: whom a node does not dial it has no link to, and it is not told of it."""
        front = NodeSpec("front", ECHO, dials=("back",))
        spec = ClusterSpec("chain", (front, NodeSpec("back", ECHO, dials=())), ("c1",))
        async with testbed.cluster(spec) as cluster:
            await cluster.ready(READY_WITHIN_S)
            told = {node: (await get(cluster, cluster.direct_address(node), "/environ"))
                    for node in cluster.nodes}  # fmt: skip

            assert {*cluster.links} == {("c1", "front"), ("c1", "back"), ("front", "back")}
            (dialled,) = told["front"]["ECHO_PEERS"].split(",")
            assert dialled.partition("=")[0] == "back"
            assert told["back"]["ECHO_PEERS"] == ""

    async def test_links_are_cut_one_by_one(self, cluster: Cluster) -> None:
        """A fault on c1 → n1 is felt there, and neither by c2 nor by the harness itself."""
        await cluster.link_control.set({Link("c1", "n1"): LinkFault("blackhole")})

        with pytest.raises(TimeoutError):
            await get(cluster, cluster.address("c1", "n1"), within_s=0.2)
        assert (await get(cluster, cluster.address("c2", "n1")))["node"] == "n1"
        assert await cluster.status("n1", within_s=5)

        await cluster.link_control.set({Link("c1", "n1"): None})
        assert (await get(cluster, cluster.address("c1", "n1")))["node"] == "n1"

    async def test_a_killed_node_refuses_at_once_and_returns_with_its_data(
        self, cluster: Cluster
    ) -> None:
        """FAULTS.md: kill: "SIGKILL; disk survives"; start is its inverse, on the same address."""
        await put(cluster, "n1", [1, 2])
        before = await cluster.status("n1", within_s=5)
        address, direct = cluster.address("c1", "n1"), cluster.direct_address("n1")

        await cluster.kill("n1")
        started = time.monotonic()
        assert await self.refuses(direct)
        assert time.monotonic() - started < AT_ONCE_S
        assert cluster.state("n1") == "stopped"
        assert await cluster.status("n1") is None
        with pytest.raises((aiohttp.ClientError, OSError)):
            await get(cluster, address)

        await cluster.start("n1")
        await cluster.ready(READY_WITHIN_S)
        assert await get(cluster, address, "/value") == [1, 2]
        assert (cluster.address("c1", "n1"), cluster.direct_address("n1")) == (address, direct)
        after = await cluster.status("n1", within_s=5)
        assert before
        assert after
        assert before["started"] < after["started"]
        assert cluster.logs("n1").read_text().count("n1 starts") == 2
        assert cluster.telemetry("n1").exists()

    async def test_a_stopped_nodes_port_is_nobody_elses(self, cluster: Cluster) -> None:
        """Ports stay a node's own over kill and start, while others ask for ports all the time."""
        taken: list[asyncio.Server] = []
        try:
            for _ in range(5):
                await cluster.kill("n3")
                for _ in range(50):
                    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
                    taken.append(server)
                    assert not cluster.direct_address("n3").endswith(
                        f":{server.sockets[0].getsockname()[1]}"
                    )
                await cluster.start("n3")
                await cluster.ready(READY_WITHIN_S, nodes=["n3"])
        finally:
            for server in taken:
                server.close()
                await server.wait_closed()

    async def test_a_paused_node_is_silent_and_goes_on(self, cluster: Cluster) -> None:
        """FAULTS.md: pause: "deadline expires"; the request took effect "perhaps later"."""
        await cluster.pause("n2")
        await cluster.pause("n2")  # no-op
        assert cluster.state("n2") == "paused"
        assert await cluster.status("n2", within_s=0.2) is None
        assert not await self.refuses(cluster.direct_address("n2"))
        assert await cluster.primaries() == []
        with pytest.raises(TimedOut, match=r"n2.*paused"):
            await cluster.ready(0.3)

        waiting = asyncio.create_task(put(cluster, "n2", "late"))
        await cluster.resume("n2")
        await cluster.resume("n2")  # no-op
        assert cluster.state("n2") == "running"
        await waiting
        assert await get(cluster, cluster.direct_address("n2"), "/value") == "late"

    async def test_a_paused_node_can_be_killed_and_stopped(self, cluster: Cluster) -> None:
        """SIGKILL ends a stopped process; a polite stop, which it can't hear, ends so at once."""
        for end in (cluster.kill, cluster.stop_node):
            await cluster.pause("n1")
            started = time.monotonic()
            await end("n1")
            assert time.monotonic() - started < 1.5
            assert cluster.state("n1") == "stopped"
            assert await self.refuses(cluster.direct_address("n1"))
            await cluster.start("n1")
            await cluster.ready(READY_WITHIN_S)

    async def test_a_polite_stop_lets_the_node_finish(self, cluster: Cluster) -> None:
        """FAULTS.md: stop: "SIGTERM, then SIGKILL after `grace_ms`"."""
        await cluster.stop_node("n1", grace_s=5)
        await cluster.stop_node("n1")  # no-op
        await cluster.kill("n1")  # no-op

        assert cluster.state("n1") == "stopped"
        assert "n1 stops" in cluster.logs("n1").read_text()

    async def test_wipe_refuses_while_the_node_lives(self, cluster: Cluster) -> None:
        """FAULTS.md: wipe: "after `kill`: data directory removed"."""
        await put(cluster, "n1", "precious")
        with pytest.raises(TestbedError, match="n1 is running"):
            await cluster.wipe("n1")
        await cluster.pause("n1")
        with pytest.raises(TestbedError, match="n1 is paused"):
            await cluster.wipe("n1")

        await cluster.kill("n1")
        await cluster.wipe("n1")
        await cluster.start("n1")
        await cluster.ready(READY_WITHIN_S)
        assert await get(cluster, cluster.direct_address("n1"), "/value") is None

    async def test_impossible_changes_are_refused(self, cluster: Cluster) -> None:
        """What can't be done is an error that names the node and its state."""
        with pytest.raises(TestbedError, match="n1 is running"):
            await cluster.start("n1")
        await cluster.kill("n1")
        with pytest.raises(TestbedError, match="n1 is stopped"):
            await cluster.pause("n1")
        with pytest.raises(TestbedError, match="n1 is stopped"):
            await cluster.resume("n1")

    async def test_statuses_and_primaries_are_the_nodes_own_words(self, cluster: Cluster) -> None:
        """`primaries`: "every node that believes it leads" (FAULTS.md)."""
        statuses = await cluster.statuses(within_s=5)

        assert {node: said and said["node"] for node, said in statuses.items()} == {
            node: node for node in cluster.nodes
        }
        await until(lambda: leads_alone(cluster, "n2"), 5, "n2 says that it leads")
        await cluster.kill("n2")
        assert await cluster.primaries() == []
        assert (await cluster.statuses())["n2"] is None

    async def test_one_nodes_clock_is_set(self, cluster: Cluster) -> None:
        """FAULTS.md: bump and drift act "on the *service's* clock"."""
        await cluster.set_clock("n1", offset_ms=250, rate=1.05)

        statuses = await cluster.statuses(within_s=5)
        clocks = {node: said["clock"] for node, said in statuses.items() if said}
        assert clocks["n1"] == {"offset_ms": 250, "rate": 1.05}
        assert clocks["n2"] == {"offset_ms": 0, "rate": 1.0}
        with pytest.raises(TestbedError, match="n1 refused the clock"):
            await cluster.set_clock("n1", rate=-1)
        await cluster.kill("n1")
        with pytest.raises(TestbedError, match="n1 did not take the clock"):
            await cluster.set_clock("n1")

    async def test_a_node_that_ends_by_itself_is_told(self, cluster: Cluster) -> None:
        """A crash that nobody ordered is never taken for a fault of the nemesis."""
        with pytest.raises(aiohttp.ClientError):
            await cluster.session.post(f"http://{cluster.direct_address('n3')}/exit?code=7")
        await until(lambda: cluster.state("n3") == "stopped", 5, "n3 has ended")

        with pytest.raises(NodeExited, match="n3 ended by itself with exit code 7"):
            await cluster.ready(READY_WITHIN_S)

        await cluster.start("n3")
        await cluster.ready(READY_WITHIN_S)
        cluster.check()

    async def test_a_bad_configuration_is_told_with_the_nodes_own_words(self, testbed: Any) -> None:
        """The error names the node, its exit code and the last lines of its log."""
        started = time.monotonic()
        with pytest.raises(NodeExited, match="must be host:port, got 'nonsense'") as told:
            async with testbed.cluster(echo_cluster(1, ECHO_FAIL="config")) as cluster:
                await cluster.ready(READY_WITHIN_S)

        assert time.monotonic() - started < READY_WITHIN_S / 2
        assert (told.value.node, told.value.exit_code) == ("n1", 2)

    async def test_after_the_end_logs_stay_and_nothing_listens(self, testbed: Any) -> None:
        """Stopping takes processes, ports and data; logs and telemetry stay."""
        async with testbed.cluster(echo_cluster()) as cluster:
            await cluster.ready(READY_WITHIN_S)
            await cluster.pause("n2")
            addresses = [cluster.address(client, node) for client, node in cluster.links]
            addresses += map(cluster.direct_address, cluster.nodes)
            environ = await get(cluster, cluster.direct_address("n1"), "/environ")

        await self.check_nothing_is_left(addresses)
        assert "n1 starts" in cluster.logs("n1").read_text()
        assert cluster.telemetry("n1").exists()
        assert json.dumps(environ)
        await cluster.stop()  # no-op

    async def test_clusters_one_after_another_do_not_mix(self, testbed: Any) -> None:
        """Each variant of a lab gets fresh nodes, whatever the one before did to its own."""
        for round_ in range(3):
            async with testbed.cluster(echo_cluster(name=f"round-{round_}")) as cluster:
                await cluster.ready(READY_WITHIN_S)
                assert await get(cluster, cluster.direct_address("n1"), "/value") is None
                await put(cluster, "n1", round_)
