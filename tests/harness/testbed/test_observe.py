"""What `make observe` shows: rules, data sources and the dashboard, held against a real Prometheus.

Goal: no panel and no alert asks for what nobody measures; every expression is one.
Method: promtool for the files; a Prometheus with these very rules scrapes a real cluster, and is
asked each expression of rules and dashboard.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from labs.harness.testbed import compose_images, free_play, observe
from labs.harness.testbed.cluster import Cluster, until
from labs.harness.testbed.compose_images import NoImages
from labs.harness.testbed.description import MemberSpec, kv_cluster
from labs.harness.testbed.local import LocalTestbed
from labs.harness.testbed.members import prometheus
from labs.harness.testbed.members.prometheus_api import PrometheusApi
from services.kv.client import KvClient
from tests.harness.testbed.contract import READY_WITHIN_S
from tests.harness.testbed.test_prometheus import require_prometheus

GRAFANA = observe.FILES / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
RULES = (observe.FILES / "rules.yml").read_text()
SEEN_WITHIN_S = 20.0
WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless",
         "bool", "offset", "inf", "nan"}  # fmt: skip


def panels(dashboard: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression."""
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{dashboard.name}: {panel['title']}", target["expr"]


def metrics(expression: str) -> set[str]:
    """The names of metrics in a PromQL expression."""
    bare = re.sub(r'"[^"]*"|\'[^\']*\'', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\(|[a-zA-Z0-9_:])", bare)
    return {name for name in names if name.lower() not in WORDS}


def test_names_are_found() -> None:
    """The reader of expressions reads: functions, labels and words are no metrics."""
    said = 'max by (instance) (role{role=~"a|b"}) or 0 * up{job="x"} > bool rate(foo:bar_total[5m])'
    assert metrics(said) == {"role", "up", "foo:bar_total"}


def promtool(*words: str) -> str:
    require_prometheus()
    done = subprocess.run(
        ["promtool", *words], cwd=observe.FILES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_configuration_and_rules() -> None:
    """And the rules do what they say: rules_test.yml has an outage, a blip and a slow leak."""
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", "rules.yml")
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.name)
def test_the_dashboard_is_one(dashboard: Path) -> None:
    """Grafana would show nothing for a data source, an id or a place that is not right."""
    document = json.loads(dashboard.read_text())
    sources = (GRAFANA / "provisioning" / "datasources" / "datasources.yml").read_text()
    uids = set(re.findall(r"uid: (\S+)", sources))
    assert document["uid"]
    assert document["schemaVersion"] >= 36
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    for panel in document["panels"]:
        assert panel["title"], panel["id"]
        assert panel["datasource"]["uid"] in uids
        assert all(target["datasource"]["uid"] in uids for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, f"{panel['title']} sticks out"
        assert not cells & taken, f"{panel['title']} covers another"
        taken |= cells


def test_the_files_are_where_compose_puts_them() -> None:
    """compose.yaml mounts them; the provider of dashboards and the home page name that place."""
    whole = (observe.ROOT / "compose.yaml").read_text()
    provider = (GRAFANA / "provisioning" / "dashboards" / "dashboards.yml").read_text()
    assert "path: /etc/grafana/dashboards" in provider
    assert "source: ./compose/observe/grafana/dashboards, target: /etc/grafana/dashboards" in whole
    home = re.search(r"HOME_DASHBOARD_PATH: /etc/grafana/dashboards/(\S+)", whole)
    assert home
    assert (GRAFANA / "dashboards" / home[1]).exists()
    for viewer, image in {**compose_images.OFFICIAL, **compose_images.VIEWERS}.items():
        if viewer in observe.VIEWERS:
            assert f"${{{viewer.upper()}_IMAGE:-{image}}}" in whole


@pytest.fixture
async def scraped(tmp_path: Path) -> AsyncIterator[tuple[Cluster, PrometheusApi]]:
    """A cluster with some writes behind it, under a Prometheus with the rules of free play."""
    require_prometheus()
    member = MemberSpec("prometheus", "prometheus", files={"rules.yml": RULES})
    otlp = {"KV_OTLP": "http://127.0.0.1:9"}  # nobody there: spans are counted as dropped
    spec = replace(kv_cluster(3, protocol="raft", environment=otlp), members=(member,))
    async with LocalTestbed(tmp_path) as testbed, testbed.cluster(spec) as cluster:
        await cluster.ready(READY_WITHIN_S)
        api = PrometheusApi(cluster.session, cluster.direct_address("prometheus"))
        addresses = {node: cluster.direct_address(node) for node in cluster.nodes}
        async with KvClient(addresses) as client:
            await client.put("key", 1)

            async def seen() -> bool:
                await client.put("key", 2)
                writes = 'sum(rate(requests_total{method="PUT", outcome="ok"}[30s])) > 0'
                rules = await api.rules()
                recorded = await api.query('{__name__=~"job:.*"}')
                return (
                    bool(await api.query(writes))
                    and set(rules.values()) == {"ok"}
                    and len(recorded) == RULES.count("record:")
                )

            await until(seen, SEEN_WITHIN_S, "writes are seen, every rule is evaluated")
            yield cluster, api


async def test_every_expression_asks_for_what_is_measured(
    scraped: tuple[Cluster, PrometheusApi],
) -> None:
    """Each metric of rules and dashboard is in a real `/metrics`, or is recorded by a rule."""
    cluster, api = scraped
    address = f"http://{cluster.direct_address('prometheus')}/api/v1"
    async with cluster.session.get(f"{address}/label/__name__/values") as response:
        known = set((await response.json())["data"]) | {"ALERTS"}
    async with cluster.session.get(f"{address}/metadata") as response:
        known |= set((await response.json())["data"])  # also what has no value yet
    async with cluster.session.get(f"{address}/rules") as response:
        groups = (await response.json())["data"]["groups"]
    asked = [(rule["name"], rule["query"]) for group in groups for rule in group["rules"]]
    assert len(asked) >= 10
    for where, expression in [*asked, *expressions()]:
        assert metrics(expression) <= known, f"{where}: {metrics(expression) - known}"
    empty = {where for where, expression in expressions() if not await api.query(expression)}
    quiet = {"Alerts", "Messages between nodes per second"}  # none fires, none is dropped
    assert {where.partition(": ")[2] for where in empty} <= quiet


def no_image(kind: str, *_: object, **__: object) -> str:
    if kind == "prometheus":
        return "faultline/prometheus:standin"
    raise NoImages(f"the image of {kind} can't be pulled (no such host); type: make images-offline")


def test_what_can_not_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each viewer by itself: why it is not here, and how to name another image."""
    started: list[dict[str, str]] = []
    monkeypatch.setattr(compose_images, "base", no_image)
    monkeypatch.setattr(observe.compose_engine, "find", lambda: None)

    def up(_: Console, more: dict[str, str]) -> int:
        started.append(more)
        return 0

    async def at_once(_: tuple[str, ...]) -> None: ...

    monkeypatch.setattr(free_play, "up", up)
    monkeypatch.setattr(observe, "_wait_for", at_once)
    out = io.StringIO()

    assert observe.start(Console(file=out, width=200)) == 0
    assert started == [
        {"COMPOSE_PROFILES": "prometheus", "PROMETHEUS_IMAGE": "faultline/prometheus:standin"}
    ], "and no spans are sent to nobody"
    told = out.getvalue()
    assert "prometheus  http://127.0.0.1:9090" in told
    assert "jaeger      not here: the image of jaeger can't be pulled" in told
    assert "make observe GRAFANA_IMAGE=<name>" in told


def test_a_prometheus_of_this_machine_will_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No image at all: the distribution's runs in the foreground, on free play's ports."""
    ran: list[tuple[list[str], str]] = []

    def foreground(command: list[str]) -> int:
        file = Path(command[1].partition("=")[2])
        ran.append((command, file.read_text()))
        return 0

    monkeypatch.setattr(observe, "_foreground", foreground)
    monkeypatch.setattr(prometheus, "find", lambda: "/usr/bin/prometheus")
    monkeypatch.setenv("PORT_PREFIX", "8")
    out = io.StringIO()

    assert observe._of_this_machine(Console(file=out, width=200)) == 0
    ((command, text),) = ran
    assert "until Ctrl-C" in out.getvalue()
    assert "127.0.0.1:8005" in text
    assert "rules.yml" in text
    assert not Path(command[1].partition("=")[2]).exists(), "its data go with it"
    monkeypatch.setattr(prometheus, "find", lambda: "")
    assert observe._of_this_machine(Console(file=out, width=200)) == free_play.UNAVAILABLE
    assert prometheus.REMEDY in out.getvalue()
