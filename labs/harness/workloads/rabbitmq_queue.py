"""What stands in RabbitMQ itself, looked at round the links: queues, and how many wait in them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import aio_pika
from aio_pika.abc import AbstractChannel

from labs.harness.testbed.cluster import Cluster

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
    """Every message in the queue, which is empty then."""
    found: list[Taken] = []
    async with _channel(cluster, member) as channel:
        taken = await channel.declare_queue(queue, passive=True)
        while (message := await taken.get(no_ack=True, fail=False)) is not None:
            died_in = str(message.headers.get("x-first-death-queue", ""))
            found.append(Taken(message.message_id or "", message.routing_key or "", died_in))
    return found
