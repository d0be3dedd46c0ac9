"""`python -m tests.simulation --runs 10000 --seed 0 [--bug NAME]`: many seeds on all cores.

Goal: more seeds than a test has time for, and the replay of a single one.
Method: seeds are handed out in chunks to one process per core; the first failure ends it. The
failing seed is run once more with a trace, of which the last steps are printed.

Exit code: 0 no failure, 1 a failure, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator

from tests.simulation.cluster import Trace
from tests.simulation.runner import PROTOCOLS, ZOO, Failure, run_one, simulate
from tests.simulation.zoo.bug import CORRECT

CHUNK = 10


def _results(
    work: Iterator[tuple[str, int, str]], runs: int, processes: int
) -> Iterator[tuple[Failure | None, int]]:
    if processes == 1 or runs <= CHUNK:
        yield from map(run_one, work)
        return
    # spawn: the same on Linux and macOS, and nothing of this process is inherited by chance.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(run_one, work, chunksize=CHUNK)


def _tell(failure: Failure) -> None:
    trace = Trace(kept=40)
    bug = ZOO[failure.protocol][failure.bug]
    again = simulate(failure.seed, bug, protocol=failure.protocol, trace=trace)
    print("the last steps:")
    for line in trace.lines:
        print("  " + line)
    print(failure)
    if again != failure:
        print(f"NOT REPRODUCED, the simulation itself is at fault: {again}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), default="raft")
    parser.add_argument("--runs", type=int, default=1_000, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    bugs = sorted({name for zoo in ZOO.values() for name in zoo})
    parser.add_argument("--bug", choices=bugs, default=CORRECT.name, help="planted bug")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    chosen = parser.parse_args(arguments)
    if chosen.runs < 1 or chosen.processes < 1:
        parser.error("--runs and --processes must be at least 1")
    if chosen.bug not in ZOO[chosen.protocol]:
        parser.error(
            f"--bug {chosen.bug} is none of {chosen.protocol}: {list(ZOO[chosen.protocol])}"
        )
    work = (
        (chosen.protocol, seed, chosen.bug)
        for seed in range(chosen.seed, chosen.seed + chosen.runs)
    )
    started = told = time.monotonic()
    done = operations = 0
    for failure, answered in _results(work, chosen.runs, chosen.processes):
        done += 1
        operations += answered
        now = time.monotonic()
        if failure is not None:
            print(f"run {done} of {chosen.runs}, {now - started:.1f} s:")
            _tell(failure)
            return 1
        if now - told >= 2:
            told = now
            print(f"{done}/{chosen.runs} runs, {done / (now - started):.0f} runs/s", flush=True)
    elapsed_s = time.monotonic() - started
    print(
        f"{done} runs from seed {chosen.seed} on: no failure; "
        f"{elapsed_s:.1f} s, {done / elapsed_s:.0f} runs/s, "
        f"{operations / elapsed_s / chosen.processes:.0f} client operations/s on each of "
        f"{chosen.processes} processes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
