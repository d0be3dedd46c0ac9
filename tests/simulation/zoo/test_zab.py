"""The simulation must find what is planted in Zab, or its silence about the core means nothing.

Goal: every bug of zab.py is found soon, named, and found again from its seed.
Method: `Bug.seeds` seeds from `Bug.first` on; the failure's own words, twice the same.
"""

from __future__ import annotations

import pytest

from tests.simulation.runner import INVARIANTS, first_failure, simulate
from tests.simulation.zoo.zab import BUGS, Bug


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_planted_bug_is_found(bug: Bug) -> None:
    """Found within its number of seeds; an invariant is named; the printed seed replays it."""
    seeds = range(bug.first, bug.first + bug.seeds)
    failure = first_failure(seeds, bug, protocol="zab")

    assert failure is not None, f"{bug.name} was not found in {seeds}"
    print(failure)
    assert failure.invariant in INVARIANTS, failure
    assert failure.replay.endswith(f"--runs 1 --seed {failure.seed} --bug {bug.name}")
    assert simulate(failure.seed, bug, protocol="zab") == failure
