"""A lab that could not fail would show nothing: wrong systems must turn it red.

Method: the partition lab with its variants' parts exchanged. The naive system is now claimed to
hold, Raft is the control that "must" break; each alone is enough to fail the run.
"""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from labs.harness.lab import options, runner
from labs.harness.lab.definition import Variant
from labs.harness.lab.directory import new_run_directory
from labs.harness.lab.story import Story
from labs.harness.lab.verdict import Verdict, decide
from labs.partition import LAB

pytestmark = pytest.mark.slow

SURPRISES = {
    "The minority side acknowledged nothing while it was cut off",
    "Healed, no acknowledged write is lost",
    "The history is linearizable",
}


def run(variants: tuple[Variant, ...]) -> tuple[Verdict, dict[str, str]]:
    lab = dataclasses.replace(LAB, variants=variants, comparison=())
    chosen = options.check(on="local", seed="3")
    story = Story(Console(file=io.StringIO()))
    verdict, results = runner.run(lab, chosen, story, new_run_directory(lab.name))
    return verdict, {name: decide([result], [])[0] for name, result in results.items()}


def test_a_wrong_system_and_a_control_that_holds_both_fail_the_lab() -> None:
    """Each claim is checked against the run: claimed of the naive system, it does not hold."""
    raft, naive = LAB.variants
    verdict, words = run((
        dataclasses.replace(naive, expected="holds"),
        dataclasses.replace(raft, expected="breaks"),
    ))  # fmt: skip

    assert verdict.verdict == "fail"
    assert words == {"naive failover": "fail", "raft": "fail"}
    claims = verdict.variants[0]["claims"]
    assert {claim["text"] for claim in claims if claim["holds"] is False} >= SURPRISES
    assert verdict.exit_code == 1
