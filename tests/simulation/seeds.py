"""Seeds that must all hold, for the tests of a protocol."""

from __future__ import annotations

from typing import TypeVar

import pytest

from tests.simulation.runner import Failure, simulate

OutcomeT = TypeVar("OutcomeT")


def all_hold(protocol: str, kind: type[OutcomeT], seeds: range) -> list[OutcomeT]:
    """Run them all; the first failure fails the test, and says how to have it again."""
    print(f"make sim PROTOCOL={protocol} RUNS={len(seeds)} SEED={seeds.start}")
    outcomes = []
    for seed in seeds:
        result = simulate(seed, protocol=protocol)
        if isinstance(result, Failure):
            pytest.fail(str(result))
        assert isinstance(result, kind)
        outcomes.append(result)
    return outcomes
