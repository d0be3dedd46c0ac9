"""Many leaders in the simulation: no seed may violate what they promise.

Goal: what was acknowledged is lost with its disk alone, conflicts are told and settled alike, nodes
agree in the end. Method: fixed seeds, the same on every machine, and a few that are new each time,
printed with the command that replays them (`SEED=<n>` sets the first of those).
"""

from __future__ import annotations

import os
import time

from tests.simulation.multi_leader import Outcome
from tests.simulation.runner import digest
from tests.simulation.seeds import all_hold

FIXED_SEEDS = 40
FRESH_SEEDS = 10


def test_promises_hold_for_the_fixed_seeds() -> None:
    """And the runs are worth something: crashes, conflicts, wiped disks, refills."""
    outcomes = all_hold("multi_leader", Outcome, range(FIXED_SEEDS))

    for what in ("crashes", "conflicts", "wipes", "refills"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > FIXED_SEEDS, what
    for what in ("acknowledged", "reads"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > 20 * FIXED_SEEDS, what
    assert sum(outcome.gone for outcome in outcomes) > 0, "asynchronous replication has a price"


def test_promises_hold_for_fresh_seeds() -> None:
    """The same for seeds that nobody has seen, from the time or from SEED."""
    first = int(os.environ.get("SEED") or int(time.time()) * 100)

    all_hold("multi_leader", Outcome, range(first, first + FRESH_SEEDS))


def test_the_same_seed_gives_the_same_run() -> None:
    """Digests of all events of two runs."""
    seeds = (1, 2)
    here = [digest(seed, protocol="multi_leader") for seed in seeds]

    assert [digest(seed, protocol="multi_leader") for seed in seeds] == here
    assert len(set(here)) == len(seeds)
