"""What stands in Kafka itself, read round the links: a topic's records, and where a group is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]

from labs.harness.testbed.cluster import Cluster

REQUEST_TIMEOUT_MS = 10_000


@contextlib.asynccontextmanager
async def _reader(
    cluster: Cluster, topic: str, partitions: int, group: str | None, member: str
) -> AsyncIterator[tuple[Any, list[Any]]]:
    """A consumer that joins no group and is assigned all partitions of the topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=cluster.direct_address(member),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        yield consumer, places
    finally:
        await consumer.stop()


async def behind(
    cluster: Cluster, group: str, topic: str, partitions: int, member: str = "kafka"
) -> int:
    """How many records of the topic the group has not committed."""
    async with _reader(cluster, topic, partitions, group, member) as (consumer, places):
        ends = await consumer.end_offsets(places)
        committed = {place: await consumer.committed(place) or 0 for place in places}
    # The embedded broker tells an end that is one less than what was committed already, at times.
    return sum(max(0, int(ends[place]) - committed[place]) for place in places)


async def records(
    cluster: Cluster, topic: str, partitions: int = 4, member: str = "kafka"
) -> list[dict[str, str | None]]:
    """Every record that a reader of committed data sees: its headers, `key`, and `value`."""
    found: list[dict[str, str | None]] = []
    async with _reader(cluster, topic, partitions, None, member) as (consumer, places):
        ends = await consumer.end_offsets(places)
        left = [place for place in places if ends[place] > 0]
        await consumer.seek_to_beginning(*places)
        while left:
            for fetched in (await consumer.getmany(*left, timeout_ms=100)).values():
                for record in fetched:
                    headers = {name: value.decode() for name, value in record.headers}
                    key = None if record.key is None else record.key.decode()
                    value = None if record.value is None else record.value.decode()
                    found.append({**headers, "key": key, "value": value})
            # Not counted by records: a transaction's markers have offsets too, and show nothing.
            left = [place for place in left if await consumer.position(place) < ends[place]]
    return found
