"""The Compose substrate: a container per node, members in their images, behind one interface.

    async with ComposeTestbed(run_directory, compose_engine.find()) as testbed:
        async with testbed.cluster(kv_cluster(protocol="raft")) as cluster:
            await cluster.ready()

`compose_project.py` says what a cluster is made of, `compose_containers.py` what state that is in.
`docker compose` brings it up and down; faults go straight to the engine, which is twice as fast.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType

import aiohttp

from labs.harness.links.control import LinkControl
from labs.harness.testbed import (
    compose_command,
    compose_images,
    compose_owners,
    compose_reaper,
    compose_slots,
)
from labs.harness.testbed.cluster import Cluster, TestbedError
from labs.harness.testbed.compose_containers import NO_LOG, Containers
from labs.harness.testbed.compose_engine import Engine
from labs.harness.testbed.compose_links import OpenLinks
from labs.harness.testbed.compose_project import (
    Images,
    Layout,
    Place,
    Plane,
    app,
    as_text,
    volume,
)
from labs.harness.testbed.description import ClusterSpec, State
from labs.harness.testbed.members import KINDS

STOP_GRACE_S = 1.0
PLACES_TRIED = 10


class ComposeTestbed:
    """One run's place in the engine, and the clusters that are started there.

    Args:
        run_directory: gets `<cluster>/<node>.log`, `<node>.events.jsonl`, `compose.json`.
        engine: one that answers.
        plane: "proxies", or "packets" (Linux only).
        mounts: directories of this machine that the nodes see, read-only (for tests).
        overlap: a cluster is stopped and removed while the next one comes up, and at the latest
            when the testbed is left: two seconds less for each variant of a lab. Who works with a
            cluster has the machine to himself nevertheless.
        published: dial published ports although the engine's networks can be reached (for tests).
    """

    substrate = "compose"

    def __init__(
        self,
        run_directory: Path,
        engine: Engine,
        *,
        plane: Plane = "proxies",
        mounts: Mapping[Path, str] | None = None,
        published: bool | None = None,
        overlap: bool = False,
    ) -> None:
        self.run_directory = run_directory.absolute()
        self.run = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.plane: Plane = plane
        self.mounts = dict(mounts or {})
        self.published = not engine.routed if published is None else published
        self.labels = compose_owners.labels(self.run)
        self._reaper: subprocess.Popen[bytes]
        self._numbers = itertools.count(1)
        self._refused_slots: set[int] = set()
        self.overlap = overlap
        self._ending: list[asyncio.Task[None]] = []  # clusters that nobody uses any more
        self.left_over: set[str] = set()  # projects of which something may still be there

    async def __aenter__(self) -> ComposeTestbed:
        self._reaper = compose_reaper.start(self.run)
        try:
            await asyncio.to_thread(compose_owners.sweep)
        except BaseException:
            compose_reaper.release(self._reaper, all_removed=True)
            raise
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            await self._ended()
        except TestbedError as error:
            # Every cluster had its say, and the verdict is as good as it was.
            sys.stderr.write(f"{error}\n")
        finally:
            compose_reaper.release(self._reaper, all_removed=not self.left_over)

    async def _ended(self) -> None:
        """Wait for the end of what nobody uses any more. Raises TestbedError."""
        ending, self._ending = self._ending, []
        for result in await asyncio.gather(*ending, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    @asynccontextmanager
    async def cluster(
        self, spec: ClusterSpec, directory: Path | None = None
    ) -> AsyncIterator[ComposeCluster]:
        """Start a cluster; its containers run, but it may not be `ready()` yet.

        `directory` (default: `<run directory>/<cluster's name>`) is where logs and telemetry go.
        Raises TestbedError when an image can't be had, or a cluster can't be removed.
        """
        kinds = [member.kind for member in spec.members]
        packets = self.plane == "packets"
        try:
            images = await asyncio.to_thread(compose_images.prepare, kinds, packets=packets)
        except compose_images.NoImages as error:
            raise TestbedError(str(error)) from error
        project = f"faultline-{self.run}-{next(self._numbers)}"
        directory = (directory or self.run_directory / spec.name).absolute()
        cluster = ComposeCluster(self, spec, project, images, directory)
        try:
            await cluster.start_all(self._refused_slots)
            await self._ended()
            yield cluster
        finally:
            self._ending.append(asyncio.create_task(cluster.stop(), name=f"stop {spec.name}"))
            if not self.overlap:
                await self._ended()


class ComposeCluster(Cluster):
    """See `Cluster`."""

    substrate = "compose"
    layout: Layout

    def __init__(
        self,
        testbed: ComposeTestbed,
        spec: ClusterSpec,
        project: str,
        images: Images,
        directory: Path,
    ) -> None:
        self.spec = spec
        self.directory = directory
        self.project = project
        self._testbed = testbed
        self._images = images
        self._slot = ExitStack()
        self._stopped = False
        self._session: aiohttp.ClientSession | None = None
        self._links: OpenLinks | None = None
        self._flavours: dict[str, str] = {}
        self._apps = {name: app(name) for name in (*self.nodes, *self.members)}
        self._names = {service: name for name, service in self._apps.items()}
        self._containers: Containers

    @property
    def relayed(self) -> bool:
        return self._testbed.published

    # --- where things are

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    @property
    def link_control(self) -> LinkControl:
        assert self._links is not None, "the cluster was started"
        return self._links.control

    def address(self, client: str, node: str) -> str:
        return self.layout.outside(client, node)

    def direct_address(self, node: str) -> str:
        self._service(node)
        return self.layout.direct(node)

    def member_flavour(self, member: str) -> str:
        return self._flavours[member]

    def logs(self, node: str) -> Path:
        return self.directory / f"{node}.log"

    def telemetry(self, node: str) -> Path:
        return self.directory / f"{node}.events.jsonl"

    # --- processes

    def state(self, node: str) -> State:
        return self._containers.state(self._service(node))

    def check(self) -> None:
        self._containers.check(self._names)

    async def kill(self, node: str) -> None:
        await self._containers.end(self._service(node), "SIGKILL", 10.0)

    async def stop_node(self, node: str, grace_s: float = 2.0) -> None:
        await self._containers.end(self._service(node), "SIGTERM", grace_s)

    async def start(self, node: str) -> None:
        self._require(node, "stopped", "it can't be started")
        await self._containers.start(self._service(node))

    async def pause(self, node: str) -> None:
        if self.state(node) == "stopped":
            raise TestbedError(f"{node} is stopped: it can't be paused")
        if self.state(node) == "running":
            await self._containers.pause(self._service(node))

    async def resume(self, node: str) -> None:
        if self.state(node) == "stopped":
            raise TestbedError(f"{node} is stopped: it can't be running")
        if self.state(node) == "paused":
            await self._containers.resume(self._service(node))

    async def wipe(self, node: str) -> None:
        self._require(node, "stopped", "stop it before its data is wiped")
        await self._containers.run_once(
            self._images.service,
            ["find", "/data", "-mindepth", "1", "-delete"],
            f"{self.project}_{volume(node)}",
            self._testbed.labels,
        )

    async def ready(self, within_s: float = 10.0, nodes: Iterable[str] | None = None) -> None:
        await super().ready(within_s, nodes)
        await self._containers.save_logs()

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        try:
            await self._end_all()
        finally:
            if self._links:
                await self._links.close()
            if self._session:
                await self._session.close()
            await self._take_down()
            self._slot.close()

    # --- how it is done

    def _service(self, name: str) -> str:
        known = ", ".join(self._apps)
        assert name in self._apps, f"{name} is none of {known}"
        return self._apps[name]

    def _require(self, name: str, wanted: State, otherwise: str) -> None:
        if self.state(name) != wanted:
            raise TestbedError(f"{name} is {self.state(name)}: {otherwise}")

    async def start_all(self, refused: set[int]) -> None:
        """Find a place, bring all of it up there, and open the links.

        `refused`: slots that the engine did not accept; more may be added.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            # Made here and by this user; the container writes to it as a user of its own.
            self.telemetry(node).touch()
            self.telemetry(node).chmod(0o666)
        for _ in range(PLACES_TRIED):
            slot, place = self._slot.enter_context(
                compose_slots.reserve(refused, published=self._testbed.published)
            )
            try:
                await self._bring_up(place)
                break
            except compose_command.PlaceTaken:
                refused.add(slot)
                await self._take_down()
                self._slot.close()
        else:
            raise TestbedError(f"the Docker engine refused {PLACES_TRIED} networks, one by one")
        await self._containers.find()
        self._links = OpenLinks(self.layout, self._containers, self.check)
        _, self._flavours = await asyncio.gather(self._links.open(), self._learn_flavours())

    async def _bring_up(self, place: Place) -> None:
        self.layout = Layout(self.spec, place, self._testbed.plane)
        telemetry = {node: self.telemetry(node) for node in self.nodes}
        project = self.layout.project(
            self.project, self._images, self._testbed.labels, telemetry, self._testbed.mounts,
            self._write_files(),
        )  # fmt: skip
        (self.directory / "compose.json").write_text(as_text(project))
        logs = dict.fromkeys(project["services"], NO_LOG)
        logs |= {service: self.logs(name) for name, service in self._apps.items()}
        logs |= {relay: self.directory / f"{relay}.log" for relay in self.layout.relays
                 if relay not in self.nodes}  # fmt: skip
        self._containers = Containers(self.project, logs)
        await self._containers.watch()
        self._testbed.left_over.add(self.project)
        await compose_command.up(self.project, self.directory / "compose.json")

    def _write_files(self) -> dict[str, Path]:
        """The directories of the members that read files, each with its files as they now are."""
        directories = {}
        for member in self.spec.members:
            if files := KINDS[member.kind].files(member, self.layout):
                directory = directories[member.name] = self.directory / f"{member.name}.files"
                directory.mkdir(exist_ok=True)
                directory.chmod(0o755)  # the container reads them as a user of its own
                for name, text in files.items():
                    (directory / name).write_text(text)
                    (directory / name).chmod(0o644)
        return directories

    async def _learn_flavours(self) -> dict[str, str]:
        """Ask each member's own files what they are: a tag says little, a stand-in's nothing."""
        found = {}
        for member in self.spec.members:
            image = self._images.members[member.kind]
            command, pattern, make = KINDS[member.kind].version
            said = await self._containers.execute(app(member.name), command)
            version = re.search(pattern, said)
            found[member.name] = f"{make} {version[1] if version else '?'} (image {image})"
        return found

    async def _end_all(self) -> None:
        """SIGTERM first: a node may have telemetry to write out. A member has nothing we keep."""
        if not hasattr(self, "_containers") or self._containers.lost:
            return
        ends = [
            self._containers.end(service, "SIGTERM" if name in self.nodes else "SIGKILL",
                                 STOP_GRACE_S)
            for name, service in self._apps.items()
        ]  # fmt: skip
        await asyncio.gather(*ends, return_exceptions=True)
        await self._containers.save_logs()

    async def _take_down(self) -> None:
        """Remove containers, network and volumes, and make sure of it. Raises TestbedError."""
        lost = None
        if hasattr(self, "_containers"):
            lost = self._containers.lost
            await self._containers.close()
        file = self.directory / "compose.json"
        try:
            try:
                if file.exists():
                    await compose_command.down(self.project, file)
            finally:
                await asyncio.to_thread(compose_command.remove_left_overs, self.project)
        except TestbedError as error:
            if lost is None:
                raise
            raise TestbedError(
                f"{lost}; what it has left of this run, the next one or make clean removes"
            ) from error
        self._testbed.left_over.discard(self.project)
