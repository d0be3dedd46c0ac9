"""lab-partition in the simulation: the same lab file, and a run that a seed determines to the byte.

Whole runs, as a user starts them: `ON=simulation python -m labs run partition`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.labs.test_cli import ROOT

pytestmark = pytest.mark.slow

REPLAYED = ("history.jsonl", "events.jsonl", "faults.jsonl")
NEEDS = "import aiohttp, msgspec, prometheus_client, rich, structlog, tenacity, typer"


def run_lab(python: str = sys.executable, **settings: str) -> tuple[str, Path, int]:
    """(output, run directory, exit code) of one run."""
    answer = subprocess.run(
        [python, "-m", "labs", "run", "partition"],
        cwd=ROOT,
        env={**os.environ, "ON": "simulation", **settings},
        capture_output=True,
        text=True,
        timeout=600,
    )
    shown = re.search(r"Evidence: (\S+)", answer.stdout)
    assert shown, answer.stdout + answer.stderr
    return answer.stdout, ROOT / shown[1], answer.returncode


def pythons() -> list[str]:
    """Other interpreters here that have what a run needs."""
    found = [shutil.which(f"python3.{minor}") for minor in (11, 12, 13)]
    others = [each for each in found if each and Path(each).resolve() != Path(sys.executable)]
    able = [subprocess.run([each, "-c", NEEDS], capture_output=True) for each in others]
    return [each for each, said in zip(others, able, strict=True) if said.returncode == 0]


def test_the_lab_passes_and_says_where_it_ran() -> None:
    """Same lab file, same story; the first line says that time was virtual."""
    output, directory, code = run_lab(SEED="7")

    assert code == 0, output
    assert "on simulation (seed 7, virtual time)" in output
    verdict = json.loads((directory / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["substrate"], verdict["seed"]) == ("pass", "simulation", 7)
    assert verdict["virtual_s"] > 1
    assert [fault["felt"] for fault in verdict["faults"]] == [True] * 4


def test_a_seed_replays_to_the_byte() -> None:
    """Two processes, two orders of hashing, every Python that is here: the same bytes."""
    runs = [run_lab(SEED="11", PYTHONHASHSEED=str(number))[1] for number in (1, 2)]
    runs += [run_lab(each, SEED="11", PYTHONHASHSEED="3")[1] for each in pythons()]

    for name in REPLAYED:
        first, *others = [(directory / name).read_bytes() for directory in runs]
        assert len(first) > 1_000, name
        for other, directory in zip(others, runs[1:], strict=True):
            assert other == first, f"{directory / name} differs from {runs[0] / name}"


def test_another_seed_is_another_run() -> None:
    """Else the seed would decide nothing."""
    first, other = (run_lab(SEED=seed)[1] for seed in ("11", "12"))

    assert (first / "history.jsonl").read_bytes() != (other / "history.jsonl").read_bytes()


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off`: faults planned, not injected."""
    output, directory, code = run_lab(SEED="7", NEMESIS="off")

    assert code == 2, output
    assert json.loads((directory / "verdict.json").read_text())["verdict"] == "invalid"
