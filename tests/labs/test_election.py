"""lab-election end to end: who acts late, who refuses it, and a run that a seed determines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow

KIND = ("resource", "write")
DEADLINE_NS = 2_000_000_000  # of a write to the resource (services/resource/client.py)
FENCE = "No act of a former holder is accepted after one of its successor"


@pytest.fixture(scope="module", params=["local", "simulation"])
def passed(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], Path]:
    """One run on each substrate, shared by the tests that look at it."""
    answer = labs("run", "election", ON=request.param, SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_the_fence_alone_tells_the_variants_apart(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Same faults, same late acts: refused here, accepted there. Consensus holds in both."""
    _, verdict, _ = passed
    fenced, unfenced = verdict["variants"]
    virtual = verdict["substrate"] == "simulation"

    assert all(claim["holds"] for claim in fenced["claims"])
    assert [claim["text"] for claim in unfenced["claims"] if not claim["holds"]] == [FENCE]
    for figures in (fenced["figures"], unfenced["figures"]):
        assert figures["woken"] >= 1
        assert figures["slow"] >= 1
        assert figures["late"] == figures["woken"] + figures["slow"]
        assert (figures["waited"], figures["acknowledged"]) == (20, 0)
        assert figures["both_ms"] > 0, "the slow clock made two holders, fence or not"
        assert figures["consensus_s"] > 0
        if virtual:  # else votes may be split, and the second election end after the lease
            assert figures["consensus_s"] < figures["lease_s"]
        assert figures["leases"] >= 3
    assert fenced["figures"]["taken"] == 0
    assert unfenced["figures"]["taken"] == unfenced["figures"]["late"]


def test_the_faults_were_felt_and_are_over(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Two pauses and a slow clock, in both variants."""
    _, verdict, _ = passed

    assert [fault["name"] for fault in verdict["faults"]] == ["pause", "pause", "drift"] * 2
    assert all(fault["felt"] and fault["recovered"] for fault in verdict["faults"])


def test_two_acts_tell_the_violation(passed: tuple[str, dict[str, Any], Path]) -> None:
    """The control's counterexample: the new holder's act, then the former one's; and the history
    is judged alike by whoever reads it again."""
    output, verdict, directory = passed
    told = next(c for c in verdict["variants"][1]["claims"] if c["text"] == FENCE)

    assert told["evidence"].endswith("fencing violation")
    assert len(told["counterexample"]) == 2
    assert " although token " in told["counterexample"][1]
    assert "two leaders, one overwriting the other" in " ".join(output.split())
    for name, code in (("fenced", 0), ("unfenced", 1)):
        again = labs("check", str(directory / name / "history.jsonl"), "--model", "lock-safety")
        assert again.returncode == code, again.stdout + again.stderr


def test_the_acts_of_the_history_are_those_that_the_resource_took(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """The workers' own telling against the resource's: no act is missing, none is made up."""
    _, verdict, directory = passed

    for variant in verdict["variants"]:
        told = lines(directory / variant["name"] / "r1.events.jsonl")
        taken = {each["request_id"]: each["monotonic_ns"] for each in told if each.get("position")}
        history = lines(directory / variant["name"] / "history.jsonl")
        told_of = [each for each in history if (each["key"], each["f"]) == KIND]
        writes = [each for each in told_of if each["type"] in ("ok", "info")]
        ops = [each for each in writes if each["type"] == "ok"]
        accepted = {op["value"] for op in ops}
        # Paused for longer than its deadline between the request and the answer: it does not know.
        unknown = {op["value"] for op in writes} - accepted
        assert len(accepted) > 40
        assert accepted <= taken.keys()
        # What was taken at the very end may have been told too late for the history: a worker
        # tells of an act when it has its answer, or has given it up.
        end_ns = variant["start_ns"] + ops[-1]["time"] - DEADLINE_NS
        assert {value for value, at_ns in taken.items() if at_ns < end_ns} <= accepted | unknown


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_without_the_faults_the_run_is_invalid() -> None:
    """`NEMESIS=off`: planned, not injected, so nothing was shown."""
    answer = labs("run", "election", ON="simulation", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)
    assert verdict["verdict"] == "invalid"
    assert "not felt" in verdict["reason"]
