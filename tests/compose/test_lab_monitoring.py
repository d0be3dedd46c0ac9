"""lab-monitoring on containers: Prometheus' image or its stand-in, and the same verdict."""

from __future__ import annotations

import pytest

from tests.compose.engine import require_engine
from tests.labs.test_cli import labs
from tests.labs.test_monitoring import BROKEN
from tests.labs.test_partition import verdict_of

pytestmark = [pytest.mark.compose, pytest.mark.slow]


def test_the_verdict_is_that_of_processes() -> None:
    """Every claim of the subject holds; the control breaks its own."""
    require_engine("prometheus")
    answer = labs("run", "monitoring", ON="compose", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)
    symptoms, cause = verdict["variants"]

    assert (verdict["verdict"], verdict["substrate"]) == ("pass", "compose")
    assert all(claim["holds"] for claim in symptoms["claims"])
    assert BROKEN in [each["text"] for each in cause["claims"] if not each["holds"]]
    assert "(image " in symptoms["members"]["prometheus"]
