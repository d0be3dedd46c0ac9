"""Customers of the shop: each order is one of a few products, under an idempotency key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random

from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads.open_loop import Answered, Drawn, OpenLoop
from services.shop.client import ShopClient

PRODUCTS = 150
STOCK = 1_000_000
AT_A_TIME = 16
# A lab of the shop is about the way of an order, not about load: on a busy machine orders wait
# outside, instead of in each other's way.
IN_FLIGHT_MAX = 12


class OrderWorkload(OpenLoop):
    """Orders at `gateway`, from `place`. Many products, so that orders seldom contend for one."""

    def __init__(
        self,
        place: str,
        *,
        seed: int,
        rate_per_s: float,
        gateway: str = "gateway",
        deadline_ms: int = 5_000,
    ) -> None:
        super().__init__(place, seed=seed, rate_per_s=rate_per_s, in_flight_max=IN_FLIGHT_MAX)
        self.gateway = gateway
        self.deadline_ms = deadline_ms
        self._customers = 0

    async def open(self, cluster: Cluster) -> None:
        self._client = ShopClient(cluster.address(self.place, self.gateway))

    async def close(self) -> None:
        await self._client.close()

    def draw(self, random: Random) -> Drawn:
        self._customers += 1
        customer = f"customer-{self._customers}"
        product = f"product-{random.randrange(PRODUCTS)}"

        async def order(headers: Mapping[str, str]) -> Answered:
            placed = await self._client.order(
                customer, product, idempotency_key=customer, deadline_ms=self.deadline_ms,
                headers=headers,
            )  # fmt: skip
            return Answered(placed.order)

        return Drawn("order", product, customer, order)


async def fill_shelves(cluster: Cluster, inventory: str) -> None:
    """So much of every product that a lab never runs out of it; round the links."""
    gate = asyncio.Semaphore(AT_A_TIME)
    address = cluster.direct_address(inventory)
    async with ShopClient(address) as client:

        async def fill(product: str) -> None:
            async with gate:
                await client.restock(address, product, STOCK, deadline_ms=10_000)

        await asyncio.gather(*(fill(f"product-{number}") for number in range(PRODUCTS)))
