"""Style and types, as `make lint` checks them: a red lint is a red test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-cache", "--output-format", "concise", "services", "labs", "tests"],
        ["ruff", "format", "--no-cache", "--check", "services", "labs", "tests"],
        ["mypy", "--no-incremental"],
    ],
    ids=["ruff check", "ruff format", "mypy --strict"],
)
def test_lint(command: list[str]) -> None:
    """`ruff check`, `ruff format --check` and `mypy --strict` have nothing to say."""
    answer = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=900
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
