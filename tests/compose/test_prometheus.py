"""Prometheus on the Compose substrate: the image or its stand-in, the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed.compose import ComposeTestbed
from tests.compose.engine import require_engine
from tests.harness.testbed.contract import READY_WITHIN_S
from tests.harness.testbed.prometheus_member import PrometheusContract, monitored_cluster, until_up

pytestmark = pytest.mark.compose


class TestPrometheus(PrometheusContract):
    @pytest.fixture
    async def testbed(self, tmp_path: Path) -> AsyncIterator[ComposeTestbed]:
        async with ComposeTestbed(tmp_path, require_engine("prometheus")) as entered:
            yield entered


async def test_its_links_are_cut_by_packets_too(tmp_path: Path) -> None:
    """`FAULTS=packets`: the rules are in Prometheus' own pod."""
    testbed = ComposeTestbed(tmp_path, require_engine("prometheus"), plane="packets")
    async with testbed, testbed.cluster(monitored_cluster()) as cluster:
        await cluster.ready(READY_WITHIN_S)
        await until_up(cluster, n1=1, n2=1, n3=1)
        await PrometheusContract().a_partition_cuts_it_off(cluster, tmp_path)
