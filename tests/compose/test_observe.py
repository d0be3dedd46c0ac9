"""`make observe` beside free play: Prometheus scrapes its nodes and evaluates its rules."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator

import aiohttp
import pytest
from rich.console import Console

from labs.harness.testbed import free_play, observe
from labs.harness.testbed.cluster import until
from labs.harness.testbed.members.prometheus_api import PrometheusApi
from tests.compose.engine import require_engine
from tests.compose.test_free_play import docker, inspect, service

pytestmark = [pytest.mark.compose, pytest.mark.usefixtures("docker_services")]

SEEN_WITHIN_S = 60.0


@pytest.fixture
def project(docker_compose_project_name: str) -> Iterator[str]:
    """Free play's; what was started beside it is gone afterwards."""
    require_engine("prometheus")
    yield docker_compose_project_name
    ours = {service(each): each["Id"] for each in inspect(docker_compose_project_name)}
    docker("rm", "--force", *(ours[name] for name in observe.VIEWERS if name in ours))


async def test_prometheus_watches_free_play(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node is up in its eyes and every rule is evaluated; what is missing is named."""
    monkeypatch.setenv("BROKERS", "3")
    out = io.StringIO()
    assert await asyncio.to_thread(observe.start, Console(file=out, width=300)) == 0
    told = out.getvalue()
    assert f"prometheus  {observe.url('prometheus')}" in told
    for viewer in ("grafana", "jaeger"):
        assert f"{viewer:<11} http://127.0.0.1" in told or f"{viewer:<11} not here:" in told
    async with aiohttp.ClientSession() as session:
        api = PrometheusApi(session, observe.url("prometheus").removeprefix("http://"))

        async def seen() -> bool:
            targets = await api.targets()
            rules = await api.rules()
            up = {node: targets.get(node) for node in free_play.NODES}
            # The list of targets is told before what was scraped of them can be queried.
            sum_up = await api.value('sum(up{job="nodes"})')
            alike = set(up.values()) == {"up"} and set(rules.values()) == {"ok"}
            return alike and sum_up == 5

        await until(seen, SEEN_WITHIN_S, "five nodes are up, the rules are evaluated")
    (container,) = (each for each in inspect(project) if service(each) == "prometheus")
    host = container["HostConfig"]
    assert container["Config"]["User"] == "65534:65534"
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"]) == (True, ["ALL"], None)
    assert host["PortBindings"]["9090/tcp"][0]["HostIp"] == "127.0.0.1"
