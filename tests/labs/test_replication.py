"""lab-replication end to end: what each way of replicating promises is kept; both failovers that go
by less lose writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labs.harness.checkers import check_lost_writes
from labs.harness.history import load
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow

NAMES = ["asynchronous", "naive", "semi-synchronous", "synchronous", "multi-leader", "leaderless"]


@pytest.fixture(scope="module", params=["local", "simulation"])
def passed(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], Path]:
    """One run on each of the substrates that need no engine."""
    answer = labs("run", "replication", ON=request.param, SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_only_failover_that_goes_by_less_loses_writes(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Asynchronous, and semi-synchronous with the lower id promoted; nothing else of them fails."""
    _, verdict, _ = passed
    variants = verdict["variants"]

    assert [each["name"] for each in variants] == NAMES
    assert [each["outcome"] for each in variants] == ["breaks"] * 2 + ["holds"] * 4
    for each in variants[:2]:
        broken = [claim["text"] for claim in each["claims"] if claim["holds"] is False]
        assert broken == ["After the failover no acknowledged write is lost"]


def test_the_figures_are_those_of_the_history(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Lost writes, counted again from the file; and what each mode must cost."""
    _, verdict, directory = passed
    figures = {each["name"]: each["figures"] for each in verdict["variants"]}

    for name in NAMES:
        stats = check_lost_writes(load(directory / name / "history.jsonl")).stats
        assert len(stats["lost_writes"]) == figures[name]["lost"], name
        assert stats["judged"] == stats["acknowledged"] == figures[name]["acknowledged"], name
    assert min(figures[name]["lost"] for name in NAMES[:2]) > 0
    assert figures["synchronous"]["went_on"] == 0 < figures["synchronous"]["cut_asked"]
    assert figures["synchronous"]["write_ms"] >= 95, "the farthest replica's round trip"
    assert figures["leaderless"]["write_ms"] >= 28, "the nearest one's"
    assert figures["multi-leader"]["missing"] > 0, "with the dead leader alone, and back with it"
    told = [figures[name]["conflicts"] for name in NAMES]
    assert told[:4] == [0] * 4
    assert min(told[4:]) > 0


def test_the_answer_is_told(passed: tuple[str, dict[str, Any], Path]) -> None:
    """In this run's figures."""
    output, verdict, _ = passed
    lost = verdict["variants"][0]["figures"]["lost"]

    assert f"cost {lost} acknowledged" in " ".join(output.split())


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: nothing was felt, so nothing was shown."""
    answer = labs("run", "replication", ON="simulation", SEED="7", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout
    assert verdict_of(answer.stdout)[0]["verdict"] == "invalid"
