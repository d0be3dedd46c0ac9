"""The simulation must find what is planted, or its silence about the core means nothing.

Goal: every bug of bugs.py is found soon, named, and found again from its seed.
Method: seeds from 0 on, at most `Bug.seeds` of them; the failure's own words, twice the same.
"""

from __future__ import annotations

import pytest

from tests.simulation.bugs import BUGS, Bug
from tests.simulation.runner import INVARIANTS, first_failure, simulate


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_planted_bug_is_found(bug: Bug) -> None:
    """Found within its number of seeds; an invariant is named; the printed seed replays it."""
    failure = first_failure(range(bug.seeds), bug)

    assert failure is not None, f"{bug.name} was not found within {bug.seeds} seeds"
    print(failure)
    assert failure.invariant in INVARIANTS, failure
    assert failure.replay.endswith(f"--runs 1 --seed {failure.seed} --bug {bug.name}")
    assert simulate(failure.seed, bug) == failure
