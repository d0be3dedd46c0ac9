"""Members as containers: the real servers of the images, the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed.compose import ComposeTestbed
from labs.harness.testbed.description import MemberSpec
from tests.compose.engine import TESTS_MOUNT, require_engine
from tests.harness.testbed.members import (
    KAFKA_READY_WITHIN_S,
    DurableKafkaContract,
    KafkaContract,
    MemcachedContract,
    RedisContract,
    member_cluster,
)
from tests.harness.testbed.rabbitmq import RabbitMQContract

pytestmark = pytest.mark.compose


@pytest.fixture
async def testbed(tmp_path: Path) -> AsyncIterator[ComposeTestbed]:
    engine = require_engine("redis", "kafka", "memcached")
    async with ComposeTestbed(tmp_path, engine, mounts=TESTS_MOUNT) as entered:
        yield entered


class TestRedis(RedisContract):
    pass


class TestMemcached(MemcachedContract):
    pass


class TestApacheKafka(DurableKafkaContract):
    pass


class TestRabbitMQ(RabbitMQContract):
    @pytest.fixture
    async def testbed(self, tmp_path: Path) -> AsyncIterator[ComposeTestbed]:
        async with ComposeTestbed(tmp_path, require_engine("rabbitmq")) as entered:
            yield entered


async def test_links_to_members_are_cut_by_packets_too(tmp_path: Path) -> None:
    """`FAULTS=packets`: the same holds of Redis and Kafka."""
    engine = require_engine("redis", "kafka")
    spec = member_cluster(MemberSpec("redis", "redis"), MemberSpec("kafka", "kafka"), nodes=1)
    testbed = ComposeTestbed(tmp_path, engine, plane="packets", mounts=TESTS_MOUNT)
    async with testbed, testbed.cluster(spec) as cluster:
        await cluster.ready(KAFKA_READY_WITHIN_S)
        await RedisContract().test_set_and_get_through_a_cut_and_a_heal(cluster)
        await RedisContract().test_a_partition_may_name_it(cluster, tmp_path)
        await KafkaContract().test_no_client_leaves_its_link(cluster)
        await KafkaContract().test_a_cut_off_producer_gets_an_error_and_goes_on_after_the_heal(
            cluster
        )
