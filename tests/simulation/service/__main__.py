"""`python -m tests.simulation.service --runs 1000 --seed 0 [--bug NAME] [--shrink]`.

Goal: many random fault schedules over the whole service, on all cores; the replay of one; and with
`--shrink` the smallest schedule that still fails, with its story.
Method: a seed is drawn into a plan, and a plan is a run. Seeds are handed out to one process per
core, and the first failure ends it.

Exit code: 0 no failure, 1 a failure, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from labs.harness.swarm.bug import SHIPPED
from labs.harness.swarm.plan import draw
from labs.harness.swarm.run import Failure
from labs.harness.swarm.search import Swarm
from labs.harness.swarm.shrink import shrink, transcript
from services.chassis.config import ConfigError
from services.kv.cores import find_protocol
from tests.simulation.service.bugs import BUGS


def command(seed: int, bug: str, protocol: str) -> str:
    """What shows the same failure again."""
    planted = "" if bug == SHIPPED.name else f" BUG={bug}"
    return f"make sim SERVICE=kv RUNS=1 PROTOCOL={protocol} SEED={seed}{planted}"


def describe(failure: Failure, seed: int, bug: str, protocol: str) -> str:
    again = command(seed, bug, protocol)
    smaller = again.replace("sim SERVICE=kv RUNS=1", "shrink")
    return (
        f"seed {seed} breaks: {failure.promise}\n{failure.detail}\n"
        f"replay: {again}\nshrink: {smaller}"
    )


def _shrink(seed: int, bug: str, protocol: str, processes: int) -> int:
    try:
        with Swarm(processes) as swarm:
            found = shrink(
                draw(seed, protocol),
                run=lambda plans: swarm.run(plans, BUGS[bug], tell=True),
                told=lambda text: print(text, flush=True),
            )
    except ValueError as error:
        print(f"seed {seed}: {error}")
        return 0
    print(f"\n{transcript(found.plan, found.failure)}\nreplay: {command(seed, bug, protocol)}")
    return 1


def _search(seeds: range, bug: str, protocol: str, processes: int) -> int:
    started = told = time.monotonic()
    with Swarm(processes) as swarm:
        results = swarm.search(seeds, protocol=protocol, bug=BUGS[bug])
        for done, (seed, failure) in enumerate(results, 1):
            now = time.monotonic()
            if failure is not None:
                print(f"run {done} of {len(seeds)}, {now - started:.1f} s:")
                print(describe(failure, seed, bug, protocol))
                return 1
            if now - told >= 2:
                told = now
                print(f"{done}/{len(seeds)} runs, {done / (now - started):.1f} runs/s", flush=True)
    elapsed_s = time.monotonic() - started
    print(f"{len(seeds)} runs from seed {seeds.start} on: no failure; {elapsed_s:.1f} s")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.service", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--service", choices=["kv"], default="kv")
    parser.add_argument("--protocol", default="raft", help="what KV_PROTOCOL may say")
    parser.add_argument("--runs", type=int, default=200, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--bug", choices=sorted(BUGS), default="none", help="planted bug")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shrink", action="store_true", help="reduce the failure of --seed")
    chosen = parser.parse_args(arguments)
    if chosen.runs < 1 or chosen.processes < 1:
        parser.error("--runs and --processes must be at least 1")
    try:
        find_protocol(chosen.protocol)
    except ConfigError as error:
        parser.error(str(error))
    if chosen.shrink:
        return _shrink(chosen.seed, chosen.bug, chosen.protocol, chosen.processes)
    seeds = range(chosen.seed, chosen.seed + chosen.runs)
    return _search(seeds, chosen.bug, chosen.protocol, chosen.processes)


if __name__ == "__main__":
    sys.exit(main())
