"""Each consistency level, both ways: it keeps what it promises, and is not the next stronger one.

A few seeds of what `python -m tests.simulation.levels --runs 500` does with many.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from labs.consistency import MODELS
from tests.simulation.levels import NEXT, play

# A killed node closes nothing, its HTTP sessions least of all.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")

SEEDS = 8


@pytest.fixture(autouse=True)
def remains() -> Iterator[None]:
    """What the dead have left is collected within the test, under its filter of warnings."""
    yield
    gc.collect()


@pytest.mark.parametrize("model", MODELS)
def test_a_level_keeps_what_it_promises(model: str) -> None:
    """Checked by every checker from the level's own strength down; healed, replicas agree."""
    for seed in range(SEEDS):
        found = play(model, seed)

        assert not found.broken, (found.broken, found.replay)
        assert not found.undecided, (found.undecided, found.replay)
        assert found.operations > 50


@pytest.mark.parametrize("model", NEXT)
def test_the_next_stronger_checker_finds_it_out(model: str) -> None:
    """Within the number of seeds that is stated, or a level costs what nobody gets."""
    stronger, within = NEXT[model]

    assert any(play(model, seed).found_out for seed in range(within)), f"{model} is {stronger}"


def test_a_seed_gives_the_same_history() -> None:
    """Else a failure could not be had again."""
    assert play("causal", 3) == play("causal", 3)
