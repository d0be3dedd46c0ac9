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
    """Counted again from the file: so many from the strike on, and how many of them failed."""
    _, verdict, directory = passed
    [dead, site] = [fault for fault in verdict["faults"] if fault["variant"] == "one instance"]
    history = load(directory / "one-instance" / "history.jsonl")
    figures = verdict["variants"][1]["figures"]
    begin_ns = int(dead["injected_at"] * 1e9) - 50_000_000  # what was under way is its, too
    sent = [op for op in history.ops if op.client == "c1" and op.invoke_ns >= begin_ns]
    counted = sorted(sent, key=lambda op: op.invoke_ns)[: figures["replica_asked"]]
    end_ns = counted[-1].invoke_ns
    # Those that had not ended when it was counted were left out, for others.
    under_way = sum(op.invoke_ns <= end_ns <= (op.return_ns or end_ns) for op in sent)

    assert abs(sum(op.type == "fail" for op in counted) - figures["replica_lost"]) <= under_way
    assert under_way < figures["replica_asked"] / 2
    assert figures["replica_lost"] > figures["replica_asked"] / 2
    assert (dead["target"], site["target"]) == ("web-1", "web-1 n1")


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: nobody died, so the run shows nothing: invalid, exit code 2."""
    answer = labs("run", "availability", ON="local", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert verdict_of(answer.stdout)[0]["verdict"] == "invalid"
