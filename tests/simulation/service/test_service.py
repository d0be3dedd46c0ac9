"""The whole service under random fault schedules: a few seeds, the planted bugs, the shrinking.

Many seeds: `make sim SERVICE=kv RUNS=1000`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.simulation.service.__main__ import describe, transcript
from tests.simulation.service.plan import draw
from tests.simulation.service.run import simulate
from tests.simulation.service.shrink import minimize, shrink

# A killed node closes nothing, its HTTP sessions least of all.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")

SEEDS_OF_BUGS = {"unsynced_storage": range(10), "send_before_persist": (119,)}


@pytest.fixture(autouse=True)
def remains() -> Iterator[None]:
    """What the dead have left is collected within the test, under its filter of warnings."""
    yield
    gc.collect()


@pytest.mark.parametrize("seed", range(12))
def test_the_service_keeps_its_promises(seed: int) -> None:
    """No acknowledged write is lost, the history is linearizable, healed it converges."""
    failure = simulate(draw(seed))

    assert failure is None, describe(failure, seed, "none")


def first_failure(bug: str) -> int:
    for seed in SEEDS_OF_BUGS[bug]:
        if simulate(draw(seed), bug) is not None:
            return seed
    raise AssertionError(f"{bug} was not found in {SEEDS_OF_BUGS[bug]}")


@pytest.mark.parametrize("bug", SEEDS_OF_BUGS)
def test_a_planted_bug_is_found_and_replays(bug: str) -> None:
    """A simulation that finds nothing proves nothing; so does one that cannot replay."""
    seed = first_failure(bug)
    first, again = (simulate(draw(seed), bug, tell=True) for _ in range(2))

    assert first == again
    assert first is not None
    assert len(first.story) > 10
    assert simulate(draw(seed)) is None, "the shipped service passes the same schedule"


def test_a_failing_schedule_shrinks_to_what_matters() -> None:
    """Unsynchronized storage needs one power failure and hardly a request to be caught."""
    seed = first_failure("unsynced_storage")
    found = shrink(draw(seed), "unsynced_storage", runs_max=150)

    assert len(found.plan.faults) == 1
    assert found.plan.faults[0].kind == "power"
    assert len(found.plan.operations) <= 5
    text = transcript(found.plan, found.failure)
    assert "power fails at" in text
    assert f"broken: {found.failure.promise}" in text


def test_what_does_not_fail_is_not_shrunk() -> None:
    """Rather than to reduce a plan to nothing."""
    with pytest.raises(ValueError, match="does not fail"):
        shrink(draw(0), "none")


@pytest.mark.parametrize("needed", [set(), {3}, {0, 9}, {2, 3, 7}, set(range(10))])
def test_minimize_keeps_what_is_needed_in_order(needed: set[int]) -> None:
    """ddmin on a failure that needs exactly these items."""
    assert minimize(range(10), lambda kept: needed <= set(kept)) == sorted(needed)
