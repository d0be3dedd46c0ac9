"""Tests below run inside a simulation: their event loop is the harness' own, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from labs.harness.testbed.simulation.cluster import new_loop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"simulation": lambda: new_loop(seed=7)}
