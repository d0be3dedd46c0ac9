"""lab-cap end to end: what each store promises is kept, and who promises both is caught."""

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
    answer = labs("run", "cap", ON=request.param, SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_who_promises_both_breaks_one(passed: tuple[str, dict[str, Any], Path]) -> None:
    """CP and AP keep what they promise; the control answers everywhere and is not linearizable."""
    _, verdict, _ = passed
    cp, ap, both = verdict["variants"]

    assert verdict["verdict"] == "pass"
    assert [each["outcome"] for each in (cp, ap, both)] == ["holds", "holds", "breaks"]
    broken = {claim["text"]: claim for claim in both["claims"] if claim["holds"] is False}
    assert list(broken) == ["The history is linearizable"]
    assert broken["The history is linearizable"]["counterexample"], "the stale read is told"


def test_the_figures_are_those_of_the_answer(passed: tuple[str, dict[str, Any], Path]) -> None:
    """CP answered nobody on the cut-off side, AP everybody; the quorum's trip is in the latency."""
    output, verdict, _ = passed
    cp, ap, _ = (variant["figures"] for variant in verdict["variants"])

    assert (cp["answered"], cp["asked"] >= 30) == (0, True)
    assert ap["answered"] == ap["asked"] >= 30
    assert ap["stale"] > 0
    assert cp["write_ms"] >= 40
    assert "The 90-second answer" in output


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: nothing was felt, so nothing was shown."""
    answer = labs("run", "cap", ON="simulation", SEED="7", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout
    assert verdict_of(answer.stdout)[0]["verdict"] == "invalid"
