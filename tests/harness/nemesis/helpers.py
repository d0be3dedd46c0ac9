"""A cluster of tiny HTTP servers behind real link proxies, and a recorder that only lists."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from random import Random
from typing import TYPE_CHECKING, Any

from labs.harness.links import Link
from labs.harness.nemesis import Nemesis
from tests.harness.links.helpers import proxies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from labs.harness.links import LinkFault, Links

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Node(asyncio.Protocol):
    """Answers every request with `ok`, unless its node is paused."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._rest = b""
        self.unanswered = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.open.add(self)

    def data_received(self, data: bytes) -> None:
        whole = self._rest + data
        self.unanswered += whole.count(b"\r\n\r\n")
        self._server.requests += whole.count(b"\r\n\r\n")
        self._rest = whole.rpartition(b"\r\n\r\n")[2]
        self.answer()

    def answer(self) -> None:
        assert self.transport is not None
        if not self._server.paused:
            self.transport.write(OK * self.unanswered)
            self.unanswered = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.discard(self)


class Server:
    """One node: its listener, its connections, its clock."""

    def __init__(self) -> None:
        self.open: set[Node] = set()
        self.paused = False
        self.requests = 0
        self.port = 0
        self.clock = {"offset_ms": 0.0, "rate": 1.0}
        self.data = True
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Node(self), "127.0.0.1", self.port, reuse_address=True, reuse_port=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for node in list(self.open):
            if node.transport is not None:
                node.transport.abort()

    @property
    def state(self) -> str:
        if self._server is None:
            return "stopped"
        return "paused" if self.paused else "running"


class FakeCluster:
    """The interface of `testbed.cluster.Cluster`, as far as the nemesis needs it."""

    def __init__(self, count: int, links: Links) -> None:
        self.nodes = tuple(f"n{i}" for i in range(1, count + 1))
        self.clients = ("c1", "c2")
        self.members: tuple[str, ...] = ()
        self.relayed = False
        self.link_control: Any = links
        self.servers = {node: Server() for node in self.nodes}
        self.leading = ["n1"]
        self.listen: dict[Link, str] = {}
        self.deaf: set[str] = set()  # operations that do nothing

    @property
    def links(self) -> tuple[Link, ...]:
        return tuple(self.listen)

    async def open(self) -> None:
        for server in self.servers.values():
            await server.start()
        sources = [*self.nodes, *self.clients]
        wanted = {
            Link(src, dst): self.direct_address(dst)
            for src in sources
            for dst in self.nodes
            if src != dst
        }
        self.listen = await self.link_control.open(wanted)

    def close(self) -> None:
        for server in self.servers.values():
            server.kill()

    def member_kind(self, member: str) -> Any:
        raise AssertionError("no members here")

    def address(self, client: str, node: str) -> str:
        return self.listen[Link(client, node)]

    def direct_address(self, node: str) -> str:
        return f"127.0.0.1:{self.servers[node].port}"

    def state(self, node: str) -> str:
        return self.servers[node].state

    async def kill(self, node: str) -> None:
        if "kill" not in self.deaf:
            self.servers[node].kill()

    async def start(self, node: str) -> None:
        await self.servers[node].start()

    async def pause(self, node: str) -> None:
        if "pause" not in self.deaf:
            self.servers[node].paused = True

    async def resume(self, node: str) -> None:
        self.servers[node].paused = False
        for each in self.servers[node].open:
            each.answer()

    async def wipe(self, node: str) -> None:
        assert self.state(node) == "stopped"
        self.servers[node].data = False

    async def set_clock(self, node: str, offset_ms: float = 0, rate: float = 1) -> None:
        if "clock" not in self.deaf:
            self.servers[node].clock = {"offset_ms": offset_ms, "rate": rate}

    async def status(self, node: str) -> dict[str, Any] | None:
        if self.state(node) != "running":
            return None
        return {"role": "leader", "clock": self.servers[node].clock}

    async def primaries(self) -> list[str]:
        return list(self.leading)

    async def ready(self, within_s: float, nodes: Iterable[str] | None = None) -> None:
        assert all(self.state(node) == "running" for node in nodes or self.nodes)


class Listing:
    """A recorder that keeps the nemesis' operations in a list."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self._start_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() - self._start_ns

    def nemesis(self, type: str, f: str, value: Any = None) -> None:  # noqa: A002 - as Recorder
        self.events.append((type, f, value))


class DeafLinks:
    """Link control that says yes to every fault and does nothing: what `felt` is there for."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def set(self, faults: Mapping[Link, LinkFault | None]) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._links, name)


class Setting:
    """All that a test of the nemesis needs."""

    def __init__(self, cluster: FakeCluster, nemesis: Nemesis, path: Path, log: Listing) -> None:
        self.cluster, self.nemesis, self.path, self.log = cluster, nemesis, path, log

    def phases(self, fault: int = 1) -> list[str]:
        """The phases of one fault, as `faults.jsonl` has them."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line["phase"] for line in lines if line["id"] == fault]


@contextlib.asynccontextmanager
async def setting(
    directory: Path, count: int = 5, *, enabled: bool = True, seed: int = 1
) -> AsyncIterator[Setting]:
    """A cluster of `count` nodes, started, and a nemesis over it."""
    path = directory / "faults.jsonl"
    log = Listing()
    async with proxies() as (links, _):
        cluster = FakeCluster(count, links)
        await cluster.open()
        nemesis = Nemesis(cluster, log, path, random=Random(seed), enabled=enabled)
        try:
            yield Setting(cluster, nemesis, path, log)
        finally:
            await nemesis.heal_all()
            nemesis.close()
            cluster.close()
