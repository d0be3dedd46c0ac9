"""lab-consensus on containers: the same claims come to the same, protocol by protocol."""

from __future__ import annotations

import pytest

from tests.compose.engine import require_engine
from tests.labs.test_cli import labs
from tests.labs.test_consensus import judge
from tests.labs.test_partition import verdict_of

pytestmark = [pytest.mark.compose, pytest.mark.slow]


def test_it_comes_to_the_same_on_containers() -> None:
    """Four protocols hold, five broken ones break; every fault was felt by probes."""
    require_engine()
    answer = labs("run", "consensus", within_s=600, ON="compose", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)

    judge(verdict)
    assert verdict["substrate"] == "compose"
    assert all(fault["felt"] for fault in verdict["faults"])
