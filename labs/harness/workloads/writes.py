"""Users who write: to whoever leads, and some of them always to one node, whatever that says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random

from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.open_loop import Answered, Drawn, OpenLoop
from services.kv.client import KvClient

KEYS = 50


class Writes(OpenLoop):
    """`rate_per_s` writes a second from `place`.

    `astray`: one of so many of them goes to `node` and nowhere else, as when a balancer or a stale
    address sends it there (0: none). The share is exact and not drawn, so that no chance cluster of
    them passes for an outage. Both may be changed while it runs.
    """

    def __init__(
        self, place: str, *, seed: int, rate_per_s: float, deadline_ms: int = 2_000
    ) -> None:
        super().__init__(place, seed=seed, rate_per_s=rate_per_s)
        self.deadline_ms = deadline_ms
        self.astray = 0
        self.node: str | None = None
        self._drawn = 0

    async def open(self, cluster: Cluster) -> None:
        addresses = {node: cluster.address(self.place, node) for node in cluster.nodes}
        # One hint is followed. (Going round until the deadline would make an outage a flood.)
        self._client = KvClient(addresses, random=self._random, hops_max=2)

    async def close(self) -> None:
        await self._client.close()

    def draw(self, random: Random) -> Drawn:
        self._drawn += 1
        astray = self.astray and self._drawn % self.astray == 0
        return self._write(random, self.node if astray else None)

    async def burst(self, writes: int, node: str) -> None:
        """So many users come at once, all to `node`; returns when they have their answer."""
        tasks = [
            asyncio.create_task(self._operate(self._write(self._random, node)))
            for _ in range(writes)
        ]
        await asyncio.gather(*tasks)

    def _write(self, random: Random, node: str | None) -> Drawn:
        key, value = f"user-{random.randrange(KEYS)}", random.randrange(1_000_000)

        async def write(headers: Mapping[str, str]) -> Answered:
            reply = await self._client.put(
                key, value, node=node, deadline_ms=self.deadline_ms, headers=headers
            )
            return Answered(value, reply.node)

        return Drawn("write", key, value, write)
