"""The effect is a record in another topic of Kafka, with or without a transaction.

In a transaction the results and the offset of what they were made from become visible together or
not at all (KIP-98). Each *partition* has a producer of its own, named by a `transactional.id` that
is made of group and partition: whoever gets the partition next begins by taking over that name,
which ends a transaction that the one before left open and fences it off for good, also when it is
not dead and only slow. (KIP-447 does the same with one producer for each consumer, by sending the
group's generation along; aiokafka does not know it.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from services.chassis.errors import Indefinite, Unavailable
from services.consumer.config import ConsumerConfig
from services.consumer.kafka import QUICK, KafkaPublisher, split
from services.consumer.messages import ID, amount_of, encode
from services.protocols.delivery import Batch, Outcome, Record

TRANSACTION_TIMEOUT_MS = 10_000


def _result(record: Record, amount: int) -> tuple[bytes | None, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers of what becomes of a message."""
    key = None if record.key is None else record.key.encode()
    value = encode({"id": record.id, "key": record.key, "amount": amount})
    origin = f"{record.partition}/{record.offset}"  # a message may stand in the log twice
    return key, value, [(ID, record.id.encode()), ("origin", origin.encode())]


class TopicEffects:
    """Results without a transaction: sent, confirmed, and sent again after a crash."""

    def __init__(self, config: ConsumerConfig) -> None:
        self._topic = config.results
        self._publisher = KafkaPublisher(config, config.results)

    async def assigned(self, partitions: Iterable[str]) -> None:
        if not self._publisher.connected:
            await self._publisher.start()

    async def apply(self, batches: Sequence[Batch]) -> list[list[Outcome] | None]:
        return list(await asyncio.gather(*map(self._batch, batches)))

    async def start_over(self, partition: str) -> None:
        """Nothing is left open."""

    async def _batch(self, batch: Batch) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for record in batch.records:
            amount = amount_of(record.value)
            if amount is None:
                return [*outcomes, "rejected"]
            try:
                await self._publisher.send(self._topic, *_result(record, amount))
            except (Indefinite, Unavailable):
                return [*outcomes, "unavailable"]
            outcomes.append("applied")
        return outcomes

    async def stop(self) -> None:
        await self._publisher.stop()


class TransactionalEffects:
    """Results, dead letters and the commit in one transaction for each batch."""

    def __init__(self, config: ConsumerConfig) -> None:
        self._config = config
        self._producers: dict[str, AIOKafkaProducer] = {}

    async def assigned(self, partitions: Iterable[str]) -> None:
        """Take over the name of each partition. Raises KafkaError."""
        await self.stop()
        await asyncio.gather(*map(self._take_over, partitions))

    async def _take_over(self, partition: str) -> None:
        config = self._config
        producer = AIOKafkaProducer(
            bootstrap_servers=str(config.broker_address),
            transactional_id=f"{config.group}/{partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=config.request_timeout_ms,
            **QUICK,
        )
        self._producers[partition] = producer
        await producer.start()

    async def start_over(self, partition: str) -> None:
        """Take over the name again: whatever transaction was open under it has ended then."""
        producer = self._producers.pop(partition, None)
        if producer is not None:
            await _stop(producer)
        await self._take_over(partition)

    async def apply(self, batches: Sequence[Batch]) -> list[list[Outcome] | None]:
        # Chosen before anything is waited for: those of a later assignment would let a batch
        # through that has just been taken away.
        producers = [self._producers.get(batch.partition) for batch in batches]
        return list(await asyncio.gather(*map(self._transaction, producers, batches)))

    async def _transaction(
        self, producer: AIOKafkaProducer | None, batch: Batch
    ) -> list[Outcome] | None:
        """What became of the records; None: the transaction's end is unknown, or it was aborted."""
        if producer is None:
            return None
        assert batch.commit is not None, "the core batches for transactions"
        try:
            async with producer.transaction():
                outcomes = [await self._send(producer, record) for record in batch.records]
                offsets = {split(batch.partition): batch.commit}
                await producer.send_offsets_to_transaction(offsets, self._config.group)
        except (KafkaError, OSError):  # ProducerFenced among them: it is somebody else's now
            return None
        return outcomes

    async def _send(self, producer: AIOKafkaProducer, record: Record) -> Outcome:
        amount = amount_of(record.value)
        if amount is None:
            topic = f"{self._config.topic}.dead"
            key = None if record.key is None else record.key.encode()
            group = ("group", self._config.group.encode())
            headers = [(ID, record.id.encode()), group, ("reason", b"rejected")]
            await producer.send(topic, record.value, key, headers=headers)
            return "rejected"
        key, value, headers = _result(record, amount)
        await producer.send(self._config.results, value, key, headers=headers)
        return "applied"

    async def stop(self) -> None:
        producers, self._producers = self._producers, {}
        await asyncio.gather(*map(_stop, producers.values()))


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(1.0):
            await producer.stop()
    except (KafkaError, OSError, TimeoutError):
        pass  # an open transaction is aborted by the next owner of the name, or by its timeout
