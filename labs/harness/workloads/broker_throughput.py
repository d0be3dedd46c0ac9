"""How many messages a second go into a broker and out of it: one client, one connection each way.

Both brokers do the same work: small messages, each kept and confirmed (Kafka: `acks=all`; RabbitMQ:
a durable queue, persistent messages, publisher confirms), then each fetched; RabbitMQ's, which a
queue keeps until then, are acknowledged. Confirmations are not waited for one by one, or a broker's
round trip would be measured: up to `IN_FLIGHT` are under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aio_pika
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]

from labs.harness.testbed.cluster import Cluster

MESSAGES = {"kafka": 2_000, "rabbitmq": 500}  # what gets into each in a quarter of a second
BODY = b"x" * 100
IN_FLIGHT = 500
WITHIN_S = 30.0
NAME = "throughput"


class Throughput(NamedTuple):
    """Messages a second."""

    sent: float
    taken: float


async def kafka(cluster: Cluster, member: str = "kafka") -> Throughput:
    """Through a topic of its own, of one partition."""
    address, count = cluster.direct_address(member), MESSAGES["kafka"]
    await _make_topic(address)
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", linger_ms=5)
    consumer = AIOKafkaConsumer(bootstrap_servers=address, fetch_max_wait_ms=50)
    place = TopicPartition(NAME, 0)
    await producer.start()
    try:
        await producer.send_and_wait(NAME, BODY, partition=0)  # it is known who leads it
        sent = await _send(lambda: _delivered(producer), count)
        await consumer.start()
        try:
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            began, left = time.perf_counter(), count + 1
            async with asyncio.timeout(WITHIN_S):
                while left > 0:
                    found = await consumer.getmany(place, timeout_ms=100)
                    left -= sum(map(len, found.values()))
            taken = count / (time.perf_counter() - began)
        finally:
            await consumer.stop()
    finally:
        await producer.stop()
    return Throughput(sent, taken)


async def _make_topic(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(NAME, 1, 1)])
    finally:
        await admin.close()


async def _delivered(producer: Any) -> None:
    await (await producer.send(NAME, BODY, partition=0))


async def rabbitmq(cluster: Cluster, member: str = "rabbitmq") -> Throughput:
    """Through a queue of its own, which is removed."""
    host, _, port = cluster.direct_address(member).rpartition(":")
    count = MESSAGES["rabbitmq"]
    connection = await aio_pika.connect(host=host, port=int(port), timeout=WITHIN_S)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue(NAME, durable=True)
        message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        exchange = channel.default_exchange
        sent = await _send(lambda: exchange.publish(message, NAME), count)
        await channel.set_qos(prefetch_count=IN_FLIGHT)
        left, done = count, asyncio.Event()

        async def take(delivered: aio_pika.abc.AbstractIncomingMessage) -> None:
            nonlocal left
            await delivered.ack()
            left -= 1
            if not left:
                done.set()

        began = time.perf_counter()
        tag = await queue.consume(take)
        async with asyncio.timeout(WITHIN_S):
            await done.wait()
        taken = count / (time.perf_counter() - began)
        await queue.cancel(tag)
        await queue.delete(if_unused=False, if_empty=False)
    return Throughput(sent, taken)


async def _send(one: Callable[[], Awaitable[Any]], count: int) -> float:
    """Do `one` for each of `count` messages, many at a time; how many a second are confirmed."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def send() -> None:
        async with places:
            await one()

    began = time.perf_counter()
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*(send() for _ in range(count)))
    return count / (time.perf_counter() - began)
