"""The same seed on another Python and another system: the same bytes.

Method: a simulated lab in a container of the services' image (its Python is not that of this
machine, if the base is the offline one) and here. It mounts this repository, so the code is one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from labs.harness.testbed import compose_images
from tests.compose.engine import ROOT, require_engine
from tests.labs.test_replay import assert_equal_to_the_byte, simulate

pytestmark = [pytest.mark.compose, pytest.mark.slow]

PYTHON = "/opt/faultline/bin/python"


@pytest.mark.parametrize("lab", ["partition", "replication"])
def test_a_seed_replays_to_the_byte_in_a_container(lab: str, tmp_path: Path) -> None:
    """What one machine has found, another can look at."""
    require_engine()
    there = tmp_path / "there"
    there.mkdir()
    run = ["docker", "run", "--rm", "--pull", "never", "--network", "none", "--workdir", "/src",
           "--user", f"{os.getuid()}:{os.getgid()}",
           "--volume", f"{ROOT}:/src:ro", "--volume", f"{there}:/out",
           "--env", "PYTHONDONTWRITEBYTECODE=1", "--env", "PYTHONHASHSEED=1",
           "--entrypoint", PYTHON, compose_images.prepare().service,
           "-m", "tests.labs.perturbed", "1", lab, "11", "/out"]  # fmt: skip
    answer = subprocess.run(run, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr

    assert_equal_to_the_byte(there, simulate(lab, 11, 2, tmp_path / "here"))
