"""What Redis and Kafka must do as members of a cluster: the same tests on every substrate.

A test module takes them over with a class of its own and a `testbed` fixture (an entered testbed):

    class TestRedis(RedisContract):
        @pytest.fixture
        async def testbed(self, tmp_path): …

`KafkaContract` is what every broker must do; `DurableKafkaContract` what Apache Kafka must do
besides, which keeps its log on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from labs.harness.links.control import Link, LinkFault
from labs.harness.nemesis import Nemesis
from labs.harness.testbed.cluster import Cluster, TestbedError, until
from labs.harness.testbed.description import ClusterSpec, MemberSpec, NodeSpec
from tests.harness.nemesis.helpers import Listing
from tests.harness.testbed.contract import ECHO, READY_WITHIN_S, get, refuses

KAFKA_READY_WITHIN_S = 60.0
# Of clients that are to give up, though before a cut they are to be answered: a slow fsync takes
# its time.
HURRIED_S = 1.0
TOPIC = "events"


def member_cluster(*members: MemberSpec, nodes: int = 0) -> ClusterSpec:
    specs = tuple(NodeSpec(f"n{i}", ECHO) for i in range(1, nodes + 1))
    return ClusterSpec("members", specs, ("c1", "c2"), members=members)


@contextlib.contextmanager
def a_nemesis(cluster: Cluster, directory: Path) -> Any:
    nemesis = Nemesis(cluster, Listing(), directory / "faults.jsonl", random=Random(1))
    try:
        yield nemesis
    finally:
        nemesis.close()


async def every_fault_is_felt(cluster: Cluster, directory: Path, member: str) -> None:
    """Probes in the member's own protocol see each fault bite, and see it gone after the heal."""
    with a_nemesis(cluster, directory) as nemesis:
        link = ("c1", member)
        for planned in (
            nemesis.blackhole(link),
            nemesis.drop(link, stream="response"),
            nemesis.delay(link, time_ms=40),
            nemesis.rate(link, rate_kbit=200),
            nemesis.refuse(link),
            nemesis.reset(link),
            nemesis.pause(member),
            nemesis.kill([member]),
        ):
            async with planned as fault:
                assert await fault.felt(), fault.record
            assert fault.record.felt, fault.record
            assert fault.record.recovered, fault.record


