"""lab-debugging on containers, whose clocks are set by /admin/clock: the same verdict."""

from __future__ import annotations

import pytest

from tests.compose.engine import require_engine
from tests.labs.test_cli import labs
from tests.labs.test_debugging import AGAIN, EARLY, ORDER, SEED
from tests.labs.test_partition import verdict_of

pytestmark = [pytest.mark.compose, pytest.mark.slow]


def test_the_lab_passes_on_containers() -> None:
    """Wall clocks of containers invert messages, logical ones do not; the search is the same."""
    require_engine()
    answer = labs("run", "debugging", ON="compose", SEED=SEED, within_s=600)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)
    methodical, hopeful = verdict["variants"]

    assert verdict["verdict"] == "pass"
    assert all(claim["holds"] for claim in methodical["claims"])
    assert {c["text"] for c in hopeful["claims"] if not c["holds"]} == {EARLY, ORDER, AGAIN}
    assert hopeful["figures"]["inverted"] > 0
