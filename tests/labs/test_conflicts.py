"""lab-conflicts end to end: each way to settle a conflict shows what it keeps and loses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["local", "simulation"])
def passed(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], Path]:
    """One run on each of the substrates that need no engine."""
    answer = labs("run", "conflicts", ON=request.param, SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_each_way_does_what_it_must(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Four hold their claims. The control, with a clock ahead, loses a later write to an earlier
    one, and that alone: what two sides wrote at once the last write wins with true clocks, too."""
    _, verdict, _ = passed
    *ways, skewed = verdict["variants"]

    assert verdict["verdict"] == "pass"
    assert [each["outcome"] for each in ways] == ["holds"] * 4
    assert all(claim["holds"] for each in ways for claim in each["claims"])
    (broken,) = (claim for claim in skewed["claims"] if not claim["holds"])
    assert broken["text"] == "A write replaces the one that its client had seen"
    assert broken["counterexample"], "the overruled write is told"


def test_the_figures_are_those_of_the_answer(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Both sides of the cut acknowledge where nobody leads; who lost what; the exact counter."""
    output, verdict, _ = passed
    lww, siblings, crdt, cas, skewed = (each["figures"] for each in verdict["variants"])

    for each in (lww, siblings, crdt, skewed):
        assert min(each["small"], each["large"]) >= 15
    assert lww["lost"] > 0 < skewed["lost"]
    assert siblings["lost"] == crdt["lost"] == cas["lost"] == 0
    assert siblings["siblings"] >= 2
    assert crdt["counted"] == crdt["increments"] == crdt["repeated"] >= 40
    assert (cas["small"], cas["large"] >= 15, cas["refused"] >= 5) == (0, True, True)
    assert [each["overruled"] for each in (lww, siblings, crdt, cas)] == [0] * 4
    assert skewed["overruled"] == skewed["pairs"] == 5
    assert "The 90-second answer" in output


def test_the_clock_is_ahead_everywhere_but_beside_the_control(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """The same cut in all, the same skew in all that are to bear it: felt, and set back."""
    _, verdict, _ = passed
    faults = [(fault["variant"], fault["name"]) for fault in verdict["faults"]]

    assert all(fault["felt"] and fault["recovered"] for fault in verdict["faults"])
    for variant in (each["name"] for each in verdict["variants"]):
        assert (variant, "partition") in faults
        assert ((variant, "bump") in faults) == (variant != "last write wins")


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: nothing was felt, so nothing was shown."""
    answer = labs("run", "conflicts", ON="simulation", SEED="7", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout
    assert verdict_of(answer.stdout)[0]["verdict"] == "invalid"


def test_a_seed_replays_to_the_byte() -> None:
    """Merging, repeating and refusing, too, take time and chance from the simulation alone."""
    runs = [labs("run", "conflicts", ON="simulation", SEED="11") for _ in range(2)]

    for name in ("history.jsonl", "events.jsonl", "faults.jsonl"):
        first, second = ((verdict_of(run.stdout)[1] / name).read_bytes() for run in runs)
        assert first == second, name
