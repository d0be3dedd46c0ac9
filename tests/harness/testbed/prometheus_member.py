"""What Prometheus must do as a member of a cluster: the same tests on every substrate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labs.harness.links.control import Link
from labs.harness.testbed.cluster import Cluster, TestbedError, until
from labs.harness.testbed.description import ClusterSpec, MemberSpec, kv_cluster
from labs.harness.testbed.members.prometheus_api import PrometheusApi
from tests.harness.testbed.contract import READY_WITHIN_S, refuses
from tests.harness.testbed.members import a_nemesis, every_fault_is_felt

RULES = """
groups:
  - name: test
    interval: 500ms
    rules:
      - alert: NodeDown
        expr: up == 0
      - record: nodes:up
        expr: sum(up)
"""
SEEN_WITHIN_S = 20.0


def monitored_cluster(**settings: str) -> ClusterSpec:
    prometheus = MemberSpec("prometheus", "prometheus", settings, {"rules.yml": RULES})
    return replace(kv_cluster(3, protocol="raft", clients=("c1",)), members=(prometheus,))


def api(cluster: Cluster) -> PrometheusApi:
    return PrometheusApi(cluster.session, cluster.direct_address("prometheus"))


async def up(cluster: Cluster) -> dict[str, float]:
    return {each.labels["instance"]: each.value for each in await api(cluster).query("up")}


async def oldest(cluster: Cluster) -> float:
    """When the oldest sample was taken, Unix time."""
    url = f"http://{cluster.direct_address('prometheus')}/api/v1/query"
    async with cluster.session.get(url, params={"query": "up{instance='n1'}[10m]"}) as response:
        (series,) = (await response.json())["data"]["result"]
    return float(series["values"][0][0])


async def until_up(cluster: Cluster, **wanted: float) -> None:
    last: dict[str, float] = {}

    async def seen() -> bool:
        nonlocal last
        last = await up(cluster)
        return last == wanted

    await until(seen, SEEN_WITHIN_S, f"Prometheus sees {wanted}, it saw {last}")


async def firing(cluster: Cluster) -> set[str]:
    """Whom the alert is about."""
    alerts = await api(cluster).alerts()
    return {each.labels["instance"] for each in alerts if each.state == "firing"}


class PrometheusContract:
    """Subclass with a `testbed` fixture."""

    @pytest.fixture
    async def cluster(self, testbed: Any) -> AsyncIterator[Cluster]:
        async with testbed.cluster(monitored_cluster()) as made:
            await made.ready(READY_WITHIN_S)
            yield made

    async def test_it_watches_every_node_that_it_reaches(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        """`/metrics` of each, under its name; who is dead is told, who is cut off looks dead."""
        await until_up(cluster, n1=1, n2=1, n3=1)
        assert await api(cluster).value("count(role{job='nodes'} == 1)") == 3
        await cluster.kill("n2")
        await until_up(cluster, n1=1, n2=0, n3=1)

        async def told() -> bool:
            return await firing(cluster) == {"n2"}

        await until(told, SEEN_WITHIN_S, "the alert fires")
        assert set(await api(cluster).rules()) == {"NodeDown", "nodes:up"}
        await cluster.start("n2")
        await cluster.ready(READY_WITHIN_S)
        await until_up(cluster, n1=1, n2=1, n3=1)
        await self.a_partition_cuts_it_off(cluster, tmp_path)

    async def a_partition_cuts_it_off(self, cluster: Cluster, tmp_path: Path) -> None:
        """It dials over links of its own: a node may be well and yet unseen."""
        assert Link("prometheus", "n1") in cluster.links
        assert Link("n1", "prometheus") not in cluster.links
        with a_nemesis(cluster, tmp_path) as nemesis:
            cut = nemesis.partition([["prometheus", "n2", "n3"], ["n1"]])
            async with cut as fault:
                assert await fault.felt(), fault.record
                await until_up(cluster, n1=0, n2=1, n3=1)
            assert fault.record.recovered, fault.record
        await until_up(cluster, n1=1, n2=1, n3=1)

    async def test_killed_it_refuses_and_returns_with_its_series(self, cluster: Cluster) -> None:
        """FAULTS.md: kill: "SIGKILL; disk survives". A wipe takes the series."""
        await until_up(cluster, n1=1, n2=1, n3=1)
        first = await oldest(cluster)
        await cluster.kill("prometheus")
        assert await refuses(cluster.direct_address("prometheus"))
        await cluster.start("prometheus")
        await cluster.ready(READY_WITHIN_S)
        await until_up(cluster, n1=1, n2=1, n3=1)
        assert await oldest(cluster) == first
        with pytest.raises(TestbedError, match="prometheus is running"):
            await cluster.wipe("prometheus")
        await cluster.kill("prometheus")
        await cluster.wipe("prometheus")
        await cluster.start("prometheus")
        await cluster.ready(READY_WITHIN_S)
        await until_up(cluster, n1=1, n2=1, n3=1)
        assert await oldest(cluster) > first, "the old series are gone"

    async def test_its_own_settings_reach_it(self, testbed: Any, tmp_path: Path) -> None:
        """Flags are Prometheus' own words, and win; what runs is told; every fault is felt."""
        spec = monitored_cluster(**{"query.lookback-delta": "7s", "web.enable-admin-api": "true"})
        async with testbed.cluster(spec) as cluster:
            await cluster.ready(READY_WITHIN_S)
            address = cluster.direct_address("prometheus")
            async with cluster.session.get(f"http://{address}/api/v1/status/flags") as response:
                flags = (await response.json())["data"]
            assert flags["query.lookback-delta"] == "7s"
            assert flags["web.enable-admin-api"] == "true"
            (flavour,) = cluster.member_flavours().values()
            assert flavour.startswith(("prometheus 2.", "prometheus 3."))
            await every_fault_is_felt(cluster, tmp_path, "prometheus")
