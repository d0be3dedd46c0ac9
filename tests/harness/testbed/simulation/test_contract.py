"""The simulation substrate keeps the contract of every substrate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed.simulation.cluster import SimulatedTestbed
from tests.harness.testbed.contract import SubstrateContract

# Of the echo service, which runs in this process here.
pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")


class TestSimulation(SubstrateContract):
    @pytest.fixture
    async def testbed(self, tmp_path: Path) -> AsyncIterator[SimulatedTestbed]:
        async with SimulatedTestbed(tmp_path) as testbed:
            yield testbed
