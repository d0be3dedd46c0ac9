"""The simulation substrate: every node of a cluster in this process, in virtual time, by one seed.

    with asyncio.Runner(loop_factory=lambda: new_loop(seed)) as runner:
        runner.run(main())

    async def main():
        async with SimulatedTestbed(run_directory) as testbed:
            async with testbed.cluster(kv_cluster(protocol="raft")) as cluster:
                await cluster.ready()

The nodes are the shipped service, unmodified; so are the clients, workloads and the nemesis around
them. What is simulated is below them: the event loop with its time (loop.py), the network
(network.py, connection.py), the disk (disk.py), the process (process.py).
"""

from __future__ import annotations

import asyncio
import itertools
import random as global_random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

import aiohttp

from labs.harness.links.control import Link, Links
from labs.harness.testbed.cluster import Cluster
from labs.harness.testbed.description import ClusterSpec, NodeSpec, State
from labs.harness.testbed.errors import NodeExited, TestbedError
from labs.harness.testbed.simulation.disk import Disk
from labs.harness.testbed.simulation.loop import VirtualLoop
from labs.harness.testbed.simulation.network import LOOPBACK, Address, Network, SimulatedLinks
from labs.harness.testbed.simulation.process import Process, service
from labs.harness.testbed.simulation.scheduler import Simulation
from labs.harness.workloads.tracing import reseed

STOP_GRACE_S = 1.0
DATA = Path("/data")  # on the simulated disks; each node has one of its own


def new_loop(seed: int) -> VirtualLoop:
    """The loop of the harness in a new simulation; its `close` ends the whole simulation."""
    simulation = Simulation(seed)
    Network(simulation)
    return VirtualLoop(simulation, "harness")


class SimulatedTestbed:
    """Clusters of the simulation that the running loop belongs to."""

    substrate = "simulation"

    def __init__(self, run_directory: Path) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "a simulation runs on the loop of `new_loop`"
        self.run_directory = run_directory.absolute()
        self.simulation = loop.simulation
        self.starts = itertools.count(1)  # number the processes, as pids do
        self._chance_before = global_random.getstate()

    async def __aenter__(self) -> SimulatedTestbed:
        # What a library draws from the module's own generator (aiohttp shuffles waiters with it).
        global_random.seed(self.simulation.seed)
        reseed(self.simulation.seed)
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        global_random.setstate(self._chance_before)

    @asynccontextmanager
    async def cluster(
        self, spec: ClusterSpec, directory: Path | None = None
    ) -> AsyncIterator[SimulatedCluster]:
        """Start a cluster; its nodes run, but it may not be `ready()` yet.

        Raises TestbedError for a cluster with members: Redis and Kafka are not simulated.
        """
        if spec.members:
            names = ", ".join(member.name for member in spec.members)
            raise TestbedError(f"{names} can't be simulated: say ON=local or ON=compose")
        directory = (directory or self.run_directory / spec.name).absolute()
        cluster = SimulatedCluster(spec, self, directory)
        try:
            cluster.start_all()
            yield cluster
        finally:
            await cluster.stop()


