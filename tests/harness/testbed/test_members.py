"""Members on the local substrate: the contract, and which servers are chosen."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed.description import MemberSpec
from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.local import LocalCluster, LocalTestbed
from labs.harness.testbed.members import kafka_install, rabbitmq
from labs.harness.testbed.registry import identify
from tests.harness.testbed.contract import READY_WITHIN_S, refuses
from tests.harness.testbed.members import (
    DurableKafkaContract,
    KafkaContract,
    MemcachedContract,
    RedisContract,
    member_cluster,
)
from tests.harness.testbed.rabbitmq import RabbitMQContract
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


class TestMemcached(MemcachedContract):
    pass


@pytest.fixture
def installed_rabbitmq() -> None:
    """Left out where there is no RabbitMQ; in CI that is an error."""
    try:
        rabbitmq.find()
    except TestbedError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


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
    def test_make_kafka_again_has_nothing_to_do(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It fetches once, and says where Kafka is."""
        assert kafka_install.main() == 0
        assert f"is here: {kafka_install.home()}" in capsys.readouterr().out

    async def test_a_polite_stop_is_heard(self, cluster: LocalCluster) -> None:
        """SIGTERM reaches the JVM itself: it closes its log in order, and ends with 143."""
        await cluster.stop_node("kafka", grace_s=20)

        assert cluster._processes["kafka"].exit_code in (0, 143)
        assert "shut down completed" in cluster.logs("kafka").read_text()


def epmds() -> set[str]:
    """The process ids of all of Erlang's port mapper daemons on this machine."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == "epmd":
                found.add(process.name)
        except OSError:
            continue  # it has just ended
    return found


@pytest.mark.usefixtures("installed_rabbitmq")
class TestRabbitMQ(RabbitMQContract):
    async def test_nothing_of_erlang_is_left(
        self, cluster: LocalCluster, testbed: LocalTestbed
    ) -> None:
        """No `epmd`, which the first Erlang node of a machine starts and which outlives them all;
        nothing outside the cluster's data."""
        before = epmds()
        pid = cluster._processes["rabbitmq"].pid
        assert pid is not None
        name = (cluster.data / "rabbitmq" / "node").glob("rabbitmq-*@localhost")
        assert len([each for each in name if each.is_dir() and "-plugins" not in each.name]) == 1
        await cluster.stop()

        assert not identify([pid])
        assert epmds() <= before
        assert not cluster.data.exists()


def test_without_rabbitmq_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent: needs …, type: …; and so does `make doctor`."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(TestbedError, match=r"needs RabbitMQ.*sudo apt-get install rabbitmq-server"):
        rabbitmq.find()
    line = rabbitmq.RabbitMQ().doctor()
    assert not line.here
    assert line.remedy == "sudo apt-get install rabbitmq-server"
