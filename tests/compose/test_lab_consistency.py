"""lab-consistency on containers: the matrix of models and guarantees is the same, cell by cell."""

from __future__ import annotations

import pytest

from tests.compose.engine import require_engine
from tests.labs.test_cli import labs
from tests.labs.test_consistency import judge
from tests.labs.test_partition import verdict_of

pytestmark = [pytest.mark.compose, pytest.mark.slow]


def test_it_comes_to_the_same_on_containers() -> None:
    """Five models keep what they promise, each gap is found, the control breaks."""
    require_engine()
    answer = labs("run", "consistency", within_s=600, ON="compose", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)

    judge(verdict)
    assert verdict["substrate"] == "compose"
