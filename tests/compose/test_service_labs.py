"""Labs that pass by their verdict alone, on containers: what holds on processes holds there."""

from __future__ import annotations

import pytest

from labs.harness.lab.directory import slug
from tests.compose.engine import require_engine
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = [pytest.mark.compose, pytest.mark.slow]


@pytest.mark.parametrize(
    "lab", ["availability", "cap", "conflicts", "eventual", "replication", "tracing", "traffic"]
)
def test_the_lab_passes_on_containers(lab: str) -> None:
    """Every variant does what it must, every fault was felt, every node has told its events."""
    require_engine()
    answer = labs("run", lab, ON="compose", FAULTS="proxies", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, directory = verdict_of(answer.stdout)

    assert (verdict["verdict"], verdict["substrate"]) == ("pass", "compose")
    assert all(fault["felt"] and fault["recovered"] for fault in verdict["faults"])
    for variant in verdict["variants"]:
        own = directory / slug(variant["name"])
        for node in variant["nodes"]:
            assert (own / f"{node}.events.jsonl").stat().st_size > 0, (variant["name"], node)
