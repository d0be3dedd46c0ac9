"""The command line as a user meets it: names, values, exit codes, what `make` shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("ON", "SEED", "REPEAT", "NODES", "NEMESIS", "PREDICT", "FAULTS")


def labs(
    *arguments: str, within_s: float = 600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m labs` with `arguments`, in the repository, as make does."""
    clean = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    return subprocess.run(
        [sys.executable, "-m", "labs", *arguments],
        cwd=ROOT,
        env={**clean, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=within_s,
    )


def test_unknown_lab_names_the_nearest() -> None:
    """An unknown lab: the nearest names, exit code 2."""
    answer = labs("run", "partitoin")

    assert answer.returncode == 2
    assert "did you mean partition" in answer.stdout, "the nearest is the first"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ON": "locl"}, "did you mean local?"),
        ({"SEED": "seven"}, "SEED=seven is not allowed: a whole number from 0"),
        ({"SEED": "-1"}, "SEED=-1 is not allowed"),
        ({"REPEAT": "0"}, "REPEAT=0 is not allowed: a whole number from 1"),
        ({"NODES": "2"}, "NODES=2 is not allowed: a whole number from 3 to 9"),
        ({"NEMESIS": "of"}, "did you mean off"),
    ],
)
def test_unknown_values_are_refused_before_anything_starts(
    environment: dict[str, str], expected: str
) -> None:
    """An unknown value: the nearest names or the allowed range, exit code 2."""
    answer = labs("run", "partition", **environment)

    assert answer.returncode == 2
    assert expected in answer.stdout


def test_empty_variables_count_as_unset() -> None:
    """make exports `SEED=` when nobody set it."""
    answer = labs("run", "nothing", ON="", SEED="", REPEAT="", NODES="")

    assert answer.returncode == 2
    assert "lab 'nothing' is not known" in answer.stdout


def test_labs_are_listed_one_line_each() -> None:
    """`make labs`: list, one line each."""
    answer = labs("list")

    assert answer.returncode == 0
    lines = answer.stdout.strip().splitlines()
    files = [path for path in (ROOT / "labs").glob("*.py") if not path.stem.startswith("_")]
    assert len(lines) == len(files)
    assert any(line.startswith("make lab-partition") and "Q23" in line for line in lines)


def test_doctor_says_what_is_missing_and_what_to_type() -> None:
    """`make doctor`: what is here, what is missing, what to type."""
    answer = labs("doctor", PATH="/nonexistent")

    assert "Docker engine" in answer.stdout
    assert "there is no docker command" in answer.stdout
    assert "ON=local" in answer.stdout
    assert answer.returncode == 0, "labs run locally without Docker"


def test_make_help_is_the_default_target() -> None:
    """`make help` as default: every target with its line."""
    answer = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert answer.returncode == 0
    for target in ("setup", "labs", "lab-<name>", "doctor", "clean", "test", "bench",
                   "up", "down", "status", "logs", "images-offline", "engine"):  # fmt: skip
        assert f"make {target} " in answer.stdout.replace("\n", " \n"), target
