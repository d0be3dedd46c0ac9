"""An autoscaler that cannot do its work makes the run invalid, in words."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from labs.harness.lab.stage import InvalidRun
from labs.harness.testbed.cluster import Cluster
from labs.harness.workloads import autoscaler
from services.resilience.target_tracking import TargetTracking

REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


async def begin(answer: bytes) -> None:
    """An autoscaler begins at a balancer that gives every request `answer`; empty: none at all."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession() as session:
        cluster: Any = SimpleNamespace(session=session, direct_address=lambda _: address)
        policy = TargetTracking(target=0.7, minimum=1, maximum=2, cool_down_s=60)
        one = autoscaler.Autoscaler(
            cast(Cluster, cluster), "front", ("web-1", "web-2"), policy, places=1, tell=print
        )
        try:
            await one.begin()
        finally:
            gone.set()
            server.close()


async def test_a_balancer_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaler, "WITHIN_S", 0.2)
    with pytest.raises(InvalidRun, match=r"^front did not give web-2 weight 0: not within 0\.2 s$"):
        await begin(b"")


async def test_a_balancer_that_refuses() -> None:
    with pytest.raises(InvalidRun, match=r"^front did not give web-2 weight 0: 403"):
        await begin(REFUSED)
