"""A capacity that is a number: so many at a time, so long each, and a line that has an end."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis import capacity
from services.chassis.capacity import Capacity
from services.chassis.errors import Unavailable


async def through(gate: Capacity) -> None:
    async with gate:
        pass


async def test_throughput_is_slots_by_service_time() -> None:
    """Ten requests, two at a time for 50 ms each, take 250 ms."""
    gate, loop = Capacity(2, 50), asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(through(gate) for _ in range(10)))
    assert loop.time() - began >= 0.245


async def test_no_slots_is_no_limit() -> None:
    async with asyncio.timeout(5):
        await asyncio.gather(*(through(Capacity(0, 60_000)) for _ in range(100)))


async def test_the_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes beyond it is refused, definitely; who gives up leaves the line."""
    monkeypatch.setattr(capacity, "WAITING_MAX", 3)
    gate = Capacity(1, 60_000)
    waiting = [asyncio.create_task(through(gate)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="3 requests are here already"):
        await through(gate)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    gate._service_s = 0.0
    async with asyncio.timeout(5):
        await asyncio.gather(*(through(gate) for _ in range(3)))
