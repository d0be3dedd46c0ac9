"""Prometheus on the local substrate: the contract, its configuration, and what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labs.harness.testbed.description import MemberSpec
from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.local import LocalTestbed
from labs.harness.testbed.members import KINDS, prometheus
from labs.harness.testbed.ports import PortReservation
from tests.harness.testbed.prometheus_member import PrometheusContract


def require_prometheus() -> None:
    """Left out where Prometheus is not installed; in CI that is an error."""
    if prometheus.find():
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI nothing may be left out; type {prometheus.REMEDY}")
    pytest.skip(f"needs Prometheus: {prometheus.REMEDY}")


class TestPrometheus(PrometheusContract):
    @pytest.fixture
    async def testbed(self, tmp_path: Path) -> AsyncIterator[LocalTestbed]:
        require_prometheus()
        async with LocalTestbed(tmp_path) as entered:
            yield entered


def test_without_it_the_message_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: what is missing and what to type."""
    monkeypatch.setenv("PATH", "/nonexistent")
    ports = PortReservation()
    with pytest.raises(TestbedError, match=r"needs Prometheus.*sudo apt-get install prometheus"):
        KINDS["prometheus"].local(MemberSpec("prometheus", "prometheus"), ports)
    ports.close()
    assert not KINDS["prometheus"].doctor().here


def test_each_node_is_a_target_under_its_name() -> None:
    """The name, not the address of a link, is what alerts and dashboards show."""
    settings, files = {"scrape_interval": "250ms", "log.level": "warn"}, {"b.yml": "", "a.yml": ""}
    member = MemberSpec("prometheus", "prometheus", settings, files)
    made = json.loads(prometheus.configuration({"n1": "10.0.0.2:7"}, member))

    (job,) = made["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["10.0.0.2:7"], "labels": {"instance": "n1"}}]
    assert made["rule_files"] == ["a.yml", "b.yml"]
    assert made["global"]["scrape_interval"] == "250ms"
    assert made["global"]["evaluation_interval"] == "500ms"
