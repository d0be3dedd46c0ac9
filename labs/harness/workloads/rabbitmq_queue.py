"""What stands in RabbitMQ itself, looked at round the links: queues, and how many wait in them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from labs.harness.testbed.cluster import Cluster, TestbedError

WITHIN_S = 10.0


@contextlib.asynccontextmanager
async def _channel(cluster: Cluster, member: str) -> AsyncIterator[AbstractChannel]:
    host, _, port = cluster.direct_address(member).rpartition(":")
    connection = await aio_pika.connect(host=host, port=int(port), timeout=WITHIN_S)
    async with connection:
        yield await connection.channel()


async def bind(
    cluster: Cluster, queue: str, exchange: str, binding: str, member: str = "rabbitmq"
) -> None:
    """A durable queue that gets what the exchange routes to it from now on."""
    async with _channel(cluster, member) as channel:
        made = await channel.declare_queue(queue, durable=True)
        await made.bind(exchange, binding)


async def count(cluster: Cluster, queue: str, member: str = "rabbitmq") -> int:
    """How many messages wait in the queue, without those that a consumer has."""
    async with _channel(cluster, member) as channel:
        found = await channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0


class Taken(NamedTuple):
    """A message that stood in a queue. `died_in`: the queue that it was a dead letter of."""

    id: str
    key: str
    died_in: str


async def take(cluster: Cluster, queue: str, member: str = "rabbitmq") -> list[Taken]:
    """Every message in the queue, which is empty then. Raises TestbedError."""
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    found: list[Taken] = []
    async with _channel(cluster, member) as channel:
        taken = await channel.declare_queue(queue, passive=True)
        there = taken.declaration_result.message_count or 0
        # Not one by one with `get`, of which each is a round trip.
        await taken.consume(arrived.put, no_ack=True)
        try:
            async with asyncio.timeout(WITHIN_S):
                while len(found) < there:
                    message = await arrived.get()
                    died_in = str(message.headers.get("x-first-death-queue", ""))
                    key = message.routing_key or ""
                    found.append(Taken(message.message_id or "", key, died_in))
        except TimeoutError:
            raise TestbedError(f"{queue}: {len(found)} of {there} messages came") from None
    return found
