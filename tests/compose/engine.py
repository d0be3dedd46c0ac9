"""Is there an engine for these tests? On a laptop they may be left out, in CI never."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import pytest

from labs.harness.testbed import compose_engine, compose_images
from labs.harness.testbed.compose_engine import Engine

ROOT = Path(__file__).resolve().parents[2]
# The nodes of the contract are not part of the image: their containers see this repository's tests.
TESTS_MOUNT = {ROOT / "tests": "/app/tests"}


@functools.cache
def missing(*kinds: str) -> str:
    """Why containers (and the images of `kinds`) can't be had here; empty when they can."""
    try:
        compose_engine.find()
        compose_images.prepare(kinds)
    except compose_engine.NoEngine as error:
        return f"{error}; type: {error.remedy}"
    except compose_images.NoImages as error:
        return str(error)
    return ""


def require_engine(*kinds: str) -> Engine:
    """The engine, for a fixture. Without one: skipped, but in CI a failure."""
    if why := missing(*kinds):
        if os.environ.get("CI") == "true":
            pytest.fail(f"in CI nothing of this may be left out, but {why}")
        pytest.skip(f"left out, needs containers: {why}")
    return compose_engine.find()


def left_in_engine(label: str) -> list[str]:
    """Containers, networks and volumes that carry `label` (a key, or key=value)."""
    left = []
    for kind in ("ps -a", "network ls", "volume ls"):
        command = ["docker", *kind.split(), "-q", "--filter", f"label={label}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        left += [f"{kind.split()[0]} {name}" for name in answer.stdout.split()]
    return left
