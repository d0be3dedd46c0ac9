"""lab-debugging, as a user runs it: what it found, that it comes again, that it was made small.

Goal: dates by logical clocks are right and dates by wall clocks are wrong; the failure is replayed
by its seed and by nothing else; what is left of it is told.
Method: whole runs with one seed, in real time and in the simulation.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow

SEED = "8"
EARLY = "No message is received before it was sent"
ORDER = "No effect is put before its cause, and no order where there is none"
AGAIN = "The failing run can be had again, event for event"


Run = tuple[str, dict[str, Any], Path]


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """One run on each substrate, with the same seed."""
    found = {}
    for on in ("local", "simulation"):
        answer = labs("run", "debugging", ON=on, SEED=SEED, within_s=600)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        found[on] = (answer.stdout, *verdict_of(answer.stdout))
    return found


@pytest.mark.parametrize("on", ["local", "simulation"])
def test_logical_clocks_and_seeds_hold_and_the_control_breaks(
    runs: dict[str, Run], on: str
) -> None:
    """Every claim holds; the control breaks what it is there to break."""
    _, verdict, _ = runs[on]
    methodical, hopeful = verdict["variants"]

    assert verdict["verdict"] == "pass"
    assert [fault["name"] for fault in verdict["faults"]] == ["bump"] * 2
    assert all(fault["felt"] for fault in verdict["faults"])
    assert len(methodical["claims"]) == 6
    assert all(claim["holds"] for claim in methodical["claims"])
    assert {c["text"] for c in hopeful["claims"] if not c["holds"]} == {EARLY, ORDER, AGAIN}


@pytest.mark.parametrize("on", ["local", "simulation"])
def test_the_figures_say_how_wrong_wall_clocks_are(runs: dict[str, Run], on: str) -> None:
    """One clock of five, 50 ms ahead: what its node sends arrives before; nothing by the others."""
    _, verdict, _ = runs[on]
    methodical, hopeful = (variant["figures"] for variant in verdict["variants"])

    assert hopeful["messages"] / 4 < hopeful["inverted"] < hopeful["messages"]
    assert methodical["messages"] > 50
    assert methodical["inverted"] == 0
    assert 40 < methodical["ahead_ms"] < 51
    assert 0 < methodical["concurrent"] < 1


def test_the_failure_is_shrunk_and_told(runs: dict[str, Run]) -> None:
    """A few faults and requests, in a story that ends with what was broken."""
    output, verdict, directory = runs["local"]
    figures = verdict["variants"][0]["figures"]
    story = (directory / "logical-clocks-and-seeds" / "shrunk.txt").read_text()

    assert figures["faults"] + figures["requests"] < figures["steps"] / 4
    assert len(re.findall(r"client \d+ asks: (?:write|read) \S+", story)) >= figures["requests"]
    assert "become_leader" in story
    assert "broken: no acknowledged write is lost" in story
    assert f"of {figures['steps']} faults and" in " ".join(output.split())


def test_a_seed_finds_the_same_failure_wherever_it_is_asked(runs: dict[str, Run]) -> None:
    """The search is a simulation on all substrates: same runs, same failure, same shrunk story."""
    found = list(runs.values())
    stories = [(each[2] / "logical-clocks-and-seeds" / "shrunk.txt").read_bytes() for each in found]
    counts = [each[1]["variants"][0]["figures"]["runs"] for each in found]

    assert stories[0] == stories[1]
    assert counts[0] == counts[1]


def test_without_the_skew_the_run_is_invalid() -> None:
    """`NEMESIS=off`: the clock was never wrong, and the experiment says nothing."""
    answer = labs("run", "debugging", ON="local", SEED=SEED, NEMESIS="off", within_s=600)

    assert answer.returncode == 2, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)
    assert verdict["verdict"] == "invalid"
    assert "not felt" in json.dumps(verdict)
