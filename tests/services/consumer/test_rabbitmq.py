"""RabbitMQ as a source, with a channel that is none: what aiormq does with calls that are given up.

With a broker it is part of tests/labs/test_queues.py.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from services.consumer.config import load_consumer
from services.consumer.rabbitmq import RabbitSource

CONFIG = load_consumer({
    "CONSUMER_NODE": "n1", "CONSUMER_LISTEN": "127.0.0.1:0", "CONSUMER_BROKER": "rabbitmq",
    "MEMBER_RABBITMQ": "127.0.0.1:1", "MEMBER_REDIS": "127.0.0.1:1",
})  # fmt: skip
BUSY_S = 0.6  # more than anybody who looks at lag twice a second would wait for it


class Channel:
    """Answers when the broker has time. As aiormq's, it closes when a call is given up."""

    def __init__(self) -> None:
        self.is_closed = False
        self.has_time = asyncio.Event()

    async def declare_queue(self, _name: str, *, passive: bool) -> Any:
        try:
            await self.has_time.wait()
        except asyncio.CancelledError:
            self.is_closed = True
            raise
        return SimpleNamespace(declaration_result=SimpleNamespace(message_count=7))


async def test_a_broker_that_is_slow_to_tell_the_lag_keeps_its_consumers() -> None:
    """To give up the question would close the channel: what is unacknowledged on it is delivered
    again, and what was acknowledged before it was done, and not yet buried, is lost."""
    source, channel = RabbitSource(CONFIG), Channel()
    source._connection, source._channel = SimpleNamespace(is_closed=False), channel  # type: ignore[assignment]
    asking = asyncio.create_task(source.lag())
    await asyncio.wait([asking], timeout=BUSY_S)

    assert not channel.is_closed
    channel.has_time.set()
    assert await asking == {"messages.workers": 7}
