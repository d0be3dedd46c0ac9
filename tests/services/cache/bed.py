"""A store, cache servers and cache nodes for tests: real HTTP, real Redis; nodes as tasks here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.cache.config import load_cache
from services.cache.service import Cache
from tests.services.cache.servers import Server, missing
from tests.services.cluster import Cluster, cluster
from tests.services.faces import ask


class Bed:
    """`store` (n1), `servers` redis-1 …, cache nodes c1 … by name."""

    def __init__(self, store: Cluster, servers: dict[str, Server]) -> None:
        self.store = store
        self.servers = servers
        self.caches: dict[str, Cache] = {}
        self.addresses = dict(store.addresses)

    async def start(self, name: str, **settings: str) -> Cache:
        environ = {
            "CACHE_NODE": name,
            "CACHE_LISTEN": "127.0.0.1:0",
            "CACHE_PEERS": f"n1={self.store.addresses['n1']}",
            # A stall of the machine is no engine's silence, after which the store would be asked.
            "CACHE_ENGINE_TIMEOUT_MS": "1000",
            "CACHE_TELEMETRY": str(self.store.directory / f"{name}.jsonl"),
            **{
                f"MEMBER_{name.upper().replace('-', '_')}": str(server.address)
                for name, server in self.servers.items()
            },
            **{f"CACHE_{key.upper()}": value for key, value in settings.items()},
        }
        cache = Cache(*load_cache(environ))
        await cache.start()
        self.caches[name] = cache
        self.addresses[name] = f"127.0.0.1:{cache.app.port}"
        return cache

    async def request(
        self, method: str, path: str, node: str = "c1", **kwargs: Any
    ) -> tuple[int, Any, Any]:
        """(status, document, headers) of one request."""
        return await ask(self.store.session, self.addresses[node], method, path, **kwargs)

    async def get(self, key: str, node: str = "c1") -> tuple[Any, str]:
        """The value that `node` answers (None: 404), and its Cache-Status after the name."""
        status, document, headers = await self.request("GET", f"/kv/{key}", node)
        assert status in (200, 404), document
        said = headers.get("Cache-Status", "").partition("; ")[2]
        return document.get("value"), said

    async def put(self, key: str, value: Any, node: str = "c1") -> int:
        """Write at `node` ("n1": past all caches); the version."""
        status, document, _ = await self.request("PUT", f"/kv/{key}", node, json={"value": value})
        assert status == 200, document
        return int(document["version"])

    async def close(self) -> None:
        for cache in self.caches.values():
            await cache.stop()
        for server in self.servers.values():
            server.kill()


@asynccontextmanager
async def a_bed(
    directory: Path, *, servers: int = 1, kind: str = "redis", **redis: str
) -> AsyncIterator[Bed]:
    """A store and cache servers; cache nodes are started by the test."""
    if why := missing(kind):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    made = {f"{kind}-{n}": Server(kind, directory / f"{kind}-{n}", **redis)
            for n in range(1, servers + 1)}  # fmt: skip
    async with cluster(directory / "store", 1, tick_ms="2") as store:
        bed = Bed(store, made)
        try:
            for server in made.values():
                await server.start()
            yield bed
        finally:
            await bed.close()


def held(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Hold the next answers of the store on their way to this node: (answered, let_go) events."""
    answered, let_go = asyncio.Event(), asyncio.Event()
    fetch = cache.store.fetch

    async def slowly(*args: Any) -> Any:
        entry = await fetch(*args)
        answered.set()
        await let_go.wait()
        return entry

    monkeypatch.setattr(cache.store, "fetch", slowly)
    return answered, let_go
