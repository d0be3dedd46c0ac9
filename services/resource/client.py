"""A client of the resource: one request each, and errors that say whether it happened."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from services.chassis.http_client import HttpClient


class ResourceClient(HttpClient):
    """Writes to and reads from the resource `name` at `address` ("host:port")."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__()
        self.name, self.address = name, address

    async def write(
        self,
        value: Any,
        *,
        token: int,
        deadline_ms: int = 2_000,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Write `value` under `token`; returns its position among the writes that were accepted.

        Raises StaleToken, BadRequest, Unavailable (definite), DeadlineExceeded, ConnectionLost,
        InternalError (indefinite).
        """
        body = msgspec.json.encode({"value": value, "token": token})
        sent = {**(headers or {}), "Content-Type": "application/json"}
        document = await self._send("PUT", body, sent, deadline_ms)
        return int(document["position"])

    async def read(self, *, deadline_ms: int = 2_000) -> dict[str, Any]:
        """`value`, `token` and `position` of the last write. Raises NotFound, or as `write`."""
        return await self._send("GET", None, {}, deadline_ms)

    async def _send(
        self, method: str, body: bytes | None, headers: Mapping[str, str], deadline_ms: int
    ) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + deadline_ms / 1000
        url = f"http://{self.address}/value"
        answer = await self.exchange(
            self.name, method, url, body=body, headers=headers, deadline=deadline
        )
        document: dict[str, Any] = answer.document
        return document
