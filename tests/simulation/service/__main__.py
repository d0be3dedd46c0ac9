"""`python -m tests.simulation.service --runs 1000 --seed 0 [--bug NAME] [--shrink]`.

Goal: many random fault schedules over the whole service, on all cores; the replay of one; and with
`--shrink` the smallest schedule that still fails, with its story.
Method: a seed is drawn into a plan, and a plan is a run. Seeds are handed out to one process per
core, and the first failure ends it.

Exit code: 0 no failure, 1 a failure, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator

from tests.simulation.service.bugs import BUGS
from tests.simulation.service.plan import Plan, draw
from tests.simulation.service.run import Failure, run_one
from tests.simulation.service.shrink import shrink


def _results(seeds: range, bug: str, processes: int) -> Iterator[tuple[int, Failure | None]]:
    work = ((seed, bug) for seed in seeds)
    if processes == 1 or len(seeds) == 1:
        yield from map(run_one, work)
        return
    # spawn: the same on Linux and macOS, and nothing of this process is inherited by chance.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(run_one, work, chunksize=2)


def command(seed: int, bug: str) -> str:
    """What shows the same failure again."""
    planted = "" if bug == "none" else f" BUG={bug}"
    return f"make sim SERVICE=kv RUNS=1 SEED={seed}{planted}"


def describe(failure: Failure, seed: int, bug: str) -> str:
    again = command(seed, bug)
    smaller = again.replace("sim SERVICE=kv RUNS=1", "shrink")
    return (
        f"seed {seed} breaks: {failure.promise}\n{failure.detail}\n"
        f"replay: {again}\nshrink: {smaller}"
    )


def transcript(plan: Plan, failure: Failure) -> str:
    """The plan, what happened, and what was broken, for a reader."""
    lines = [f"{plan.nodes} nodes; an fdatasync takes, in ms, on each: {plan.disks_ms}"]
    lines += [f"{name}={value}" for name, value in plan.environment]
    lines += ["", *failure.story, "", f"broken: {failure.promise}", failure.detail]
    return "\n".join(lines)


def _shrink(seed: int, bug: str) -> int:
    try:
        found = shrink(draw(seed), bug, told=lambda text: print(text, flush=True))
    except ValueError as error:
        print(f"seed {seed}: {error}")
        return 0
    print(f"\n{transcript(found.plan, found.failure)}\nreplay: {command(seed, bug)}")
    return 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.service", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--service", choices=["kv"], default="kv")
    parser.add_argument("--runs", type=int, default=200, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--bug", choices=sorted(BUGS), default="none", help="planted bug")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--shrink", action="store_true", help="reduce the failure of --seed")
    chosen = parser.parse_args(arguments)
    if chosen.runs < 1 or chosen.processes < 1:
        parser.error("--runs and --processes must be at least 1")
    if chosen.shrink:
        return _shrink(chosen.seed, chosen.bug)
    started = told = time.monotonic()
    seeds = range(chosen.seed, chosen.seed + chosen.runs)
    for done, (seed, failure) in enumerate(_results(seeds, chosen.bug, chosen.processes), 1):
        now = time.monotonic()
        if failure is not None:
            print(f"run {done} of {chosen.runs}, {now - started:.1f} s:")
            print(describe(failure, seed, chosen.bug))
            return 1
        if now - told >= 2:
            told = now
            print(f"{done}/{chosen.runs} runs, {done / (now - started):.1f} runs/s", flush=True)
    elapsed_s = time.monotonic() - started
    print(f"{len(seeds)} runs from seed {chosen.seed} on: no failure; {elapsed_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
