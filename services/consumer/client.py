"""A client of the producer face: sends once, and says what it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from services.chassis.http_client import HttpClient


class Sent(NamedTuple):
    """An accepted message; `partition` and `offset` where the broker tells them."""

    id: str
    partition: int | None
    offset: int | None


class MessageClient(HttpClient):
    """Sends messages to producers at `addresses` (node → "host:port")."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__()
        self.addresses = dict(addresses)

    async def send(
        self,
        node: str,
        value: Any,
        *,
        key: str | None = None,
        message_id: str | None = None,
        deadline_ms: int = 2_000,
        headers: Mapping[str, str] | None = None,
    ) -> Sent:
        """Send to one producer, once. With `message_id` a second send is the same message.

        Raises BadRequest, Unavailable (definite), DeadlineExceeded, ConnectionLost (indefinite).
        """
        own = {**(headers or {}), "Content-Type": "application/json"}
        if message_id is not None:
            own["Idempotency-Key"] = message_id
        answer = await self.exchange(
            node,
            "POST",
            f"http://{self.addresses[node]}/messages",
            body=msgspec.json.encode({"key": key, "value": value}),
            headers=own,
            deadline=asyncio.get_running_loop().time() + deadline_ms / 1000,
        )
        said = answer.document
        return Sent(said["id"], said.get("partition"), said.get("offset"))
