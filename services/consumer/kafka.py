"""Kafka through aiokafka: the source with manual commits, and the publisher."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import (  # type: ignore[import-untyped]
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka.admin import (  # type: ignore[import-untyped]
    AIOKafkaAdminClient,
    NewTopic,
)
from aiokafka.errors import (  # type: ignore[import-untyped]
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from services.chassis.errors import DeadlineExceeded, Unavailable
from services.consumer.broker import BrokerDown, CommitRefused, Listener, Receipt
from services.consumer.config import ConsumerConfig
from services.consumer.messages import ID, Message, header
from services.protocols.delivery import DeadLetter, Record

TOPIC_EXISTS = 36
# Both find a broker again that was killed and started.
QUICK = {"retry_backoff_ms": 50, "metadata_max_age_ms": 1_000}


async def make_topics(bootstrap: str, partitions: Mapping[str, int], timeout_ms: int) -> None:
    """Create the topics that are not there. Raises BrokerDown."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=timeout_ms)
    try:
        await admin.start()
        topics = [NewTopic(name, count, 1) for name, count in partitions.items()]
        answer = await admin.create_topics(topics)
        for topic, code, *why in answer.topic_errors:
            if code not in (0, TOPIC_EXISTS):
                raise BrokerDown(f"topic {topic} can't be made: error {code} {why}")
    except (KafkaError, OSError) as error:
        raise BrokerDown(repr(error)) from error
    finally:
        await admin.close()


def topics_of(config: ConsumerConfig) -> dict[str, int]:
    """Topics with their partitions. The results have as many as what they are made from."""
    topics = {config.topic: config.partitions, f"{config.topic}.dead": 1}
    if config.sink == "topic":
        topics[config.results] = config.partitions
    return topics


def split(partition: str) -> TopicPartition:
    """ "orders/3" is partition 3 of the topic orders."""
    topic, _, number = partition.rpartition("/")
    return TopicPartition(topic, int(number))


