"""Requests to the plain backend, through a load balancer or not; none of them changes anything."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.open_loop import Answered, Drawn, OpenLoop
from services.web.client import WebClient


class RequestWorkload(OpenLoop):
    """`GET /work` at `target`, from `place`."""

    changes_nothing = True

    def __init__(
        self, place: str, target: str, *, seed: int, rate_per_s: float, deadline_ms: int
    ) -> None:
        super().__init__(place, seed=seed, rate_per_s=rate_per_s)
        self.target = target
        self.deadline_ms = deadline_ms

    async def open(self, cluster: Cluster) -> None:
        self._client = WebClient(cluster.address(self.place, self.target))

    async def close(self) -> None:
        await self._client.close()

    def draw(self, random: Random) -> Drawn:
        return Drawn("work", self.target, None, self._work)

    async def _work(self, headers: Mapping[str, str]) -> Answered:
        node = await self._client.work(deadline_ms=self.deadline_ms, headers=headers)
        return Answered(node, node)
