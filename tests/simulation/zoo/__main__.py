"""`python -m tests.simulation.zoo [--protocol NAME] [--bug NAME] [--within 60]`: every planted bug.

Goal: a simulation that finds nothing proves nothing; so here is what it finds, and how soon.
Method: for each bug seeds from 0 on, in waves over all cores, until one fails. The lowest failing
seed of the wave is the answer, so runs and seed do not depend on how many cores there are.

Exit code: 0 all found, 1 one is not found in time, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.pool
import sys
import time
from dataclasses import dataclass

from tests.simulation.runner import ZOO, Failure, run_one
from tests.simulation.zoo.bug import CORRECT

WAVE_PER_PROCESS = 20  # seeds: some 0.2 s of work, little enough to throw away
COLUMNS = "{:14} {:38} {:>6} {:>6} {:>6}  {:40} {}"


@dataclass(frozen=True, slots=True)
class Found:
    """What came of the hunt for one bug: `runs` seeds were run up to the first failure's."""

    protocol: str
    bug: str
    runs: int
    seconds: float
    failure: Failure | None

    def row(self) -> str:
        failure = self.failure
        what = ("–", "NOT FOUND", "") if failure is None else (
            failure.seed, failure.invariant, failure.replay
        )  # fmt: skip
        seed, invariant, replay = what
        return COLUMNS.format(
            self.protocol, self.bug, self.runs, seed, f"{self.seconds:.1f}", invariant, replay
        )


def hunt(
    pool: multiprocessing.pool.Pool, processes: int, protocol: str, bug: str, within_s: float
) -> Found:
    """Seeds from 0 on until one fails, or until `within_s` has passed."""
    began, first = time.monotonic(), 0
    wave = WAVE_PER_PROCESS * processes
    while time.monotonic() - began < within_s:
        work = [(protocol, seed, bug) for seed in range(first, first + wave)]
        for failure, _ in pool.map(run_one, work, chunksize=5):
            if failure is not None:
                took_s = time.monotonic() - began
                return Found(protocol, bug, failure.seed + 1, took_s, failure)
        first += wave
    return Found(protocol, bug, first, time.monotonic() - began, None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.zoo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--protocol", choices=sorted(ZOO), help="only this one's bugs")
    parser.add_argument("--bug", help="only the bug of this name")
    parser.add_argument("--within", type=float, default=60, help="seconds for each bug")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    chosen = parser.parse_args(arguments)
    if chosen.within <= 0 or chosen.processes < 1:
        parser.error("--within must be positive, --processes at least 1")
    wanted = [
        (protocol, bug)
        for protocol in sorted(ZOO)
        if chosen.protocol in (None, protocol)
        for bug in ZOO[protocol]
        if bug != CORRECT.name and chosen.bug in (None, bug)
    ]
    if not wanted:
        parser.error(f"no bug is called {chosen.bug} there")
    print(COLUMNS.format("protocol", "bug", "runs", "seed", "s", "invariant that broke", "replay"))
    found = []
    # spawn: the same on Linux and macOS, and nothing of this process is inherited by chance.
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        pool.map(run_one, [("raft", seed, CORRECT.name) for seed in range(chosen.processes)])
        for protocol, bug in wanted:
            found.append(hunt(pool, chosen.processes, protocol, bug, chosen.within))
            print(found[-1].row(), flush=True)
    missed = [f"{each.protocol} {each.bug}" for each in found if each.failure is None]
    print(
        f"{len(found) - len(missed)} of {len(found)} planted bugs found, "
        f"{sum(each.seconds for each in found):.0f} s on {chosen.processes} processes"
        + (f"; not found within {chosen.within:g} s each: {', '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
