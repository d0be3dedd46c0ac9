"""The Compose substrate: a container per node, members in their images, behind one interface.

    async with ComposeTestbed(run_directory, compose_engine.find()) as testbed:
        async with testbed.cluster(kv_cluster(protocol="raft")) as cluster:
            await cluster.ready()

`compose_project.py` says what a cluster is made of, `compose_ground.py` what that stands on,
`compose_containers.py` what state it is in. `docker compose` makes it; all else goes straight to
the engine, which is twice as fast.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from labs.harness.links.control import LinkControl
from labs.harness.testbed import compose_command, compose_images, compose_owners, compose_reaper
from labs.harness.testbed.cluster import Cluster, TestbedError
from labs.harness.testbed.compose_containers import Containers
from labs.harness.testbed.compose_engine import Engine
from labs.harness.testbed.compose_ground import Ground
from labs.harness.testbed.compose_links import OpenLinks
from labs.harness.testbed.compose_project import Images, Layout, Plane, app, as_text, volume
from labs.harness.testbed.description import ClusterSpec, State
from labs.harness.testbed.members import KINDS

STOP_GRACE_S = 1.0


class ComposeTestbed:
    """One run's place in the engine, and the clusters that are started there.

    Args:
        run_directory: gets `<cluster>/<node>.log`, `<node>.events.jsonl`, both Compose files.
        engine: one that answers.
        plane: "proxies", or "packets" (Linux only).
        mounts: directories of this machine that the nodes see, read-only (for tests).
        overlap: a cluster's network, pods and link proxies carry the next one, if that needs no
            more; its nodes end while those of the next one are created, at the latest when the
            testbed is left. Who works with a cluster has the machine to himself nevertheless.
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
        self.refused_slots: set[int] = set()
        self.overlap = overlap
        self._prepared: dict[frozenset[str], Images] = {}
        self._ground: Ground | None = None  # of the cluster before, for the next one
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
        if self._ground is not None:
            self._end(self.take_down(self._ground))
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
        images = await self._images(frozenset(member.kind for member in spec.members))
        project = f"faultline-{self.run}-{next(self._numbers)}"
        directory = (directory or self.run_directory / spec.name).absolute()
        ground = self._lend(spec, images)
        cluster = ComposeCluster(self, spec, project, images, directory, ground)
        try:
            await cluster.start_all()
            await self._ended()
            yield cluster
        finally:
            self._end(cluster.stop())
            if self.overlap and self._ground is None:
                self._ground = ground
            else:
                self._end(self.take_down(ground))
            if not self.overlap:
                await self._ended()

    async def _images(self, kinds: frozenset[str]) -> Images:
        """Looked for once: a run is about one state of the sources, also while they are edited."""
        if kinds not in self._prepared:
            prepare = partial(compose_images.prepare, kinds, packets=self.plane == "packets")
            try:
                self._prepared[kinds] = await asyncio.to_thread(prepare)
            except compose_images.NoImages as error:
                raise TestbedError(str(error)) from error
        return self._prepared[kinds]

    def _lend(self, spec: ClusterSpec, images: Images) -> Ground:
        """What the next cluster shall stand on; the one before may not have left it yet."""
        ground, self._ground = self._ground, None
        if ground is not None:
            if ground.carries(spec, images):
                return ground
            self._end(self.take_down(ground))
        project = f"faultline-{self.run}-ground-{next(self._numbers)}"
        self.left_over.add(project)
        return Ground(project, self.plane, self.labels, published=self.published)

    async def take_down(self, ground: Ground) -> None:
        await ground.down()
        self.left_over.discard(ground.project)

    def _end(self, ending: Coroutine[Any, Any, None]) -> None:
        self._ending.append(asyncio.create_task(ending))


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
        ground: Ground,
    ) -> None:
        self.spec = spec
        self.directory = directory
        self.project = project
        self._testbed = testbed
        self._images = images
        self._ground = ground
        self._created = self._stands = self._stopped = False
        self._session: aiohttp.ClientSession | None = None
        self._links: OpenLinks | None = None
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
        self._ground.containers.check({})
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
        await self._save_logs()

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        try:
            await self._end_all()
            if self._links:
                await self._links.close()
            if self._session:
                await self._session.close()
        finally:  # whatever went wrong: for the ground somebody waits
            if self._stands and all(self.state(each) == "stopped" for each in self._apps):
                self._leave()  # else only when nothing of this one is left
            await self._take_down()

    # --- how it is done

    def _service(self, name: str) -> str:
        assert name in self._apps, f"{name} is none of {', '.join(self._apps)}"
        return self._apps[name]

    def _require(self, name: str, wanted: State, otherwise: str) -> None:
        if self.state(name) != wanted:
            raise TestbedError(f"{name} is {self.state(name)}: {otherwise}")

    async def start_all(self) -> None:
        """Find a place, bring all of it up there, and open the links."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            # Made here and by this user; the container writes to it as a user of its own.
            self.telemetry(node).touch()
            self.telemetry(node).chmod(0o666)
        testbed, ground = self._testbed, self._ground
        await ground.up(self.spec, self._images, self.directory, testbed.refused_slots)
        self.layout = Layout(self.spec, ground.place, testbed.plane)
        await self._create()
        await ground.free.wait()  # only now: the cluster before may still be ending
        ground.free.clear()
        self._stands = True
        ground.log_to(self.directory, set(self.layout.relays) - set(self.nodes))
        self._links = OpenLinks(self.layout, ground.containers, self.check)
        await self._links.open()
        await self._containers.start_all()
        self._flavours = await self._learn_flavours()

    def _leave(self) -> None:
        if self._stands:
            self._stands = False
            self._ground.free.set()

    async def _create(self) -> None:
        """The containers of nodes and members, not started yet."""
        telemetry = {node: self.telemetry(node) for node in self.nodes}
        pods = {name: self._ground.containers.id(name) for name in self._apps}
        project = self.layout.project(
            self.project, self._images, self._testbed.labels, pods, telemetry,
            self._testbed.mounts, self._write_files(),
        )  # fmt: skip
        (self.directory / "compose.json").write_text(as_text(project))
        logs = {service: self.logs(name) for name, service in self._apps.items()}
        self._containers = Containers(self.project, logs)
        await self._containers.watch()
        self._testbed.left_over.add(self.project)
        await compose_command.create(self.project, self.directory / "compose.json")
        await self._containers.find()
        self._created = True

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
            self._containers.end(each, "SIGTERM" if name in self.nodes else "SIGKILL", STOP_GRACE_S)
            for name, each in self._apps.items()
        ]
        await asyncio.gather(*ends, return_exceptions=True)
        await self._save_logs()

    async def _save_logs(self) -> None:
        await asyncio.gather(self._containers.save_logs(), self._ground.containers.save_logs())

    async def _take_down(self) -> None:
        """Remove containers and volumes, and make sure of it. Raises TestbedError."""
        lost = None
        if hasattr(self, "_containers"):
            lost = self._containers.lost
            await self._containers.close()
        file = self.directory / "compose.json"
        try:
            await compose_command.remove(self.project, file, complete=self._created)
        except TestbedError as error:
            if lost is None:
                raise
            raise TestbedError(
                f"{lost}; what it has left of this run, the next one or make clean removes"
            ) from error
        finally:
            self._leave()
        self._testbed.left_over.discard(self.project)