def joined(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    return [(ID, message.id.encode()), *((name, text.encode()) for name, text in message.headers)]


class KafkaPublisher:
    """Sends to one topic; confirmed means that all in-sync replicas have it (`acks=all`)."""

    def __init__(self, config: ConsumerConfig, topic: str) -> None:
        self._config = config
        self._topic = topic
        self._producer: AIOKafkaProducer | None = None

    @property
    def connected(self) -> bool:
        return self._producer is not None

    async def start(self) -> None:
        config, address = self._config, str(self._config.broker_address)
        await make_topics(address, topics_of(config), config.request_timeout_ms)
        producer = AIOKafkaProducer(
            bootstrap_servers=address,
            acks="all",
            enable_idempotence=config.idempotent,
            request_timeout_ms=config.request_timeout_ms,
            **QUICK,
        )
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            await producer.stop()
            raise BrokerDown(repr(error)) from error
        self._producer = producer

    async def publish(self, message: Message) -> Receipt:
        key = None if message.key is None else message.key.encode()
        return await self.send(self._topic, key, message.value, headers_of(message))

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> Receipt:
        """Send to any topic; the same promises as `publish`."""
        if self._producer is None:
            raise Unavailable("Kafka is not connected yet")
        try:
            metadata = await self._producer.send_and_wait(topic, value, key, headers=headers)
        except (KafkaError, OSError) as error:
            # Whether the broker has it, nobody knows: the answer may be what was lost.
            raise DeadlineExceeded(f"Kafka did not confirm: {error!r}") from error
        return Receipt(metadata.partition, metadata.offset)

    async def stop(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                async with asyncio.timeout(1.0):
                    await producer.stop()
            except (KafkaError, OSError, TimeoutError):
                pass  # what it could not send was never confirmed


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of a consumer group."""

    def __init__(self, config: ConsumerConfig, dead_letters: KafkaPublisher) -> None:
        self._config = config
        self._dead_letters = dead_letters
        self._listener: Listener
        self._consumer: AIOKafkaConsumer | None = None
        self._paused = False
        self._fetching: asyncio.Future[Any] | None = None
        self._holds: set[str] = set()  # why nothing may be fetched now
        self._free = asyncio.Event()
        self._committed: dict[str, int] = {}

    async def start(self, listener: Listener) -> None:
        config, self._listener = self._config, listener
        self._hold("rebalance")  # until the first partitions are assigned
        await self._dead_letters.start()
        self._consumer = consumer = AIOKafkaConsumer(
            bootstrap_servers=str(config.broker_address),
            group_id=config.group,
            client_id=config.node,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=config.session_timeout_ms,
            heartbeat_interval_ms=max(100, config.session_timeout_ms // 10),
            rebalance_timeout_ms=config.session_timeout_ms,
            request_timeout_ms=max(config.request_timeout_ms, config.session_timeout_ms + 1_000),
            fetch_max_wait_ms=200,
            **QUICK,
        )
        consumer.subscribe([config.topic], listener=self)
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            await self.stop()
            raise BrokerDown(repr(error)) from error

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """The group is about to rebalance (or has already done so without us).

        From here on until the new partitions are known to whoever polls, nothing is fetched.
        aiokafka fetches from the new ones *before* it tells of them: what came in between was
        nobody's, the position had moved over it, and the next commit lost it.
        """
        self._hold("rebalance")
        await self._listener.revoked([joined(each) for each in revoked])

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        consumer = self._consumer
        if consumer is None:
            return  # it is being stopped, and ends a join that was under way: they are nobody's
        self._committed = {}
        await self._listener.assigned([joined(each) for each in assigned])
        if consumer is self._consumer:  # else it is for another to say that its partitions are here
            self._release("rebalance")

    async def poll(self, records_max: int, within_s: float) -> list[Record]:
        consumer = self._running()
        try:
            async with asyncio.timeout(within_s):
                await self._free.wait()
        except TimeoutError:
            return []
        if self._paused:
            consumer.pause(*consumer.assignment())  # also what was assigned meanwhile
        self._fetching = asyncio.ensure_future(
            consumer.getmany(timeout_ms=int(within_s * 1000), max_records=records_max)
        )
        try:
            fetched = await self._fetching
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return []  # `_hold` did that
        except (KafkaError, OSError) as error:
            raise BrokerDown(repr(error)) from error
        records: list[Record] = []
        for partition, messages in fetched.items():
            name = joined(partition)
            records += [_record(name, message) for message in messages]
        return records

    def _hold(self, why: str) -> None:
        """Fetch nothing, and let go of what is being fetched: its position will be another."""
        self._holds.add(why)
        self._free.clear()
        if self._fetching is not None:
            self._fetching.cancel()

    def _release(self, why: str) -> None:
        self._holds.discard(why)
        if not self._holds:
            self._free.set()

    async def commit(self, offsets: Mapping[str, int]) -> None:
        consumer = self._running()
        try:
            await consumer.commit({split(name): offset for name, offset in offsets.items()})
        except (
            CommitFailedError,
            IllegalGenerationError,
            IllegalStateError,
            RebalanceInProgressError,
            UnknownMemberIdError,
        ) as error:
            raise CommitRefused(repr(error)) from error
        except (KafkaError, OSError) as error:
            raise BrokerDown(repr(error)) from error
        self._committed |= offsets

    async def rewind(self, partition: str) -> None:
        # Not while records are being fetched: those from before the seek would come after it.
        self._hold("rewind")
        try:
            consumer, place = self._running(), split(partition)
            committed = await consumer.committed(place)
            if committed is None:  # which `seek_to_committed` takes for "stay where you are"
                await consumer.seek_to_beginning(place)
            else:
                consumer.seek(place, committed)
        except (KafkaError, OSError) as error:
            raise BrokerDown(repr(error)) from error
        finally:
            self._release("rewind")

    async def dead_letter(self, dead: DeadLetter) -> None:
        record = dead.record
        headers = [(ID, record.id.encode())]
        headers += [(name, text.encode()) for name, text in record.headers if name != ID]
        headers += [
            ("group", self._config.group.encode()),  # others may have processed it
            ("reason", dead.reason.encode()),
            ("attempts", str(dead.attempts).encode()),
            ("origin", f"{record.partition}/{record.offset}".encode()),
        ]
        key = None if record.key is None else record.key.encode()
        try:
            await self._dead_letters.send(f"{self._config.topic}.dead", key, record.value, headers)
        except (DeadlineExceeded, Unavailable) as error:
            raise BrokerDown(str(error)) from error

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._consumer is not None:
            self._consumer.resume(*self._consumer.paused())

    async def lag(self) -> dict[str, int]:
        consumer = self._consumer
        if consumer is None:
            return {}
        found = {}
        for partition in consumer.assignment():
            end = consumer.highwater(partition)
            if end is not None:
                name = joined(partition)
                at = self._committed.get(name)
                if at is None or self._config.guarantee == "transactional":  # not by `commit`
                    at = await consumer.committed(partition) or 0
                    self._committed[name] = at
                found[name] = max(0, end - at)
        return found

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                async with asyncio.timeout(1.5):
                    await consumer.stop()  # leaves the group: the others need not wait for us
            except (KafkaError, OSError, TimeoutError):
                pass
        await self._dead_letters.stop()

    @property
    def group_member(self) -> AIOKafkaConsumer:
        return self._running()

    def _running(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise BrokerDown("not connected")
        return self._consumer


def _record(partition: str, message: Any) -> Record:
    headers = tuple((name, value.decode(errors="replace")) for name, value in message.headers)
    key = message.key
    return Record(
        partition,
        message.offset,
        # Without an id of its producer's its place in the log is its name: the same each time, too.
        header(headers, ID) or f"{partition}/{message.offset}",
        None if key is None else key.decode(errors="replace"),
        message.value,
        headers,
    )
