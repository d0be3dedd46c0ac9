"""A seed determines a simulated lab to the byte, whatever process replays it.

Goal: "the same seed gives an identical trace": what one machine has found another can look at.
Method: two runs in processes that hash in other orders, collect garbage at other times and keep
their objects elsewhere in memory (perturbed.py). Consensus and partition are run like this in
test_consensus.py and, with every Python that is here, in test_simulation.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.labs.test_cli import ROOT

pytestmark = pytest.mark.slow

REPLAYED = ("history.jsonl", "events.jsonl", "faults.jsonl")


def simulate(lab: str, seed: int, number: int, directory: Path) -> Path:
    """The directory of a run in a process perturbed by `number`."""
    directory.mkdir()
    command = [sys.executable, "-m", "tests.labs.perturbed", str(number), lab, str(seed)]
    answer = subprocess.run(
        [*command, str(directory)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(number)},
        timeout=600,
        check=False,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return directory


def simulate_twice(lab: str, seed: int, below: Path) -> list[Path]:
    """The directories of two runs, in processes that are perturbed differently."""
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(simulate, lab, seed, each, below / str(each)) for each in (1, 2)]
        return [run.result() for run in runs]


def assert_equal_to_the_byte(one: Path, other: Path) -> None:
    for name in REPLAYED:
        first, second = ((directory / name).read_bytes() for directory in (one, other))
        assert first == second, f"{one / name} differs from {other / name}"
    assert (one / "history.jsonl").stat().st_size > 1_000


@pytest.mark.parametrize(
    "lab",
    ["availability", "cap", "consistency", "election", "eventual", "replication", "tracing"],
)
def test_a_seed_replays_to_the_byte(lab: str, tmp_path: Path) -> None:
    """In order of addresses, a balancer once began its health checks."""
    assert_equal_to_the_byte(*simulate_twice(lab, 11, tmp_path))
