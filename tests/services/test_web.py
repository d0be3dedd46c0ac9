"""The plain backend: its capacity is what its settings say, whatever the machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.chassis.config import ConfigError
from services.chassis.errors import Unavailable
from services.web import Web, make
from services.web.client import WebClient
from tests.services.cluster import until


@asynccontextmanager
async def replica(path: Path, **settings: str) -> AsyncIterator[tuple[Web, WebClient]]:
    own = {f"WEB_{key.upper()}": value for key, value in settings.items()}
    made = make({"WEB_NODE": "w1", "WEB_LISTEN": "127.0.0.1:0", "WEB_TELEMETRY": str(path), **own})
    await made.start()
    try:
        async with WebClient(f"127.0.0.1:{made.app.port}") as client:
            yield made, client
    finally:
        await made.stop()


def requests(path: Path) -> list[dict[str, Any]]:
    """What the replica has told of them, in the order in which they ended."""
    events = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return [event for event in events if event["event"] == "request"]


def begins(events: list[dict[str, Any]]) -> list[float]:
    """When the work for each of them began (µs), whenever it had come: sorted."""
    return sorted(
        event["monotonic_ns"] / 1000 - event["duration_us"] + event["waited_us"] for event in events
    )


async def test_no_more_than_its_places_at_a_time(tmp_path: Path) -> None:
    """Capacity is concurrency over service time: ten requests at two places of 40 ms take five
    turns; none is quicker than its turn."""
    async with replica(tmp_path / "e.jsonl", concurrency="2", service_ms="40") as (made, client):
        began = asyncio.get_running_loop().time()
        nodes = await asyncio.gather(*(client.work(deadline_ms=10_000) for _ in range(10)))
        took_s = asyncio.get_running_loop().time() - began
        made.telemetry.flush()
    began_us = begins(requests(tmp_path / "e.jsonl"))

    assert set(nodes) == {"w1"}
    assert took_s >= 5 * 0.040
    for turn in range(5):
        assert began_us[2 * turn] - began_us[0] >= turn * 38_000


async def test_who_has_hung_up_is_worked_for_all_the_same(tmp_path: Path) -> None:
    """What makes overload worse than its cause: places go to callers who are gone."""
    async with replica(tmp_path / "e.jsonl", concurrency="1", service_ms="100") as (made, client):
        gone = [asyncio.create_task(client.work(deadline_ms=10_000)) for _ in range(5)]
        await until(lambda: made.details()["waiting"] + made.details()["working"] == 5)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        await client.work(deadline_ms=10_000)  # it has to wait for all of them
        made.telemetry.flush()
    worked = requests(tmp_path / "e.jsonl")

    assert [event["status"] for event in worked] == [200] * 6
    assert all(after - before >= 95_000 for before, after in pairwise(begins(worked)))
    assert worked[-1]["waited_us"] > 0
    assert any(event["client_gone"] for event in worked[:-1])


async def test_a_bounded_line_refuses_at_once(tmp_path: Path) -> None:
    """One more than may wait: 503, definite, while the others are served."""
    settings = {"concurrency": "1", "service_ms": "200", "queue_max": "1"}
    async with replica(tmp_path / "e.jsonl", **settings) as (made, client):
        served = [asyncio.create_task(client.work())]
        await until(lambda: made.details()["working"] == 1)
        served.append(asyncio.create_task(client.work()))
        await until(lambda: made.details()["waiting"] == 1)
        with pytest.raises(Unavailable) as caught:
            await client.work()
        assert caught.value.definite
        assert await asyncio.gather(*served) == ["w1", "w1"]


def test_a_wrong_setting_is_one_line() -> None:
    """Key, value and what is allowed."""
    with pytest.raises(ConfigError, match="WEB_CONCURRENCY='0': allowed is a whole number from 1"):
        make({"WEB_NODE": "w1", "WEB_LISTEN": "127.0.0.1:0", "WEB_CONCURRENCY": "0"})
