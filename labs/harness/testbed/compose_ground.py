"""What a cluster in containers stands on: a network, pods, link proxies. It outlives the nodes.

The variants of a lab differ in their nodes' settings and hardly ever in who is there. So what has
no settings is brought up once and carries one cluster after the other: of two containers for each
node one remains to be started, and no network to be made (at one go, five nodes and their proxies
take five times as long as the nodes alone). Each cluster opens its links anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labs.harness.testbed import compose_command, compose_slots
from labs.harness.testbed.cluster import TestbedError
from labs.harness.testbed.compose_containers import NO_LOG, Containers
from labs.harness.testbed.compose_project import Images, Layout, Place, Plane, as_text
from labs.harness.testbed.description import ClusterSpec

PLACES_TRIED = 10


class Ground:
    """`up()` once, `down()` at the end; in between it carries one cluster at a time.

    `free` is set while nobody stands on it.
    """

    containers: Containers
    place: Place

    def __init__(
        self, project: str, plane: Plane, labels: Mapping[str, str], *, published: bool
    ) -> None:
        self.project = project
        self.free = asyncio.Event()
        self.free.set()
        self._plane: Plane = plane
        self._labels = labels
        self._published = published
        self._file: Path | None = None
        self._services: dict[str, Any] = {}
        self._slot = ExitStack()
        self._up = False

    def carries(self, spec: ClusterSpec, images: Images) -> bool:
        """Whether all is here that a cluster needs, where and as it needs it."""
        if not self._up or self._plane != "proxies":
            return False  # with packets, rules of the one before would be in the pods
        try:
            self.containers.check({})
        except TestbedError:
            return False  # a pod or the proxies have ended: the next cluster starts afresh
        layout = Layout(spec, self.place, self._plane)
        needed: dict[str, Any] = layout.ground(self.project, images, self._labels)["services"]
        return all(self._services.get(name) == service for name, service in needed.items())

    async def up(
        self, spec: ClusterSpec, images: Images, directory: Path, refused: set[int]
    ) -> None:
        """Find a place and bring up there what `spec` needs; nothing if it is up already.

        `directory` gets its Compose file. `refused`: slots that the engine did not accept; more may
        be added. Raises TestbedError.
        """
        if self._up:
            return
        file = self._file = directory / "ground.json"
        for _ in range(PLACES_TRIED):
            slot, self.place = self._slot.enter_context(
                compose_slots.reserve(refused, published=self._published)
            )
            try:
                await self._bring_up(Layout(spec, self.place, self._plane), images, file)
                return
            except compose_command.PlaceTaken:
                refused.add(slot)
                await self._take_down()
        raise TestbedError(f"the Docker engine refused {PLACES_TRIED} networks, one by one")

    def log_to(self, directory: Path, relays: Iterable[str]) -> None:
        """Where the logs of these link proxies are saved from now on, from their beginning."""
        for relay in relays:
            self.containers.log_to(relay, directory / f"{relay}.log")

    async def down(self) -> None:
        """Remove all of it, as soon as nobody stands on it, and make sure. Raises TestbedError."""
        await self.free.wait()
        await self._take_down()

    async def _bring_up(self, layout: Layout, images: Images, file: Path) -> None:
        project = layout.ground(self.project, images, self._labels)
        file.write_text(as_text(project))
        self.containers = Containers(self.project, dict.fromkeys(project["services"], NO_LOG))
        await self.containers.watch()
        await compose_command.up(self.project, file)
        await self.containers.find()
        self._services, self._up = project["services"], True

    async def _take_down(self) -> None:
        if hasattr(self, "containers"):
            await self.containers.close()
        try:
            await compose_command.remove(self.project, self._file, complete=self._up)
        finally:
            self._up = False
            self._slot.close()
