"""Redis and Kafka on the local substrate: the contract, and which servers are chosen."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed import kafka_install
from labs.harness.testbed.description import MemberSpec
from labs.harness.testbed.local import LocalTestbed
from labs.harness.testbed.registry import identify
from tests.harness.testbed.contract import READY_WITHIN_S, refuses
from tests.harness.testbed.members import (
    DurableKafkaContract,
    KafkaContract,
    RedisContract,
    member_cluster,
)
from tests.harness.testbed.test_local import MODULES


@pytest.fixture
async def testbed(tmp_path: Path) -> AsyncIterator[LocalTestbed]:
    async with LocalTestbed(tmp_path, modules=MODULES) as entered:
        yield entered


@pytest.fixture
def apache_kafka() -> None:
    """Left out where Apache Kafka can't be run; in CI that is an error."""
    if missing := kafka_install.missing():
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture
def no_apache_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where nobody has typed `make kafka`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))


class TestRedis(RedisContract):
    async def test_after_the_end_nothing_runs_or_listens(self, testbed: LocalTestbed) -> None:
        """A cluster's end takes its servers, paused ones too, its ports and its data."""
        spec = member_cluster(MemberSpec("redis", "redis"))
        async with testbed.cluster(spec) as cluster:
            await cluster.ready(READY_WITHIN_S)
            await cluster.pause("redis")
            addresses = [cluster.direct_address("redis"), cluster.address("c1", "redis")]
            pid = cluster._processes["redis"].pid
            assert identify([pid])

        assert not identify([pid])
        assert all([await refuses(address) for address in addresses])
        assert not cluster.data.exists()
        assert "Ready to accept connections" in cluster.logs("redis").read_text()


@pytest.mark.usefixtures("no_apache_kafka")
class TestEmbeddedKafka(KafkaContract):
    pass


@pytest.mark.usefixtures("apache_kafka")
class TestApacheKafka(DurableKafkaContract):
    pass
