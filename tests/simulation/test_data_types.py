"""Counters, sets and sequences in the simulation: no seed loses an update or makes one twice.

Goal: after whatever crashes, partitions and repetitions, every acknowledged update is in every
replica's value, once, and every value that was ever on a disk or told to a client is the one that
its updates make. Method: fixed seeds, and a few that are new each time (`SEED=<n>`).
"""

from __future__ import annotations

import os
import time

from tests.simulation.data_types import DataOutcome
from tests.simulation.seeds import all_hold

FIXED_SEEDS = 40
FRESH_SEEDS = 10


def test_promises_hold_for_the_fixed_seeds() -> None:
    """And the runs are worth something: repetitions that two nodes carried out, each for itself,
    crashes, hints, repairs, exchanges."""
    outcomes = all_hold("data_types", DataOutcome, range(FIXED_SEEDS))

    assert FIXED_SEEDS // 4 < sum(outcome.meets for outcome in outcomes) < FIXED_SEEDS
    for what in ("crashes", "repeated", "twice"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > FIXED_SEEDS, what
    for what in ("hint", "read_repair", "anti_entropy"):
        assert sum(outcome.told.get(what, 0) for outcome in outcomes) > FIXED_SEEDS, what
    for what in ("acknowledged", "reads"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > 20 * FIXED_SEEDS, what


def test_promises_hold_for_fresh_seeds() -> None:
    """The same for seeds that nobody has seen, from the time or from SEED."""
    first = int(os.environ.get("SEED") or int(time.time()) * 100)

    all_hold("data_types", DataOutcome, range(first, first + FRESH_SEEDS))
