"""A client of the shop: for those outside, labs above all.

Every error is one of `services.chassis.errors` or `services.shop.errors`: definite, or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from services.chassis.http_client import Answer, HttpClient
from services.shop import errors  # so that its problem types are known

__all__ = ["Placed", "ShopClient", "errors"]


class Placed(NamedTuple):
    """An order that was taken; `again` when it had been before."""

    order: str
    again: bool


class ShopClient(HttpClient):
    """Talks to the shop's gateway at `address` ("host:port")."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    async def order(
        self,
        customer: str,
        product: str,
        quantity: int = 1,
        *,
        idempotency_key: str | None = None,
        deadline_ms: int = 2_000,
        headers: Mapping[str, str] | None = None,
    ) -> Placed:
        """Order. Raises OutOfStock, NoSuchProduct, OrderReused, BadRequest, Unavailable (nothing
        was ordered); DeadlineExceeded, ConnectionLost, InternalError (nobody knows: order again by
        the same key)."""
        sent = dict(headers or {})
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        body = {"customer": customer, "product": product, "quantity": quantity}
        answer = await self._send("POST", self.address, "/orders", body, sent, deadline_ms)
        return Placed(answer.document["id"], answer.status == 200)

    async def show(self, order: str, *, deadline_ms: int = 2_000) -> dict[str, Any]:
        """The order of that id. Raises NoSuchOrder, or as `order`."""
        answer = await self._send("GET", self.address, f"/orders/{order}", None, {}, deadline_ms)
        document: dict[str, Any] = answer.document
        return document

    async def restock(
        self, inventory: str, product: str, available: int, *, deadline_ms: int = 5_000
    ) -> None:
        """Have so many on the shelf. `inventory`: the "host:port" of that role; not for customers.

        Raises as `order`.
        """
        body = {"available": available}
        await self._send("PUT", inventory, f"/stock/{product}", body, {}, deadline_ms)

    async def available(self, inventory: str, product: str, *, deadline_ms: int = 5_000) -> int:
        """How many are left. Raises NoSuchProduct, or as `order`."""
        answer = await self._send("GET", inventory, f"/stock/{product}", None, {}, deadline_ms)
        return int(answer.document["available"])

    async def _send(
        self,
        method: str,
        address: str,
        path: str,
        body: Any,
        headers: Mapping[str, str],
        deadline_ms: int,
    ) -> Answer:
        sent = dict(headers)
        if body is not None:
            sent["Content-Type"] = "application/json"
        return await self.exchange(
            address,
            method,
            f"http://{address}{path}",
            body=None if body is None else msgspec.json.encode(body),
            headers=sent,
            deadline=asyncio.get_running_loop().time() + deadline_ms / 1000,
        )
