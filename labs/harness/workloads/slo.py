"""A service level objective for writes, watched by a Prometheus of the cluster's own.

A write counts against the budget when the service failed it: it was unavailable, ran out of time,
or had a bug. What the caller did wrong (4xx) and a word on who leads (421) do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from labs.harness.lab.watched import Firing, Watched
from labs.harness.testbed.description import ClusterSpec, MemberSpec

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage
    from labs.harness.testbed.members.prometheus_api import PrometheusApi

# Three times a second, and windows of five scrapes at least: with one scrape in it a node's good
# writes are missing from the sum, and what a busy leader did well looks like everybody's failure.
QUICK = {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "200ms"}
STEP_S = 0.2
FAILURES = "unavailable|deadline-exceeded|connection-lost|internal-error"


def monitored(cluster: ClusterSpec, rules: str) -> ClusterSpec:
    """The cluster with a Prometheus (member "prometheus") that evaluates `rules` (YAML)."""
    prometheus = MemberSpec("prometheus", "prometheus", QUICK, {"rules.yml": rules})
    return replace(cluster, members=(*cluster.members, prometheus))


def error_rules(windows: Iterable[str]) -> str:
    """A rule group: for each window ("8s") `errors:8s`, the share of writes that failed in it, and
    `failed:8s`, how many did."""
    lines = ["- name: errors", "  rules:"]
    for window in windows:
        failed = _failed(window)
        lines += [
            f"  - {{record: 'failed:{window}', expr: '{failed}'}}",
            f"  - {{record: 'errors:{window}', expr: '{failed} / {_all(window)}'}}",
        ]
    return "\n".join(lines) + "\n"


def _failed(window: str) -> str:
    return f'sum(increase(requests_total{{method="PUT",outcome=~"{FAILURES}"}}[{window}]))'


def _all(window: str) -> str:
    return f'sum(increase(requests_total{{method="PUT"}}[{window}]))'


async def keep(stage: Stage, alarm: PrometheusApi, since: float) -> None:
    """Leave what Prometheus saw from `since` on (by its clock) for the report's picture.

    Asked of what was scraped, not of recorded rules: variants without those show the same curves.
    """
    now = await alarm.now()
    zero = now - stage.now_ns() / 1e9
    curves = {}
    for window in ("1500ms", "15s"):
        ratio = f"{_failed(window)} / {_all(window)}"
        series = await alarm.over_time(ratio, since, now, STEP_S)
        curves[f"writes that failed, over {window}"] = [
            (float(at) - zero, float(share))
            for each in series
            for at, share in each["values"]
            if share != "NaN"
        ]
    firings = []
    for each in await alarm.over_time('ALERTS{alertstate="firing"}', since, now, STEP_S):
        for begin, end in _stretches([float(at) - zero for at, _ in each["values"]]):
            firings.append(Firing(each["metric"]["alertname"], begin, end))
    firings.sort(key=lambda each: each.begin_s)
    Watched("what Prometheus saw", curves, firings).save(stage.directory)


def _stretches(times: list[float]) -> list[tuple[float, float]]:
    """Times at steps of `STEP_S`, as stretches without a gap."""
    found: list[tuple[float, float]] = []
    for at in times:
        if found and at - found[-1][1] < 1.5 * STEP_S:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at, at))
    return [(begin, end + STEP_S) for begin, end in found]


def in_words(fired: Mapping[str, float], since: float) -> str:
    """`BurnFast after 1.8 s`: what `PrometheusApi.fired` gave, in order; "no alert fired"."""
    ordered = sorted(fired.items(), key=lambda each: each[1])
    return ", ".join(f"{name} after {at - since:.1f} s" for name, at in ordered) or "no alert fired"