class SimulatedCluster(Cluster):
    """See `Cluster`. `disks` are the nodes', by name; they go when the cluster stops."""

    substrate = "simulation"

    def __init__(self, spec: ClusterSpec, testbed: SimulatedTestbed, directory: Path) -> None:
        self.spec = spec
        self.directory = directory
        self.disks: dict[str, Disk] = {}
        self._testbed = testbed
        self._simulation = testbed.simulation
        self._specs = {node.name: node for node in spec.nodes}
        self._processes: dict[str, Process] = {}
        self._asked_to_end: set[str] = set()
        self._direct: dict[str, Address] = {}
        self._links: SimulatedLinks
        self._session: aiohttp.ClientSession | None = None
        self._stopped = False

    # --- where things are

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    @property
    def link_control(self) -> Links:
        return self._links

    def address(self, client: str, node: str) -> str:
        return self._links.address(Link(client, node))

    def direct_address(self, node: str) -> str:
        assert node in self._specs, f"{node} is none of {', '.join(self.nodes)}"
        host, port = self._direct[node]
        return f"{host}:{port}"

    def member_flavour(self, member: str) -> str:
        raise KeyError(member)

    def logs(self, node: str) -> Path:
        return self.directory / f"{node}.log"

    def telemetry(self, node: str) -> Path:
        return self.directory / f"{node}.events.jsonl"

    # --- processes

    def state(self, node: str) -> State:
        assert node in self._specs, f"{node} is none of {', '.join(self.nodes)}"
        process = self._processes.get(node)
        return process.state if process else "stopped"

    def check(self) -> None:
        for name, process in self._processes.items():
            if process.state == "stopped" and name not in self._asked_to_end:
                raise NodeExited(name, process.exit_code, process.last_lines())

    async def kill(self, node: str) -> None:
        self._asked_to_end.add(node)
        if self.state(node) != "stopped":
            self._processes[node].kill()
        await asyncio.sleep(0)

    async def start(self, node: str) -> None:
        if self.state(node) != "stopped":
            raise TestbedError(f"{node} is {self.state(node)}: it can't be started")
        self._start(node)
        await asyncio.sleep(0)

    async def stop_node(self, node: str, grace_s: float = 2.0) -> None:
        self._asked_to_end.add(node)
        process = self._processes.get(node)
        if process is None or process.state == "stopped":
            return
        if process.state == "paused":
            process.kill()  # it could not hear anything else
            return
        ended = asyncio.Event()
        process.on_end(ended.set)
        process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await ended.wait()
        except TimeoutError:
            process.kill()

    async def pause(self, node: str) -> None:
        self._living(node, "paused").loop.pause()

    async def resume(self, node: str) -> None:
        self._living(node, "running").loop.resume()

    async def wipe(self, node: str) -> None:
        if self.state(node) != "stopped":
            raise TestbedError(f"{node} is {self.state(node)}: stop it before its data is wiped")
        self.disks[node].wipe()

    def lose_unfsynced_writes(self, node: str) -> None:
        """At its next kill, the node's machine loses its power: what was not synchronized goes."""
        self.disks[node].lose_unfsynced_writes = True

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        await asyncio.gather(*(self.stop_node(node, STOP_GRACE_S) for node in self._processes))
        if self._session is not None:
            await self._session.close()
        await self._links.close(links=True)
        self.disks.clear()

    # --- how it is done

    def start_all(self) -> None:
        """Links first, then the nodes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        network = self._simulation.network
        for node in self.nodes:
            self._direct[node] = (LOOPBACK, network.next_port())
            self.disks[node] = Disk(self._simulation.random(f"disk of {node}"))
        targets = {link: self._direct[link.dst] for link in self.links}
        self._links = SimulatedLinks(network, targets)
        for node in self.nodes:
            self._start(node)

    def _start(self, node: str) -> None:
        spec = self._specs[node]
        number = next(self._testbed.starts)
        process = Process(self._simulation, node, number, self.disks[node], self.logs(node))
        self._processes[node] = process
        self._asked_to_end.discard(node)
        process.start(service(spec.module), self._environment(spec))

    def _environment(self, node: NodeSpec) -> dict[str, str]:
        """The node's own settings, and what only the testbed knows."""
        peers = self.spec.peers_of(node.name)
        given = {
            "NODE": node.name,
            "LISTEN": self.direct_address(node.name),
            "PEERS": ",".join(f"{peer}={self.address(node.name, peer)}" for peer in peers),
            "DATA_DIR": str(DATA),
            "TELEMETRY": str(self.telemetry(node.name)),
            "SEED": str(self._simulation.seed),
        }
        settings = {f"{node.prefix}_{key}": value for key, value in given.items()}
        return settings | dict(node.environment)

    def _living(self, node: str, wanted: State) -> Process:
        if self.state(node) == "stopped":
            raise TestbedError(f"{node} is stopped: it can't be {wanted}")
        return self._processes[node]
