"""lab-availability end to end: redundancy that somebody watches, against one instance and against
redundancy that nobody watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labs.harness.history import load
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def passed() -> tuple[str, dict[str, Any], Path]:
    """One run of the lab, shared by the tests that look at it."""
    answer = labs("run", "availability", ON="local", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_both_controls_break_in_their_own_way(passed: tuple[str, dict[str, Any], Path]) -> None:
    """One instance loses nearly everything; without health checks the dead keep their share."""
    _, verdict, _ = passed
    good, one, blind = (variant["figures"] for variant in verdict["variants"])

    assert verdict["verdict"] == "pass"
    assert [v["outcome"] for v in verdict["variants"]] == ["holds", "breaks", "breaks"]
    assert good["replica_lost"] == good["site_lost"] == 0
    assert good["site_asked"] >= 60
    assert one["share"] > 0.9
    assert 0.1 < blind["replica_lost"] / blind["replica_asked"] < 0.5
    assert 0.3 < blind["share"] < 0.75
    assert good["nines"] > blind["nines"] > one["nines"]
    assert good["took_over"]
    assert blind["took_over"]
    assert not one["took_over"]


def test_the_figures_are_those_of_the_history(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Counted again from the file: requests that failed between the strike and the heal."""
    _, verdict, directory = passed
    [dead, site] = [fault for fault in verdict["faults"] if fault["variant"] == "one instance"]
    history = load(directory / "one-instance" / "history.jsonl")
    failed = [
        op
        for op in history.ops
        if op.client == "c1"
        and op.type == "fail"
        and dead["injected_at"] <= op.invoke_ns / 1e9 < dead["healed_at"]
    ]

    figures = verdict["variants"][1]["figures"]
    assert abs(len(failed) - figures["replica_lost"]) <= 3  # of those under way at the edges
    assert (dead["target"], site["target"]) == ("web-1", "web-1 n1")


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: nobody died, so the run shows nothing: invalid, exit code 2."""
    answer = labs("run", "availability", ON="local", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert verdict_of(answer.stdout)[0]["verdict"] == "invalid"
