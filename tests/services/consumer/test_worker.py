"""The worker between a source that comes and goes and effects that take their time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from unittest.mock import AsyncMock, Mock

from services.chassis.clock import Clock
from services.consumer.broker import BrokerDown
from services.consumer.config import load_consumer
from services.consumer.kafka import KafkaSource, split
from services.consumer.worker import Worker
from services.protocols.delivery import Record
from tests.services.cluster import until

CONFIG = load_consumer({
    "CONSUMER_NODE": "n1", "CONSUMER_LISTEN": "127.0.0.1:0", "MEMBER_KAFKA": "127.0.0.1:1",
    "MEMBER_REDIS": "127.0.0.1:1",
})  # fmt: skip


class Source:
    """Connects at once; polls until it is told that the broker is down."""

    def __init__(self) -> None:
        self.down = asyncio.Event()
        self.starts = 0

    async def start(self, listener: Any) -> None:
        self.starts += 1
        self.down.clear()

    async def poll(self, records_max: int, within_s: float) -> list[Record]:
        await self.down.wait()
        raise BrokerDown("test")

    async def stop(self) -> None: ...


class SlowEffects:
    """Each assignment waits until it may be over."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Event] = []

    async def assigned(self, partitions: Iterable[str]) -> None:
        self.waiting.append(asyncio.Event())
        await self.waiting[-1].wait()

    async def stop(self) -> None: ...


async def test_what_a_lost_connection_was_given_belongs_to_nobody() -> None:
    """An assignment whose preparation outlasts its connection is void: the partitions are those of
    the next connection, and only when that one has been given them."""
    source, effects = Source(), SlowEffects()
    worker = Worker(CONFIG, source, effects, Clock(), Mock(), Mock())  # type: ignore[arg-type]
    running = asyncio.create_task(worker.run())
    await until(lambda: worker.joined)

    first = asyncio.create_task(worker.assigned(["t/0", "t/1"]))
    await until(lambda: len(effects.waiting) == 1)
    source.down.set()
    await until(lambda: source.starts == 2 and worker.joined)
    effects.waiting[0].set()
    await first
    assert worker.core.partitions == ()

    second = asyncio.create_task(worker.assigned(["t/1"]))
    await until(lambda: len(effects.waiting) == 2)
    effects.waiting[1].set()
    await second
    assert worker.core.partitions == ("t/1",)
    running.cancel()


async def test_what_is_assigned_while_it_leaves_belongs_to_nobody() -> None:
    """aiokafka ends a join that is under way before it stops: that assignment is void as well, or
    the next connection would find its partitions taken."""
    source = KafkaSource(CONFIG, Mock())
    source._listener = listener = AsyncMock()  # no consumer: not started, or being stopped

    await source.on_partitions_assigned([split("t/0")])
    listener.assigned.assert_not_called()
