"""The Compose substrate: the contract, both ways in which a runner reaches its containers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed import compose_owners
from labs.harness.testbed.compose import ComposeTestbed
from tests.compose.engine import TESTS_MOUNT, left_in_engine, require_engine
from tests.harness.testbed.contract import SubstrateContract, hangs_up

pytestmark = pytest.mark.compose


class TestCompose(SubstrateContract):
    """Containers are dialled by their own addresses, if they can be reached by them."""

    published: bool | None = None

    @pytest.fixture
    async def testbed(self, tmp_path: Path) -> AsyncIterator[ComposeTestbed]:
        engine = require_engine()
        testbed = ComposeTestbed(tmp_path, engine, mounts=TESTS_MOUNT, published=self.published)
        async with testbed:
            self.label = f"{compose_owners.RUN}={testbed.run}"
            yield testbed
        assert not left_in_engine(self.label)

    async def check_nothing_is_left(self, addresses: list[str]) -> None:
        """The addresses went with the network; the engine knows what is left."""
        assert not left_in_engine(self.label)


class TestComposePublished(TestCompose):
    """As on Docker Desktop: through ports published on 127.0.0.1, whose relay accepts first."""

    published = True

    async def refuses(self, address: str) -> bool:
        return await hangs_up(address)
