"""Chain replication in the simulation: no seed may violate anything, every bug must be found.

Goal: what is acknowledged survives every change of the chain, under every fault we know how to
simulate. Method: fixed seeds, the same on every machine; and a few that are new each time, printed
with the command that replays them. `SEED=<n>` sets the first of the new ones.
"""

from __future__ import annotations

import os
import time

from tests.simulation.chain import Outcome
from tests.simulation.runner import digest
from tests.simulation.seeds import all_hold

FIXED_SEEDS = 80
FRESH_SEEDS = 15


def test_invariants_hold_for_the_fixed_seeds() -> None:
    """The two invariants of §3, and those of epochs; and the runs are worth something: chains were
    changed, servers crashed, came back and joined, some by a snapshot, and clients were served."""
    outcomes = all_hold("chain", Outcome, range(FIXED_SEEDS))

    assert sum(outcome.epochs for outcome in outcomes) > 6 * FIXED_SEEDS
    assert sum(outcome.crashes for outcome in outcomes) > 4 * FIXED_SEEDS
    assert sum(outcome.joined for outcome in outcomes) > 2 * FIXED_SEEDS
    assert sum(outcome.snapshots for outcome in outcomes) > FIXED_SEEDS // 4
    assert sum(outcome.acknowledged for outcome in outcomes) > 10 * FIXED_SEEDS
    assert sum(outcome.reads for outcome in outcomes) > 10 * FIXED_SEEDS


def test_invariants_hold_for_fresh_seeds() -> None:
    """The same for seeds that nobody has seen, from the time or from SEED."""
    first = int(os.environ.get("SEED") or int(time.time()) * 100)

    all_hold("chain", Outcome, range(first, first + FRESH_SEEDS))


def test_the_same_seed_gives_the_same_run() -> None:
    """The digest of all events, twice."""
    seeds = (1, 2, 3)
    first = [digest(seed, protocol="chain") for seed in seeds]

    assert [digest(seed, protocol="chain") for seed in seeds] == first
    assert len(set(first)) == len(seeds)
