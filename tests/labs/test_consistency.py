"""lab-consistency end to end: the matrix is that of the checkers, and each gap has its story."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labs.consistency import FIRST_KEPT
from labs.scenarios.consistency import GUARANTEES
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow

STALE, BUFFERING, EFFECT = "stale read", "store buffering", "effect before its cause"
ANSWER, ORDER, BACK, MISSING = (
    "answer before its question", "own writes out of order", "back in time", "own write missing",
)  # fmt: skip
# Of each model, from the strongest guarantee down, what is not kept.
GAPS = {
    "linearizable": [],
    "sequential": [STALE],
    "causal": [STALE, BUFFERING],
    "session": [STALE, BUFFERING, EFFECT, ANSWER],
    "eventual": [STALE, BUFFERING, EFFECT, ANSWER, ORDER, BACK, MISSING],
}


def judge(verdict: dict[str, Any]) -> None:
    """What must be so on every substrate."""
    *models, control = verdict["variants"]

    assert verdict["verdict"] == "pass"
    assert [each["name"] for each in models] == list(GAPS) == list(FIRST_KEPT)
    for model in models:
        gaps = GAPS[model["name"]]
        cells = [model["figures"][guarantee] for guarantee in GUARANTEES]
        assert cells == [*gaps, *["kept"] * (len(GUARANTEES) - len(gaps))], model["name"]
        given_up = [each for each in model["claims"] if each["text"].startswith("Given up")]
        assert len(given_up) == len(gaps)
        assert all(2 <= len(each["counterexample"]) <= 6 for each in given_up), given_up
    assert control["outcome"] == "breaks"
    assert [claim["holds"] for claim in control["claims"]] == [False] * 3
    assert all(fault["felt"] and fault["recovered"] for fault in verdict["faults"])


@pytest.fixture(scope="module", params=["local", "simulation"])
def passed(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], Path]:
    """One run on each of the substrates that need no engine."""
    answer = labs("run", "consistency", ON=request.param, SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_each_model_keeps_what_it_promises_and_no_more(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Cell by cell; and the control's requests are not what they are held to."""
    judge(passed[1])


def test_what_waits_for_other_nodes_costs_a_round_trip(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """20 ms apart: 40 for a majority; a session that moves waits for one way, if it waits."""
    output, verdict, _ = passed
    linearizable, sequential, causal, _, eventual = (
        variant["figures"] for variant in verdict["variants"][:-1]
    )

    assert min(linearizable["write_ms"], linearizable["read_ms"], sequential["write_ms"]) >= 40
    assert causal["moved_ms"] > 20 * 0.9
    if verdict["substrate"] == "simulation":  # medians of a few; the lab's claims take the quickest
        assert sequential["read_ms"] < 40
        assert causal["write_ms"] < 40
        assert causal["moved_ms"] > eventual["moved_ms"]
    assert "The 90-second answer" in output


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: nothing was felt, so nothing was shown."""
    answer = labs("run", "consistency", ON="simulation", SEED="7", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout
    assert verdict_of(answer.stdout)[0]["verdict"] == "invalid"
