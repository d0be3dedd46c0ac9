"""Gossip in the simulation: no seed may violate what members, rumours and replicas promise.

Goal: views move forward alone, news is bounded, no write is taken back, all agree in the end, who
is gone is found out and nobody else. Method: as test_quorum.py.
"""

from __future__ import annotations

import os
import time

from tests.simulation.gossip import Outcome
from tests.simulation.runner import digest
from tests.simulation.seeds import all_hold

FIXED_SEEDS = 30
FRESH_SEEDS = 8


def test_promises_hold_for_the_fixed_seeds() -> None:
    """And the runs are worth something: crashes, suspicions, refutations, exchanges, in each way to
    spread a rumour."""
    outcomes = all_hold("gossip", Outcome, range(FIXED_SEEDS))

    assert {outcome.spread for outcome in outcomes} == {"push", "pull", "push-pull"}
    for what in ("crashes", "suspicions", "faulty", "refutations", "exchanges"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > FIXED_SEEDS, what
    for what in ("acknowledged", "reads"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > 20 * FIXED_SEEDS, what


def test_promises_hold_for_fresh_seeds() -> None:
    """The same for seeds that nobody has seen, from the time or from SEED."""
    first = int(os.environ.get("SEED") or int(time.time()) * 100)

    all_hold("gossip", Outcome, range(first, first + FRESH_SEEDS))


def test_the_same_seed_gives_the_same_run() -> None:
    """Digests of all events of two runs."""
    seeds = (1, 2)
    here = [digest(seed, protocol="gossip") for seed in seeds]

    assert [digest(seed, protocol="gossip") for seed in seeds] == here
    assert len(set(here)) == len(seeds)
