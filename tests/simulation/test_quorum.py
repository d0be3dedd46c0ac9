"""The store without a leader in the simulation: no seed may violate what its quorums promise.

Goal: no acknowledged write is lost where conflicts are kept as siblings, reads meet writes where
R + W > N, replicas agree in the end. Method: fixed seeds, the same on every machine, and a few that
are new each time, printed with the command that replays them (`SEED=<n>` sets the first of those).
"""

from __future__ import annotations

import os
import time

from tests.simulation.quorum import Outcome
from tests.simulation.runner import digest
from tests.simulation.seeds import all_hold

FIXED_SEEDS = 40
FRESH_SEEDS = 10


def test_promises_hold_for_the_fixed_seeds() -> None:
    """And the runs are worth something: crashes, siblings, hints, repairs, exchanges, in regimes of
    both kinds; and lost disks."""
    outcomes = all_hold("quorum", Outcome, range(FIXED_SEEDS))

    assert FIXED_SEEDS // 2 < sum(outcome.promised for outcome in outcomes) < FIXED_SEEDS
    assert FIXED_SEEDS // 4 < sum(outcome.meets for outcome in outcomes) < FIXED_SEEDS
    for what in ("crashes", "siblings", "hints", "repairs", "exchanges"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > FIXED_SEEDS, what
    assert sum(outcome.wiped for outcome in outcomes) > 3
    for what in ("acknowledged", "reads"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > 20 * FIXED_SEEDS, what


def test_promises_hold_for_fresh_seeds() -> None:
    """The same for seeds that nobody has seen, from the time or from SEED."""
    first = int(os.environ.get("SEED") or int(time.time()) * 100)

    all_hold("quorum", Outcome, range(first, first + FRESH_SEEDS))


def test_the_same_seed_gives_the_same_run() -> None:
    """Digests of all events of two runs."""
    seeds = (1, 2)
    here = [digest(seed, protocol="quorum") for seed in seeds]

    assert [digest(seed, protocol="quorum") for seed in seeds] == here
    assert len(set(here)) == len(seeds)
