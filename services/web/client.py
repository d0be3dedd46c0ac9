"""A client of the plain backend, or of a load balancer in front of several."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.chassis.http_client import HttpClient


class WebClient(HttpClient):
    """Asks at `address` ("host:port")."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    async def work(
        self, *, deadline_ms: int = 2_000, headers: Mapping[str, str] | None = None
    ) -> str:
        """Have some work done; the replica that did it. Raises as `http_client.exchange`."""
        answer = await self.exchange(
            self.address,
            "GET",
            f"http://{self.address}/work",
            headers=headers or {},
            deadline=asyncio.get_running_loop().time() + deadline_ms / 1000,
        )
        return str(answer.document["node"])
