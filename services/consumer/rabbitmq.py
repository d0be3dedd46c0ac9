"""RabbitMQ through aio-pika, behind the same face: confirms, prefetch, a dead-letter exchange.

    topic exchange <topic> ──binding──▶ queue <topic>.<group> ──▶ consumers of the group
                                            └─ rejected ─▶ exchange and queue <topic>.dead

A queue is one partition to the core and a delivery tag an offset: tags count up from 1 on each
channel, so *acknowledge all up to this tag* is what a commit is in Kafka. What is not acknowledged
when the channel ends is delivered again, from where it stood in the queue. Nothing is kept that
was: who comes later cannot read it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aio_pika.abc import AbstractIncomingMessage as Incoming
from aiormq.exceptions import AMQPError, ChannelInvalidStateError

from services.chassis.errors import DeadlineExceeded, Unavailable
from services.consumer.broker import BrokerDown, CommitRefused, Listener, Receipt
from services.consumer.config import ConsumerConfig
from services.consumer.messages import Message
from services.protocols.delivery import DeadLetter, Record

WITHIN_S = 10.0
LET_BE_S = 0.1  # a broker that was not there a moment ago: not each message dials it anew
ERRORS = (AMQPError, OSError, asyncio.TimeoutError, RuntimeError)


async def connect(config: ConsumerConfig) -> AbstractConnection:
    """One connection, which stays broken when it breaks. Raises BrokerDown.

    aio-pika's "robust" one would open new channels unseen, whose delivery tags begin again at 1.
    """
    address = config.broker_address
    assert address is not None, "checked with the configuration"
    try:
        async with asyncio.timeout(config.request_timeout_ms / 1000):
            return await aio_pika.connect(
                host=address.host, port=address.port, client_properties={"name": config.node}
            )
    except ERRORS as error:
        raise BrokerDown(repr(error)) from error


async def declare(channel: AbstractChannel, config: ConsumerConfig) -> AbstractExchange:
    """The exchanges, and where dead letters are kept; all of it outlives a crash of the broker."""
    exchange = await channel.declare_exchange(config.topic, "topic", durable=True)
    dead = f"{config.topic}.dead"
    await channel.declare_exchange(dead, "fanout", durable=True)
    queue = await channel.declare_queue(dead, durable=True)
    await queue.bind(dead)
    return exchange


async def declare_queue(channel: AbstractChannel, config: ConsumerConfig) -> AbstractQueue:
    """The queue of the group, bound to the keys it wants."""
    queue = await channel.declare_queue(
        f"{config.topic}.{config.group}",
        durable=True,
        arguments={
            "x-dead-letter-exchange": f"{config.topic}.dead",
            # Else several consumers of a queue overtake each other.
            "x-single-active-consumer": config.ordered,
        },
    )
    await queue.bind(config.topic, routing_key=config.binding)
    return queue


class RabbitPublisher:
    """Publishes persistent messages and waits for the broker's confirm."""

    def __init__(self, config: ConsumerConfig) -> None:
        self._config = config
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel
        self._exchange: AbstractExchange
        self._starting = asyncio.Lock()
        self._let_be_until = 0.0  # on the loop's clock

    @property
    def connected(self) -> bool:
        # Not the connection alone: it may hang while its channel is closed already.
        return self._connection is not None and not (
            self._connection.is_closed or self._channel.is_closed
        )

    async def start(self) -> None:
        async with self._starting:
            if self.connected:
                return
            loop = asyncio.get_running_loop()
            if loop.time() < self._let_be_until:
                raise BrokerDown("it was not there a moment ago")
            await self.stop()
            try:
                await self._dial()
            except BrokerDown:
                self._let_be_until = loop.time() + LET_BE_S
                raise

    async def _dial(self) -> None:
        connection = await connect(self._config)
        try:
            self._channel = await connection.channel(publisher_confirms=True)
            self._exchange = await declare(self._channel, self._config)
        except ERRORS as error:
            await hang_up(connection)
            raise BrokerDown(repr(error)) from error
        self._connection = connection

    async def publish(self, message: Message) -> Receipt:
        if not self.connected:
            try:
                await self.start()
            except BrokerDown as error:
                raise Unavailable(f"RabbitMQ is not connected: {error}") from error
        body = aio_pika.Message(
            message.value,
            message_id=message.id,
            headers=dict(message.headers),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        try:
            await self._exchange.publish(
                body,
                routing_key=message.key or "",
                mandatory=False,  # a group that is not here yet is none of the producer's business
                timeout=self._config.request_timeout_ms / 1000,
            )
        except ChannelInvalidStateError as error:
            raise Unavailable(f"RabbitMQ is not connected: {error!r}") from error  # never sent
        except ERRORS as error:
            raise DeadlineExceeded(f"RabbitMQ did not confirm: {error!r}") from error
        return Receipt()

    async def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await hang_up(connection)


async def hang_up(connection: AbstractConnection) -> None:
    """Close, also what has broken already."""
    try:
        async with asyncio.timeout(1.0):
            await connection.close()
    except ERRORS:
        pass


class RabbitSource:
    """A consumer of the group's queue, with as many messages unacknowledged as may be in flight."""

    def __init__(self, config: ConsumerConfig) -> None:
        self._config = config
        self._queue_name = f"{config.topic}.{config.group}"
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel
        self._queue: AbstractQueue
        self._arrived: deque[Incoming] = deque()
        self._unsettled: deque[tuple[int, Incoming]] = deque()
        self._rejected: set[int] = set()
        self._something = asyncio.Event()

    async def start(self, listener: Listener) -> None:
        self._arrived.clear()
        self._unsettled.clear()
        self._rejected.clear()
        connection = await connect(self._config)
        try:
            self._channel = await connection.channel()
            await self._channel.set_qos(prefetch_count=min(65_535, self._config.in_flight))
            await declare(self._channel, self._config)
            self._queue = await declare_queue(self._channel, self._config)
            await listener.assigned([self._queue_name])
            await self._queue.consume(self._arrive)
        except ERRORS as error:
            listener.lost([self._queue_name])
            await hang_up(connection)
            raise BrokerDown(repr(error)) from error
        self._channel.close_callbacks.add(self._closed)
        self._connection = connection

    def _closed(self, *_: Any) -> None:
        self._something.set()  # who polls is to see it at once

    async def _arrive(self, message: Incoming) -> None:
        self._arrived.append(message)
        self._something.set()

    async def poll(self, records_max: int, within_s: float) -> list[Record]:
        if self._connection is None or self._connection.is_closed or self._channel.is_closed:
            raise BrokerDown("the connection to RabbitMQ is closed")
        if not self._arrived:
            self._something.clear()
            try:
                async with asyncio.timeout(within_s):
                    await self._something.wait()
            except TimeoutError:
                return []
        records: list[Record] = []
        while self._arrived and len(records) < records_max:
            message = self._arrived.popleft()
            assert message.delivery_tag is not None, "it was delivered"
            self._unsettled.append((message.delivery_tag, message))
            records.append(self._record(message, message.delivery_tag))
        return records

    def _record(self, message: Incoming, tag: int) -> Record:
        headers = tuple((name, str(value)) for name, value in message.headers.items())
        key = message.routing_key or None
        # Unlike a log's offset a tag is no name: without an id each delivery counts as new.
        name = message.message_id or f"{self._queue_name}/{tag}"
        return Record(self._queue_name, tag, name, key, message.body, headers)

    async def commit(self, offsets: Mapping[str, int]) -> None:
        """Acknowledge all up to the last one before the offset.

        The last that is still unsettled: a tag that was rejected is known no more, and to
        acknowledge it would close the channel.
        """
        offset = offsets[self._queue_name]
        last: Incoming | None = None
        settled = 0
        for tag, message in self._unsettled:
            if tag >= offset:
                break
            settled += 1
            if tag not in self._rejected:
                last = message
        try:
            if last is not None:
                await last.ack(multiple=True)
        except ERRORS as error:
            raise CommitRefused(repr(error)) from error  # a new channel will deliver them again
        for _ in range(settled):
            tag, _message = self._unsettled.popleft()
            self._rejected.discard(tag)

    async def rewind(self, partition: str) -> None:
        raise BrokerDown("a queue is not read twice")  # a new channel is; for transactions alone

    async def dead_letter(self, dead: DeadLetter) -> None:
        """Reject: the queue hands it on to its dead-letter exchange."""
        for tag, message in self._unsettled:
            if tag == dead.record.offset:
                try:
                    await message.reject(requeue=False)
                except ERRORS as error:
                    raise BrokerDown(repr(error)) from error
                self._rejected.add(tag)
                return
        await self._bury(dead)

    async def _bury(self, dead: DeadLetter) -> None:
        """At most once it was acknowledged before: there is nothing left that could be rejected."""
        record = dead.record
        try:
            exchange = await self._channel.get_exchange(f"{self._config.topic}.dead", ensure=False)
            copy = aio_pika.Message(
                record.value,
                message_id=record.id,
                headers={
                    **dict(record.headers),
                    "reason": dead.reason,
                    "x-first-death-queue": self._queue_name,  # as RabbitMQ says of a rejected one
                },
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(copy, record.key or "", timeout=WITHIN_S)
        except ERRORS as error:
            raise BrokerDown(repr(error)) from error

    def pause(self) -> None:
        """Prefetch does that: no more than `in_flight` are ever unacknowledged."""

    def resume(self) -> None:
        """See `pause`."""

    async def lag(self) -> dict[str, int]:
        """Ready messages of the queue, and those that are here.

        However long a busy broker takes to say: a channel of which a call is given up is closed by
        aiormq, and whatever was unacknowledged on it is delivered again.
        """
        if self._connection is None or self._channel.is_closed:
            return {}
        try:
            said = await self._channel.declare_queue(self._queue_name, passive=True)
        except ERRORS:
            return {}
        ready = said.declaration_result.message_count or 0
        return {self._queue_name: ready + len(self._arrived) + len(self._unsettled)}

    async def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await hang_up(connection)
