"""Redis and Kafka on the local substrate: the contract, and which servers are chosen."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed import kafka_install
from labs.harness.testbed.local import LocalTestbed
from tests.harness.testbed.members import DurableKafkaContract, KafkaContract, RedisContract
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
    pass


@pytest.mark.usefixtures("no_apache_kafka")
class TestEmbeddedKafka(KafkaContract):
    pass


@pytest.mark.usefixtures("apache_kafka")
class TestApacheKafka(DurableKafkaContract):
    pass
