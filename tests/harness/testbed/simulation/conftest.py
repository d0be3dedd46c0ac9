"""Tests below run inside a simulation: their event loop is the harness' own, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from labs.harness.testbed.simulation.cluster import new_loop


class SimulationPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return new_loop(seed=7)


@pytest.fixture
def event_loop_policy() -> Iterator[asyncio.AbstractEventLoopPolicy]:
    return SimulationPolicy()
