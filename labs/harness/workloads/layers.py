"""Users of a service with layers: readers of pages, at whatever answers them, and orders."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.open_loop import Answered, Drawn, OpenLoop
from services.consumer.client import MessageClient
from services.kv.client import KvClient

PAGES = [f"page-{number}" for number in range(30)]
_POPULAR = [1 / rank for rank in range(1, len(PAGES) + 1)]  # Zipf: a spike is about something


class PageReads(OpenLoop):
    """Reads of PAGES at `target` (a store's node, a cache, a balancer), from `place`."""

    changes_nothing = True

    def __init__(
        self,
        place: str,
        target: str,
        consistency: str,
        *,
        seed: int,
        rate_per_s: float,
        deadline_ms: int,
    ) -> None:
        super().__init__(place, seed=seed, rate_per_s=rate_per_s)
        self.target, self.consistency, self.deadline_ms = target, consistency, deadline_ms

    async def open(self, cluster: Cluster) -> None:
        self._client = KvClient({self.target: cluster.address(self.place, self.target)})

    async def close(self) -> None:
        await self._client.close()

    def draw(self, random: Random) -> Drawn:
        page = random.choices(PAGES, _POPULAR)[0]

        async def read(headers: Mapping[str, str]) -> Answered:
            reply = await self._client.get(
                page, consistency=self.consistency, node=self.target,
                deadline_ms=self.deadline_ms, headers=headers,
            )  # fmt: skip
            return Answered(reply.value, self.target)

        return Drawn("read", page, None, read)


class QueuedOrders(OpenLoop):
    """Orders left with the producer `target`, from `place`; `accepted`: the ids it answered for."""

    def __init__(
        self, place: str, target: str, *, seed: int, rate_per_s: float, deadline_ms: int
    ) -> None:
        super().__init__(place, seed=seed, rate_per_s=rate_per_s)
        self.target, self.deadline_ms = target, deadline_ms
        self.accepted: set[str] = set()
        self._drawn = 0

    async def open(self, cluster: Cluster) -> None:
        self._client = MessageClient({self.target: cluster.address(self.place, self.target)})

    async def close(self) -> None:
        await self._client.close()

    def draw(self, random: Random) -> Drawn:
        self._drawn += 1
        order, customer = f"order-{self._drawn}", f"customer-{random.randrange(1_000)}"

        async def send(headers: Mapping[str, str]) -> Answered:
            await self._client.send(
                self.target, 1, key=customer, message_id=order,
                deadline_ms=self.deadline_ms, headers=headers,
            )  # fmt: skip
            self.accepted.add(order)
            return Answered(order, self.target)

        return Drawn("order", customer, order, send)
