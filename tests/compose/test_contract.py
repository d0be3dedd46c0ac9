"""The Compose substrate: the contract, and what is true of containers alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed.compose import ComposeTestbed
from tests.compose.engine import TESTS_MOUNT, require_engine
from tests.harness.testbed.contract import SubstrateContract


class TestCompose(SubstrateContract):
    @pytest.fixture
    async def testbed(self, tmp_path: Path) -> AsyncIterator[ComposeTestbed]:
        async with ComposeTestbed(tmp_path, require_engine(), mounts=TESTS_MOUNT) as testbed:
            yield testbed