@contextlib.asynccontextmanager
async def redis_client(
    cluster: Cluster, source: str | None, within_s: float = 5.0
) -> AsyncIterator[Any]:
    """A client at `source` (None: round the links) that gives up after `within_s`."""
    address = cluster.address(source, "redis") if source else cluster.direct_address("redis")
    host, _, port = address.rpartition(":")
    client = redis.asyncio.Redis(
        host=host,
        port=int(port),
        socket_timeout=within_s,
        socket_connect_timeout=within_s,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield client
    finally:
        await client.aclose()


class RedisContract:
    """Subclass with a `testbed` fixture."""

    @pytest.fixture
    async def cluster(self, testbed: Any) -> AsyncIterator[Cluster]:
        # By default what was answered within the last two seconds may not even be written: while a
        # slow fsync is under way Redis puts the next write off (flushAppendOnlyFile).
        durable = MemberSpec("redis", "redis", {"appendfsync": "always"})
        async with testbed.cluster(member_cluster(durable, nodes=1)) as made:
            await made.ready(READY_WITHIN_S)
            yield made

    async def test_set_and_get_through_a_cut_and_a_heal(self, cluster: Cluster) -> None:
        """Links to a member are cut one by one, as those to a node are."""
        async with redis_client(cluster, "c1", HURRIED_S) as c1, redis_client(cluster, "c2") as c2:
            await c1.set("key", "before")
            await cluster.link_control.set({Link("c1", "redis"): LinkFault("blackhole")})

            with pytest.raises(redis.exceptions.TimeoutError):
                await c1.set("key", "during")
            assert await c2.get("key") == b"before"

            await cluster.link_control.set({Link("c1", "redis"): None})
            # What timed out may have happened after all: an indefinite error.
            assert await c1.get("key") in (b"before", b"during")
            await c1.set("key", "after")
            assert await c2.get("key") == b"after"

    async def test_a_node_is_told_its_own_link_to_each_member(self, cluster: Cluster) -> None:
        """`MEMBER_<NAME>` is the node's own link, never a way round it."""
        told = await get(cluster, cluster.direct_address("n1"), "/environ")

        assert told["MEMBER_REDIS"] == cluster.address("n1", "redis")
        addresses = {cluster.address(*link) for link in cluster.spec.links_to("redis")}
        assert len(addresses | {cluster.direct_address("redis")}) == 4

    async def test_killed_it_refuses_and_returns_with_its_data(self, cluster: Cluster) -> None:
        """FAULTS.md: kill: "SIGKILL; disk survives"; start is its inverse, on the same address."""
        async with redis_client(cluster, "c1") as c1:
            for number in range(100):
                await c1.set(f"key-{number}", number)
            await cluster.kill("redis")
            assert cluster.state("redis") == "stopped"
            assert await refuses(cluster.direct_address("redis"))
            with pytest.raises(redis.exceptions.ConnectionError):
                await c1.get("key-1")

            await cluster.start("redis")
            await cluster.ready(READY_WITHIN_S)
            assert await c1.dbsize() == 100
            assert await c1.get("key-99") == b"99"
        assert cluster.logs("redis").stat().st_size > 0

    async def test_wiped_it_returns_empty(self, cluster: Cluster) -> None:
        """FAULTS.md: wipe: "after `kill`: data directory removed"; refused while it lives."""
        async with redis_client(cluster, "c1") as c1:
            await c1.set("key", "precious")
        with pytest.raises(TestbedError, match="redis is running"):
            await cluster.wipe("redis")
        await cluster.stop_node("redis")
        await cluster.wipe("redis")
        await cluster.start("redis")
        await cluster.ready(READY_WITHIN_S)
        async with redis_client(cluster, "c1") as c1:
            assert await c1.get("key") is None

    async def test_paused_it_is_silent_and_goes_on(self, cluster: Cluster) -> None:
        """FAULTS.md: pause: "deadline expires"; the request took effect "perhaps later"."""
        async with (
            redis_client(cluster, "c1", HURRIED_S) as c1,
            redis_client(cluster, None) as direct,
        ):
            await c1.set("key", 1)
            await cluster.pause("redis")
            assert cluster.state("redis") == "paused"
            with pytest.raises(redis.exceptions.TimeoutError):
                await c1.get("key")
            await cluster.resume("redis")
            assert await direct.get("key") == b"1"

    async def test_its_own_settings_reach_it(self, testbed: Any) -> None:
        """`MemberSpec.settings` are the server's own words, and win."""
        settings = {"maxmemory": "8mb", "appendfsync": "always"}
        spec = member_cluster(MemberSpec("redis", "redis", settings))
        async with testbed.cluster(spec) as cluster:
            await cluster.ready(READY_WITHIN_S)
            async with redis_client(cluster, "c1") as c1:
                assert await c1.config_get("maxmemory") == {"maxmemory": str(8 << 20)}
                assert await c1.config_get("appendfsync") == {"appendfsync": "always"}
                assert await c1.config_get("repl-diskless-sync-delay") == {
                    "repl-diskless-sync-delay": "0"
                }

    async def test_every_fault_is_felt(self, cluster: Cluster, tmp_path: Path) -> None:
        """The nemesis asks Redis in Redis' protocol, over each link."""
        await every_fault_is_felt(cluster, tmp_path, "redis")

    async def test_a_partition_may_name_it(self, cluster: Cluster, tmp_path: Path) -> None:
        """A side may hold a member: who stands on the other does not reach it."""
        with a_nemesis(cluster, tmp_path) as nemesis:
            cut = nemesis.partition([["n1"], ["redis"]], clients={"c1": "n1"})
            async with cut as fault:
                assert await fault.felt(), fault.record
                assert fault.record.target == "n1 c1 | redis"
                async with redis_client(cluster, "c1", HURRIED_S) as c1:
                    with pytest.raises(redis.exceptions.TimeoutError):
                        await c1.ping()
                async with redis_client(cluster, "c2") as c2:
                    assert await c2.ping()
            assert fault.record.recovered

    async def test_what_runs_is_told(self, cluster: Cluster) -> None:
        """A verdict names what was tested: not "Redis", but which."""
        (flavour,) = cluster.member_flavours().values()
        assert any(char.isdigit() for char in flavour), flavour


class MemcachedContract:
    """Subclass with a `testbed` fixture."""

    @pytest.fixture
    async def cluster(self, testbed: Any) -> AsyncIterator[Cluster]:
        member = MemberSpec("memcached", "memcached", {"memory-limit": "8"})
        async with testbed.cluster(member_cluster(member)) as made:
            await made.ready(READY_WITHIN_S)
            yield made

    async def test_killed_it_refuses_and_returns_empty(self, cluster: Cluster) -> None:
        """Its settings reach it; nothing of it is on disk."""
        assert b"STAT limit_maxbytes 8388608" in await memcached(cluster, b"stats\r\n")
        assert await memcached(cluster, b"set key 0 0 5\r\nvalue\r\n") == b"STORED\r\n"
        assert b"value" in await memcached(cluster, b"get key\r\n")
        await cluster.kill("memcached")
        assert cluster.state("memcached") == "stopped"
        assert await refuses(cluster.direct_address("memcached"))

        await cluster.start("memcached")
        await cluster.ready(READY_WITHIN_S)
        assert await memcached(cluster, b"get key\r\n") == b"END\r\n"

    async def test_every_fault_is_felt(self, cluster: Cluster, tmp_path: Path) -> None:
        """The nemesis asks Memcached in its protocol, over each link."""
        await every_fault_is_felt(cluster, tmp_path, "memcached")

    async def test_what_runs_is_told(self, cluster: Cluster) -> None:
        (flavour,) = cluster.member_flavours().values()
        assert flavour.startswith("memcached 1."), flavour


async def memcached(cluster: Cluster, asked: bytes) -> bytes:
    """What it answers over the link of c1 to a command in its text protocol."""
    host, _, port = cluster.address("c1", "memcached").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(asked)
        answer = b""
        async with asyncio.timeout(5):
            while not answer.endswith((b"END\r\n", b"STORED\r\n")):
                answer += await reader.read(4096)
        return answer
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def a_producer(cluster: Cluster, source: str, **settings: Any) -> AsyncIterator[Any]:
    producer = AIOKafkaProducer(
        bootstrap_servers=cluster.address(source, "kafka"),
        retry_backoff_ms=50,
        **{"request_timeout_ms": 5000, **settings},
    )
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def a_consumer(cluster: Cluster, source: str, group: str) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=cluster.address(source, "kafka"),
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        request_timeout_ms=8000,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        metadata_max_age_ms=1000,
        retry_backoff_ms=50,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def receive(consumer: Any, count: int, within_s: float = 30.0) -> set[bytes]:
    """The values of `count` records."""
    received: set[bytes] = set()
    async with asyncio.timeout(within_s):
        while len(received) < count:
            received.add((await consumer.getone()).value)
    return received


async def send(producer: Any, *values: bytes) -> set[bytes]:
    """Send one by one, each acknowledged."""
    for value in values:
        await producer.send_and_wait(TOPIC, value)
    return set(values)


def brokers(client: Any) -> set[str]:
    """Where a producer or consumer has been told to dial."""
    metadata = (client.client if hasattr(client, "client") else client._client).cluster
    return {f"{broker.host}:{broker.port}" for broker in metadata.brokers()}


def numbered(start: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


class KafkaContract:
    """Subclass with a `testbed` fixture."""

    @pytest.fixture
    async def cluster(self, testbed: Any) -> AsyncIterator[Cluster]:
        spec = member_cluster(MemberSpec("kafka", "kafka"), nodes=1)
        async with testbed.cluster(spec) as made:
            await made.ready(KAFKA_READY_WITHIN_S)
            yield made

    async def test_a_consumer_group_through_a_cut_and_a_heal_of_one_link(
        self, cluster: Cluster
    ) -> None:
        """Only who is cut off waits; healed, it gets what it missed, and commits it."""
        async with a_producer(cluster, "c1") as producer, a_consumer(cluster, "c2", "g") as group:
            sent = await send(producer, *numbered(0, 10))
            assert await receive(group, 10) == sent
            await group.commit()

            await cluster.link_control.set({Link("c2", "kafka"): LinkFault("blackhole")})
            sent = await send(producer, *numbered(10, 10))
            assert not await _received_within(group, 0.5)

            async def held() -> int:
                return (await cluster.link_control.stats())[Link("c2", "kafka")].request.held

            await until(held, 30, "its requests wait at the cut")

            await cluster.link_control.set({Link("c2", "kafka"): None})
            assert await receive(group, 10) == sent
            await group.commit()

        async with a_producer(cluster, "c1") as producer, a_consumer(cluster, "c1", "g") as other:
            sent = await send(producer, b"last")
            assert await receive(other, 1) == sent, "the group's offsets were committed"

    async def test_no_client_leaves_its_link(self, cluster: Cluster) -> None:
        """Kafka's clients follow advertised addresses: each is told the link that it came by."""
        for source in ("c1", "c2", "n1"):
            async with a_producer(cluster, source) as producer:
                await send(producer, source.encode())
                assert brokers(producer) == {cluster.address(source, "kafka")}
        async with a_consumer(cluster, "c1", "g") as group:
            await receive(group, 3)
            assert brokers(group) == {cluster.address("c1", "kafka")}
        stats = await cluster.link_control.stats()
        assert stats[Link("c1", "kafka")].request.passed > 0

    async def test_a_cut_off_producer_gets_an_error_and_goes_on_after_the_heal(
        self, cluster: Cluster
    ) -> None:
        """Cut off, `send` fails at its deadline; another's producer does not notice."""
        async with (
            a_producer(cluster, "c1", request_timeout_ms=1000) as cut_off,
            a_producer(cluster, "c2") as other,
        ):
            await until(lambda: _sends(cut_off, b"before"), 30, "its topic is there")
            await cluster.link_control.set({Link("c1", "kafka"): LinkFault("blackhole")})
            with pytest.raises(KafkaError):
                await send(cut_off, b"during")
            await send(other, b"beside")

            await cluster.link_control.set({Link("c1", "kafka"): None})
            await until(lambda: _sends(cut_off, b"after"), 30, "the producer is back")

    async def test_every_fault_is_felt(self, cluster: Cluster, tmp_path: Path) -> None:
        """The nemesis asks Kafka in Kafka's protocol, over each link."""
        await every_fault_is_felt(cluster, tmp_path, "kafka")


class DurableKafkaContract(KafkaContract):
    """What a broker does besides that keeps its log on disk: Apache Kafka."""

    async def test_a_killed_broker_returns_with_its_data(self, cluster: Cluster) -> None:
        """Records and committed offsets outlive SIGKILL and start; clients come back by links."""
        async with a_producer(cluster, "c1", acks="all") as producer:
            async with a_consumer(cluster, "c2", "g") as group:
                sent = await send(producer, *numbered(0, 20))
                assert await receive(group, 20) == sent
                await group.commit()
            sent = await send(producer, *numbered(20, 20))
            await cluster.kill("kafka")
            assert cluster.state("kafka") == "stopped"
            assert await refuses(cluster.direct_address("kafka"))

            await cluster.start("kafka")
            await cluster.ready(KAFKA_READY_WITHIN_S)
            await until(lambda: _sends(producer, b"again"), 30, "the producer is back")
        async with a_consumer(cluster, "c2", "g") as group:
            received = await receive(group, 21)
        assert received == sent | {b"again"}, "nothing lost, nothing that was committed again"

    async def test_wiped_it_returns_empty(self, cluster: Cluster) -> None:
        """Its topics are gone with its data directory."""
        async with a_producer(cluster, "c1") as producer:
            await send(producer, b"precious")
        await cluster.kill("kafka")
        await cluster.wipe("kafka")
        await cluster.start("kafka")
        await cluster.ready(KAFKA_READY_WITHIN_S)
        consumer = AIOKafkaConsumer(bootstrap_servers=cluster.address("c1", "kafka"))
        try:
            await consumer.start()
            assert TOPIC not in await consumer.topics()
        finally:
            await consumer.stop()

    async def test_its_own_settings_reach_it(self, testbed: Any) -> None:
        """`MemberSpec.settings` are the server's own words, and win."""
        spec = member_cluster(MemberSpec("kafka", "kafka", {"num.partitions": "3"}))
        async with testbed.cluster(spec) as cluster:
            await cluster.ready(KAFKA_READY_WITHIN_S)
            async with a_producer(cluster, "c1") as producer:
                await send(producer, b"1")
                assert await producer.partitions_for(TOPIC) == {0, 1, 2}

    async def test_a_retried_record_is_written_once(self, cluster: Cluster) -> None:
        """KIP-98: an idempotent producer's retries after a lost answer make no duplicates."""
        async with (
            a_producer(cluster, "c1", enable_idempotence=True, request_timeout_ms=1000) as producer,
            a_consumer(cluster, "c2", "g") as group,
        ):
            await until(lambda: _sends(producer, b"first"), 30, "its topic is there")
            await cluster.link_control.set({Link("c1", "kafka"): LinkFault("drop", "response")})
            sending = asyncio.create_task(send(producer, b"once"))
            assert await receive(group, 2) == {b"first", b"once"}, "it was written, unanswered"
            await cluster.link_control.set({Link("c1", "kafka"): None})
            await sending
            await send(producer, b"last")
            assert (await group.getone()).value == b"last", "a second copy would come before it"


async def _received_within(consumer: Any, within_s: float) -> list[Any]:
    found = await consumer.getmany(timeout_ms=int(within_s * 1000))
    return [record for records in found.values() for record in records]


async def _sends(producer: Any, value: bytes) -> bool:
    try:
        await producer.send_and_wait(TOPIC, value)
    except KafkaError:
        return False
    return True
