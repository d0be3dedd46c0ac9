"""lab-tracing end to end: one trace names what is slow; one forgetful service breaks the join."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labs.harness.history import load
from labs.harness.testbed.shop import shop_cluster
from labs.harness.traces import collect
from tests.labs.test_cli import ROOT, labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def passed() -> tuple[str, dict[str, Any], Path]:
    """One run of the lab, shared by the tests that look at it."""
    answer = labs("run", "tracing", ON="local", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_one_trace_names_what_is_slow(passed: tuple[str, dict[str, Any], Path]) -> None:
    """The diagnosis says what the nemesis did; in the control the trace ends before."""
    _, verdict, _ = passed
    good, broken = verdict["variants"]

    assert verdict["verdict"] == "pass"
    assert (good["outcome"], broken["outcome"]) == ("holds", "breaks")
    struck = verdict["faults"][0]
    assert struck["felt"]
    assert struck["recovered"]
    where = good["figures"]["where"]
    assert struck["target"].startswith(where), (struck["target"], where)
    assert good["figures"]["own_ms"] > 300
    assert "where the trace ends" in broken["claims"][0]["evidence"]


def test_every_spans_parent_is_present(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Every span's parent is present for at least 99.9 % of operations: counted again, from the
    files, over all that was recorded."""
    _, verdict, directory = passed
    own = directory / "passed-on"
    traces = collect(
        load(own / "history.jsonl"),
        own.glob("*.events.jsonl"),
        verdict["variants"][0]["start_ns"],
    )
    recorded = [trace for trace in traces if trace.op.extra.get("sampled") is not False]
    whole = [trace for trace in recorded if trace.spans and not trace.orphans]

    assert len(recorded) >= 50
    assert len(whole) >= 0.999 * len(recorded)
    undrawn = [trace for trace in traces if trace.op.extra.get("sampled") is False]
    assert undrawn
    assert not any(trace.spans or trace.told_by for trace in undrawn)


def test_every_service_tells_of_the_request(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Each line of a request carries its id, in the logs of all services, in `make logs` too."""
    output, _, directory = passed
    history = load(directory / "passed-on" / "history.jsonl")
    request_id = history.ops[10].extra["request_id"]
    told = {
        path.stem.split(".")[0]
        for path in (directory / "passed-on").glob("*.events.jsonl")
        for line in path.read_text().splitlines()
        if json.loads(line).get("request_id") == request_id
    }

    assert {"gateway", "inventory"} < told
    assert any(name.startswith("orders") for name in told)
    assert any(name.startswith("n") for name in told)
    shown = labs("logs", "--request", request_id, RUN=str(directory.relative_to(ROOT)))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "to inventory: PUT /reservations/" in shown.stdout
    assert "Verdict PASS" in output


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: nothing was slow, so the run shows nothing: invalid, exit code 2."""
    answer = labs("run", "tracing", ON="local", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert verdict_of(answer.stdout)[0]["verdict"] == "invalid"


def test_the_cluster_has_the_links_that_orders_travel_and_no_other() -> None:
    """A node dials whom it needs: the seed can hide nothing where no order comes by."""
    spec = shop_cluster()
    links = {str(link) for link in spec.links if link.src != "c1"}

    assert "orders-1→inventory" in links
    assert "inventory→n1" in links
    assert not any(link.startswith("inventory→orders") for link in links)
