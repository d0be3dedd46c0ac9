"""The local substrate: a process per node on this machine, forked from the run's warm zygote.

    async with LocalTestbed(run_directory) as testbed:
        async with testbed.cluster(kv_cluster(protocol="raft")) as cluster:
            await cluster.ready()

A cluster is started in this order: ports are reserved, the link proxies started and told every
link's target, then all nodes and members at once: so each node knows, before it runs, where it
listens and where its peers are, and what it dials is always a link.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

import aiohttp

from labs.harness.links.control import Link, Links
from labs.harness.testbed import (
    execute,
    launcher,
    registry,
)
from labs.harness.testbed.cluster import Cluster, NodeExited, TestbedError
from labs.harness.testbed.description import ClusterSpec, NodeSpec, State
from labs.harness.testbed.launcher import MODULES, Launched
from labs.harness.testbed.members import KINDS, kafka_advertiser
from labs.harness.testbed.ports import PortReservation
from labs.harness.testbed.spawner import Process, Spawner
from labs.harness.testbed.waiting import until

LINKS = "links"
LINKS_MODULE = "labs.harness.links.server"
EXECUTE_MODULE = execute.__name__
ADVERTISER_MODULE = kafka_advertiser.__name__
LINKS_READY_WITHIN_S = 10.0
ENDS_WITHIN_S = 5.0
STOP_GRACE_S = 1.0


class LocalTestbed:
    """One zygote, and the clusters that are started from it, usually one after another.

    `launched` is a zygote that was started earlier (`launcher.launch`), to save the time of its
    imports. `run_directory` gets `<cluster>/<node>.log` and `<cluster>/<node>.events.jsonl`.
    """

    substrate = "local"

    def __init__(
        self,
        run_directory: Path,
        *,
        modules: tuple[str, ...] = MODULES,
        launched: Launched | None = None,
    ) -> None:
        self.run_directory = run_directory.absolute()
        self._modules = modules
        self._launched = launched
        self._numbers = itertools.count(1)
        self.spawner: Spawner

    async def __aenter__(self) -> LocalTestbed:
        registry.sweep()
        launched = self._launched or launcher.launch(self.run_directory, self._modules)
        self.spawner = Spawner(launched)
        try:
            await self.spawner.connect()
        except BaseException:
            launched.abandon()
            raise
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.spawner.close()
        # A run that lost its zygote must not end as if nothing had been.
        if error is None and self.spawner.died:
            raise self.spawner.died

    @asynccontextmanager
    async def cluster(
        self, spec: ClusterSpec, directory: Path | None = None
    ) -> AsyncIterator[LocalCluster]:
        """Start a cluster; its processes run, but it may not be `ready()` yet.

        `directory` (default: `<run directory>/<cluster's name>`) is where logs and telemetry go.
        """
        spec = spec.without([
            member.name
            for member in spec.members
            if member.optional and not KINDS[member.kind].doctor().here
        ])
        number = next(self._numbers)
        data = self.spawner.launched.directory / f"{number}-{spec.name}"
        cluster = LocalCluster(
            spec, self.spawner, (directory or self.run_directory / spec.name).absolute(), data
        )
        try:
            await cluster.start_all()
            yield cluster
        finally:
            await cluster.stop()


class LocalCluster(Cluster):
    """See `Cluster`. `data` holds the data directories of all; it goes when the cluster stops.

    Raises TestbedError when this machine has no server for one of the members.
    """

    substrate = "local"

    def __init__(self, spec: ClusterSpec, spawner: Spawner, directory: Path, data: Path) -> None:
        self.spec = spec
        self.directory = directory
        self.data = data
        self._spawner = spawner
        self._ports = PortReservation()
        self._specs = {node.name: node for node in spec.nodes}
        self._members = {
            member.name: KINDS[member.kind].local(member, self._ports) for member in spec.members
        }
        self._processes: dict[str, Process] = {}
        self._asked_to_end: set[str] = set()
        self._addresses: dict[Link, str] = {}
        self._stopped = False
        self._session: aiohttp.ClientSession | None = None
        self._link_control: Links | None = None

    # --- where things are

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    @property
    def link_control(self) -> Links:
        assert self._link_control is not None, "the cluster was started"
        return self._link_control

    def address(self, client: str, node: str) -> str:
        return self._addresses[Link(client, node)]

    def direct_address(self, node: str) -> str:
        self._assert_known(node)
        return self._ports.reserve(node)

    def member_flavour(self, member: str) -> str:
        return self._members[member].flavour

    def logs(self, node: str) -> Path:
        return self.directory / f"{node}.log"

    def telemetry(self, node: str) -> Path:
        return self.directory / f"{node}.events.jsonl"

    # --- processes

    def state(self, node: str) -> State:
        self._assert_known(node)
        process = self._processes.get(node)
        return process.state if process else "stopped"

    def check(self) -> None:
        if self._spawner.died:
            raise self._spawner.died
        for name, process in self._processes.items():
            if process.state == "stopped" and name not in self._asked_to_end:
                raise NodeExited(name, process.exit_code, process.last_lines())

    async def kill(self, node: str) -> None:
        await self._end(node, signal.SIGKILL, ENDS_WITHIN_S)

    async def stop_node(self, node: str, grace_s: float = 2.0) -> None:
        await self._end(node, signal.SIGTERM, grace_s)

    async def start(self, node: str) -> None:
        if self.state(node) != "stopped":
            raise TestbedError(f"{node} is {self.state(node)}: it can't be started")
        await self._spawn(node)

    async def pause(self, node: str) -> None:
        await self._switch(node, signal.SIGSTOP, "paused")

    async def resume(self, node: str) -> None:
        await self._switch(node, signal.SIGCONT, "running")

    async def wipe(self, node: str) -> None:
        if self.state(node) != "stopped":
            raise TestbedError(f"{node} is {self.state(node)}: stop it before its data is wiped")
        data = self._data_directory(node)
        shutil.rmtree(data, ignore_errors=True)
        if data.exists():
            raise TestbedError(f"the data of {node}, {data}, can't be removed")

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        try:
            if not self._spawner.died:
                # Nodes first: who can't take leave of its broker any more is killed at the end of
                # its grace, and what it had to tell is lost.
                nodes = [name for name in self._processes if name in self.nodes]
                await asyncio.gather(*map(self._end_for_good, nodes))
                await asyncio.gather(*map(self._end_for_good, self._processes))
        finally:
            if self._link_control:
                await self._link_control.close()
            if self._session:
                await self._session.close()
            self._ports.close()
            shutil.rmtree(self.data, ignore_errors=True)

    # --- how it is done

    async def start_all(self) -> None:
        """Links first, then all at once: members, which take seconds, a little before the nodes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        await self._start_links()
        await asyncio.gather(
            *map(self._spawn, (*self.members, *self.nodes)), *map(self._start_helper, self.members)
        )

    async def _start_links(self) -> None:
        port_file = self._data_directory(LINKS) / "port"
        settings = {"LINKS_PORT_FILE": str(port_file)}
        await self._run(LINKS, LINKS_MODULE, settings, self.directory / f"{LINKS}.log")

        def listening() -> bool:
            self.check()
            return port_file.exists()

        await until(listening, LINKS_READY_WITHIN_S, "the link proxies listen")
        host, _, port = port_file.read_text().strip().rpartition(":")
        self._link_control = await Links.connect(host, int(port))
        targets = {link: self._target(link) for link in self.links}
        self._addresses = await self.link_control.open(targets)

    def _target(self, link: Link) -> str:
        """What the proxy of `link` leads to."""
        member = self._members.get(link.dst)
        return member.target(link) if member else self.direct_address(link.dst)

    async def _spawn(self, node: str) -> None:
        if node in self._members:
            await self._spawn_member(node)
            return
        spec = self._specs[node]
        await self._run(node, spec.module, self._environment(spec), self.logs(node))

    async def _spawn_member(self, name: str) -> None:
        data = self._data_directory(name)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            command = self._members[name].command(data, self._addresses)
        except (OSError, TestbedError) as error:
            raise TestbedError(f"{name} can't be prepared: {error}") from error
        await self._run(name, EXECUTE_MODULE, execute.environment(command), self.logs(name))

    async def _start_helper(self, name: str) -> None:
        settings = self._members[name].helper(self._addresses)
        if settings is None:
            return
        helper = f"{name}-advertiser"
        ready = self._data_directory(helper) / "ready"
        settings[kafka_advertiser.READY_FILE] = str(ready)
        await self._run(helper, ADVERTISER_MODULE, settings, self.logs(helper))

        # Not part of the member's readiness, which is asked round the links and so round this.
        def listening() -> bool:
            self.check()
            return ready.exists()

        await until(listening, LINKS_READY_WITHIN_S, f"{helper} listens")

    async def _run(self, name: str, module: str, environment: dict[str, str], log: Path) -> None:
        process = self._processes[name] = Process(name, log)
        self._asked_to_end.discard(name)
        directory = self._data_directory(name)
        await self._spawner.spawn(process, module, environment, directory=directory)

    def _environment(self, node: NodeSpec) -> dict[str, str]:
        """The node's own settings, and what only the testbed knows."""
        peers = {peer: self.address(node.name, peer) for peer in self.spec.peers_of(node.name)}
        given = {
            "NODE": node.name,
            "LISTEN": self.direct_address(node.name),
            "PEERS": ",".join(f"{peer}={address}" for peer, address in peers.items()),
            "DATA_DIR": str(self._data_directory(node.name)),
            "TELEMETRY": str(self.telemetry(node.name)),
        }
        settings = {f"{node.prefix}_{key}": value for key, value in given.items()}
        for name in self.spec.members_of(node.name):
            settings[self.spec.member(name).environment_key] = self.address(node.name, name)
        return settings | dict(node.environment)

    def _data_directory(self, node: str) -> Path:
        return self.data / node

    def _assert_known(self, name: str) -> None:
        known = (*self.nodes, *self.members)
        assert name in known, f"{name} is none of {', '.join(known)}"

    async def _end_for_good(self, name: str) -> None:
        """SIGTERM first: a node may have telemetry to write out. A member has nothing we keep."""
        how = signal.SIGKILL if name in self._members else signal.SIGTERM
        with contextlib.suppress(TestbedError, TimeoutError):  # the zygote ends what is left
            await self._end(name, how, STOP_GRACE_S)

    async def _end(self, name: str, how: signal.Signals, within_s: float) -> None:
        """Signal a process and wait for its end; what is left after `within_s` gets SIGKILL."""
        process = self._processes.get(name)
        if process is None or process.state == "stopped":
            self._asked_to_end.add(name)  # whatever ended it, from now on it is to be stopped
            return
        self._asked_to_end.add(name)
        if how != signal.SIGKILL and process.state == "paused":
            how, within_s = signal.SIGKILL, ENDS_WITHIN_S  # it could not hear anything else
        await self._spawner.signal(process, how)
        if await process.reach("stopped", within_s=within_s):
            return
        if how == signal.SIGKILL:
            raise TestbedError(f"{name} (pid {process.pid}) lives {within_s:g} s after SIGKILL")
        await self._end(name, signal.SIGKILL, ENDS_WITHIN_S)

    async def _switch(self, node: str, how: signal.Signals, wanted: State) -> None:
        state = self.state(node)
        if state == wanted:
            return
        if state == "stopped":
            raise TestbedError(f"{node} is stopped: it can't be {wanted}")
        process = self._processes[node]
        await self._spawner.signal(process, how)
        if not await process.reach(wanted, "stopped", within_s=ENDS_WITHIN_S):
            raise TestbedError(f"{node} (pid {process.pid}) is still {process.state}")
