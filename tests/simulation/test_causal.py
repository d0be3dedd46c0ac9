"""The causally consistent store in the simulation: no seed may violate what its levels promise.

Goal: causality, session guarantees, convergence and durability, whatever strikes. Method: fixed
seeds, the same on every machine, and a few that are new each time, printed with the command that
replays them (`SEED=<n>` sets the first of those).
"""

from __future__ import annotations

import os
import time
from collections import Counter

from tests.simulation.causal import CausalRun, Outcome
from tests.simulation.histories import history_of, verdicts
from tests.simulation.runner import digest
from tests.simulation.seeds import all_hold

FIXED_SEEDS = 40
FRESH_SEEDS = 10


def test_promises_hold_for_the_fixed_seeds() -> None:
    """And the runs are worth something: crashes, sessions that waited and gave up, writes that were
    sent again, at each level and at all of them at once."""
    outcomes = all_hold("causal", Outcome, range(FIXED_SEEDS))

    assert min(Counter(outcome.levels for outcome in outcomes).values()) >= FIXED_SEEDS // 10
    for what in ("crashes", "waits", "resends", "refused"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > FIXED_SEEDS, what
    for what in ("wiped", "refills"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > 3, what
    for what in ("acknowledged", "reads"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > 20 * FIXED_SEEDS, what


def test_promises_hold_for_fresh_seeds() -> None:
    """The same for seeds that nobody has seen, from the time or from SEED."""
    first = int(os.environ.get("SEED") or int(time.time()) * 100)

    all_hold("causal", Outcome, range(first, first + FRESH_SEEDS))


def test_the_same_seed_gives_the_same_run() -> None:
    """Digests of all events of two runs."""
    seeds = (1, 2)
    here = [digest(seed, protocol="causal") for seed in seeds]

    assert [digest(seed, protocol="causal") for seed in seeds] == here
    assert len(set(here)) == len(seeds)


def test_the_checkers_decide() -> None:
    """Every promise of the level is judged true by the labs' checkers, none "unknown"."""
    runs = [CausalRun(seed) for seed in range(12)]
    for run in runs:
        run.run()
        found = verdicts(history_of(run.workload.ops), run.levels)
        assert {name: result.valid for name, result in found.items() if name != "convergence"} == (
            dict.fromkeys([name for name in found if name != "convergence"], True)
        ), run.seed
