"""A seed names one run, on every Python: the same trace from each interpreter that is here.

Goal: a failure that one machine found is looked at on another.
Method: digests of all events of a few seeds, of the correct cores and of planted bugs; once here,
and once from each other Python from 3.11 on, with another order of hashing. The cores and their
simulation need the standard library alone. (The whole service: tests/labs/test_simulation.py.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.runner import digests

ROOT = Path(__file__).resolve().parents[2]


def interpreters() -> list[str]:
    """Every other Python that is here and new enough: on the path, or kept by pyenv."""
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    named = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    found = [*filter(None, named), *map(str, sorted(kept.glob("3.1[1-9]*/bin/python")))]
    able = {}
    for python in found:
        version = _version(python)
        if version >= (3, 11) and version != sys.version_info[:3]:
            able[version] = python
    return [able[version] for version in sorted(able)]


def _version(python: str) -> tuple[int, ...]:
    code = "import sys; print(*sys.version_info[:3])"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return tuple(map(int, said.stdout.split()))  # nothing of one that does not start


def test_every_python_here_gives_the_same_traces() -> None:
    """Byte for byte."""
    here = digests()
    assert len(set(here)) == len(here)
    others = interpreters()
    if not others:
        pytest.skip("no other Python from 3.11 on is here")
    code = "from tests.simulation.runner import digests; print(*digests(), sep='\\n')"
    for number, python in enumerate(others):
        answer = subprocess.run(
            [python, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(number), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.splitlines() == here, python
