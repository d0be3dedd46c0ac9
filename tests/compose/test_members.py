"""Redis and Kafka on the Compose substrate: the real servers of the images, the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed.compose import ComposeTestbed
from tests.compose.engine import TESTS_MOUNT, require_engine
from tests.harness.testbed.members import DurableKafkaContract, RedisContract

pytestmark = pytest.mark.compose


@pytest.fixture
async def testbed(tmp_path: Path) -> AsyncIterator[ComposeTestbed]:
    engine = require_engine("redis", "kafka")
    async with ComposeTestbed(tmp_path, engine, mounts=TESTS_MOUNT) as entered:
        yield entered


class TestRedis(RedisContract):
    pass


class TestApacheKafka(DurableKafkaContract):
    pass
