"""lab-eventual end to end: rumours reach all, each repair mends its own, staleness is predicted."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from labs.scenarios.eventual import LINKS_KEEP_S
from labs.scenarios.staleness import Followed, predict
from services.chassis.transport import AGE_MAX_S
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of


@pytest.fixture(scope="module", params=["local", "simulation"])
def passed(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], Path]:
    """One run on each of the substrates that need no engine."""
    answer = labs("run", "eventual", ON=request.param, SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


@pytest.mark.slow
def test_each_repair_mends_its_own_and_without_any_the_replicas_differ(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Read repair what is read, hinted handoff what was missed, anti-entropy all; the control has
    come to rest, and half of the reads found what a replica lacks, and yet nothing was mended."""
    output, verdict, _ = passed
    found = {variant["name"]: variant for variant in verdict["variants"]}
    mended = {
        name: (found[name]["figures"]["away"], found[name]["figures"]["wiped"])
        for name in ("read repair", "hinted handoff", "anti-entropy", "no repair")
    }

    assert verdict["verdict"] == "pass"
    assert "The 90-second answer" in output
    assert found["no repair"]["outcome"] == "breaks"
    assert mended == {
        "read repair": (8, 8),
        "hinted handoff": (16, 0),
        "anti-entropy": (16, 16),
        "no repair": (0, 0),
    }


def test_the_cut_lasts_longer_than_a_link_keeps_a_message() -> None:
    """Else what was sent during the cut would arrive after it, and be taken for a repair."""
    assert LINKS_KEEP_S > AGE_MAX_S


@pytest.mark.slow
def test_every_size_converges(passed: tuple[str, dict[str, Any], Path]) -> None:
    """5, 10 and 25 nodes, and a fan-out of one: every copy is there, and how it came is counted."""
    output, verdict, _ = passed
    found = {variant["name"]: variant["figures"] for variant in verdict["variants"]}

    assert f"left out on {verdict['substrate']}: 5 nodes, fan-out 1" in output
    sizes = {name: found[name]["size"] for name in found if "nodes" in name}
    assert sizes == {"5 nodes": 5, "10 nodes": 10, "10 nodes, fan-out 1": 10, "25 nodes": 25}
    for name in sizes:
        assert found[name]["spread_ms"] > 0
        # On a machine that does not keep up, anti-entropy overtakes the rumours.
        most = found[name]["copies"] / (2 if verdict["substrate"] == "simulation" else 1)
        assert 0 <= found[name]["missed"] < most
    stale_1, stale_2 = (found["staleness"][name] for name in ("stale_1", "stale_2"))
    assert 0 <= stale_1 < 100
    assert 0 <= stale_2 < 100
    if verdict["substrate"] == "simulation":  # a busy machine asks late: hardly any is stale
        assert 0 < stale_2 < stale_1


@pytest.mark.slow
def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: nothing was felt, so nothing was shown."""
    answer = labs("run", "eventual", ON="simulation", SEED="7", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout
    assert verdict_of(answer.stdout)[0]["verdict"] == "invalid"


def test_the_prediction_is_that_of_delays_that_are_known() -> None:
    """WARS (Bailis et al. 2012, §4.1) by hand: W is 10 ms, R and S are 1; a read at 5 ms is stale
    at the node itself, and of two replies when the third replica's comes first."""
    one = Followed()
    one.reads[1] = [(5.0, True), (15.0, False)]
    one.reads[2] = [(5.0, True)] * 50
    delays = {"W": [10.0], "R": [1.0, 1.5], "S": [1.0, 1.5]}
    shares = predict([one], delays, Random(1))

    assert set(shares[1]) == {0.5}
    assert 0.25 < sum(shares[2]) / len(shares[2]) < 0.5  # the third is strictly first: 5 of 16
    later = Followed()
    later.reads[1] = later.reads[2] = [(9.5, False)]
    assert set(predict([later], {**delays, "W": [9.0]}, Random(1))[2]) == {0.0}
