"""The correct log shipping in the simulation: no seed may violate what its regime promises.

Goal: where it promises that nothing acknowledged is lost, nothing is; where it does not, there is
still one primary in an epoch, and all nodes are alike in the end.
Method: fixed seeds, the same on every machine; and a few that are new each time, printed with the
command that replays them. `SEED=<n>` sets the first of the new ones.
"""

from __future__ import annotations

import os
import time

from tests.simulation.primary_backup import Outcome
from tests.simulation.runner import digest
from tests.simulation.seeds import all_hold

FIXED_SEEDS = 100
FRESH_SEEDS = 20


def test_promises_hold_for_the_fixed_seeds() -> None:
    """And the runs are worth something: there were primaries after the first, crashes, snapshots,
    suffixes discarded, writes and reads, in regimes of both kinds."""
    outcomes = all_hold("primary_backup", Outcome, range(FIXED_SEEDS))

    assert FIXED_SEEDS // 2 < sum(outcome.promised for outcome in outcomes) < FIXED_SEEDS
    assert sum(outcome.primaries for outcome in outcomes) > 3 * FIXED_SEEDS
    assert sum(outcome.crashes for outcome in outcomes) > 3 * FIXED_SEEDS
    assert sum(outcome.snapshots for outcome in outcomes) > FIXED_SEEDS // 8
    assert sum(outcome.discarded for outcome in outcomes) > FIXED_SEEDS // 4
    assert sum(outcome.acknowledged for outcome in outcomes) > 10 * FIXED_SEEDS
    assert sum(outcome.reads for outcome in outcomes) > 10 * FIXED_SEEDS


def test_promises_hold_for_fresh_seeds() -> None:
    """The same for seeds that nobody has seen, from the time or from SEED."""
    first = int(os.environ.get("SEED") or int(time.time()) * 100)

    all_hold("primary_backup", Outcome, range(first, first + FRESH_SEEDS))


def test_the_same_seed_gives_the_same_run() -> None:
    """Digests of all events of two runs."""
    seeds = (1, 2, 3)
    here = [digest(seed, protocol="primary_backup") for seed in seeds]

    assert [digest(seed, protocol="primary_backup") for seed in seeds] == here
    assert len(set(here)) == len(seeds)
