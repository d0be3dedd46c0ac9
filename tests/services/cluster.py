"""Nodes of the store as tasks of the test's own event loop, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from services.chassis.node import Node
from services.chassis.node_config import load_node
from services.kv import make_node
from tests.services.faces import ask

# The protocols that have a leader and promise linearizability: one set of tests for all.
CONSENSUS = ("raft", "paxos", "viewstamped", "zab", "chain")


async def until(condition: Callable[[], Any], within_s: float = 15.0) -> Any:
    """Wait for `condition()` to be true and return it; AssertionError after `within_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not (value := condition()):
        assert loop.time() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.005)
    return value


class Cluster:
    """`count` nodes n1, n2, … with data and telemetry below `directory`."""

    def __init__(self, directory: Path, count: int, **settings: str) -> None:
        self.directory = directory
        self.settings = settings
        self.nodes: dict[str, Node] = {}
        # Bound, not listening, for as long as the cluster lives: nobody else gets these ports.
        self._reserved = {f"n{i}": _reserve() for i in range(1, count + 1)}
        self.addresses = {
            node: f"127.0.0.1:{sock.getsockname()[1]}" for node, sock in self._reserved.items()
        }
        self.session = aiohttp.ClientSession()

    async def start(self, *names: str) -> None:
        for name in names or self.addresses:
            peers = [f"{n}={a}" for n, a in self.addresses.items() if n != name]
            environ = {
                "KV_NODE": name,
                "KV_LISTEN": self.addresses[name],
                "KV_PEERS": ",".join(peers),
                "KV_DATA_DIR": str(self.directory / name),
                "KV_TELEMETRY": str(self.directory / f"{name}.jsonl"),
                "KV_TICK_MS": "10",
                "KV_FSYNC": "never",
                **{f"KV_{key.upper()}": value for key, value in self.settings.items()},
            }
            self.nodes[name] = make_node(load_node(environ))
            await self.nodes[name].start()

    async def stop(self, *names: str) -> None:
        for name in names or list(self.nodes):
            await self.nodes.pop(name).stop()

    async def close(self) -> None:
        await self.stop()
        await self.session.close()
        for sock in self._reserved.values():
            sock.close()

    async def leader(self) -> str:
        """The node that all running nodes agree on."""

        def agreed() -> str | None:
            leaders = {node.driver.status()["leader"] for node in self.nodes.values()}
            return leaders.pop() if len(leaders) == 1 else None

        return str(await until(agreed))

    async def request(
        self, method: str, path: str, node: str = "n1", **kwargs: Any
    ) -> tuple[int, Any, Any]:
        """(status, document, headers) of one request."""
        return await ask(self.session, self.addresses[node], method, path, **kwargs)

    def events(self, node: str) -> list[dict[str, Any]]:
        if node in self.nodes:
            self.nodes[node].telemetry.flush()
        lines = (self.directory / f"{node}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def _reserve() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


@asynccontextmanager
async def cluster(directory: Path, count: int, **settings: str) -> AsyncIterator[Cluster]:
    """A started cluster that has a leader."""
    made = Cluster(directory, count, **settings)
    try:
        await made.start()
        await made.leader()
        yield made
    finally:
        await made.close()


async def connected(made: Cluster) -> None:
    """Wait until every running node has every link. (One that stops while others are just dialling
    it would leave their connections behind.)"""
    await until(lambda: all(link["connected"] for node in made.nodes.values()
                            for link in node.transport.status().values()))  # fmt: skip


@asynccontextmanager
async def leaderless(
    directory: Path, protocol: str, count: int = 3, **settings: str
) -> AsyncIterator[Cluster]:
    """A started cluster of a protocol in which every replica takes writes."""
    made = Cluster(directory, count, protocol=protocol, **settings)
    try:
        await made.start()
        await connected(made)
        yield made
    finally:
        await made.close()
