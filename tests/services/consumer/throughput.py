"""Messages a second through one consumer, beside the bare client on the same broker.

    python -m tests.services.consumer.throughput [messages]

Goal: "≥ 10 k messages a second through one consumer with the embedded broker". Method: the topic is
filled first; then a bare aiokafka consumer reads it, and after that the consumer service, with
Redis, ids, lanes by key and commits, works it off. Both in processes of their own would share two
cores with the broker; here each has the loop for itself while it runs.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer

from services.chassis.loop import new_event_loop
from services.consumer.kafka import make_topics
from tests.services.cluster import until
from tests.services.consumer.bed import WITHIN_S, Bed, a_bed

MESSAGES, KEYS, PARTITIONS = 50_000, 1_000, 4


async def fill(bed: Bed, messages: int) -> None:
    """`messages` of 100 bytes or so, spread over keys and partitions."""
    await make_topics(bed.broker.address, {"messages": PARTITIONS}, 5_000)
    async with bed.producer() as producer:
        for start in range(0, messages, 1_000):
            sent = [
                await producer.send(
                    "messages",
                    b"1",
                    b"key-%d" % (number % KEYS),
                    headers=[("id", b"message-%d" % number)],
                )
                for number in range(start, min(start + 1_000, messages))
            ]
            await asyncio.gather(*sent)


async def bare(bed: Bed, messages: int) -> float:
    """Messages a second that aiokafka alone hands out."""
    consumer = AIOKafkaConsumer(
        "messages",
        bootstrap_servers=bed.broker.address,
        group_id="bare",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        seen, began = 0, 0.0
        while seen < messages:
            fetched = await consumer.getmany(timeout_ms=1_000, max_records=1_000)
            began = began or time.perf_counter()
            seen += sum(map(len, fetched.values()))
        return messages / (time.perf_counter() - began)
    finally:
        await consumer.stop()


async def serviced(bed: Bed, messages: int, **settings: str) -> float:
    """Messages a second that the service applies, from its first to its last."""
    service = await bed.start("c1", telemetry="", **settings)
    assert service.worker is not None
    counts = service.worker.core.counts
    await until(lambda: counts["applied"], WITHIN_S)
    began, before = time.perf_counter(), counts["applied"]
    await until(lambda: counts["applied"] >= messages, WITHIN_S)
    taken = time.perf_counter() - began
    await bed.stop("c1")
    return (messages - before) / taken


async def measure(directory: Path, messages: int) -> dict[str, float]:
    """By what was measured, messages a second."""
    async with a_bed(directory) as bed:
        await fill(bed, messages)
        return {
            "aiokafka alone": await bare(bed, messages),
            "consumer, at least once": await serviced(
                bed, messages, group="one", guarantee="at_least_once", in_flight="5000"
            ),
            "consumer, effectively once": await serviced(
                bed, messages, group="two", in_flight="5000"
            ),
        }


def main() -> None:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES
    with (
        tempfile.TemporaryDirectory() as directory,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        for what, rate in runner.run(measure(Path(directory), messages)).items():
            print(f"{what:28} {rate:>10,.0f} messages/s")


if __name__ == "__main__":
    main()
