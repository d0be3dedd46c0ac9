"""`make bench`: the store beside etcd, the load balancer beside nginx, an observed handler beside a
bare one, the start of five, the simulated store. `--only simulation`: the last alone.

Every figure is a median over interleaved rounds, every goal a ratio of such medians taken in the
same run: absolute numbers say more about the machine than about the code. What the ratio to etcd
means: less work than etcd does (no MVCC, no watches, no leases, no authentication), not a better
etcd.

Exit codes: 0 all goals met, 1 one was missed, 2 something could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from rich.console import Console

from labs.harness.bench import measure, proxies, table
from labs.harness.bench import simulated as sim
from labs.harness.bench.processes import ROOT, BenchError
from labs.harness.bench.systems import etcd_program, etcd_version
from labs.harness.lab import environment
from labs.harness.testbed import orderly, registry

RUNS = ROOT / "runs" / "bench"


def main(argv: Sequence[str]) -> int:
    """Measure, print the tables, write `runs/bench/<time>.json`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of everything (default: 3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="per measurement (1.5)")
    parser.add_argument("--only", choices=["simulation"], help="measure this alone")
    options = parser.parse_args(list(argv))
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    console = Console(highlight=False)
    if options.only == "simulation":
        return _simulation(options.rounds, console)
    registry.sweep()
    RUNS.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    directory = RUNS / f"{stamp}.data"
    _remove_stale_data()
    directory.mkdir()
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        return orderly.run(_main(options, console, directory, RUNS / f"{stamp}.json"))
    except BenchError as error:
        console.print(f"could not measure: {error}", markup=False)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted: what was started is gone")
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _simulation(rounds: int, console: Console) -> int:
    try:
        simulated = asyncio.run(sim.measure(rounds=rounds, tell=lambda _: None))
    except BenchError as error:
        console.print(f"could not measure: {error}", markup=False)
        return 2
    found = table.simulation_goals(simulated)
    sim.show(console, simulated)
    table.show_goals(console, found)
    return 1 if any(goal.met is False for goal in found) else 0


def _remove_stale_data() -> None:
    """What killed benchmarks left on the disk; a living one holds the lock on its directory."""
    for directory in RUNS.glob("*.data"):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(descriptor)


async def _main(
    options: argparse.Namespace, console: Console, directory: Path, report: Path
) -> int:
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):  # SIGTERM, too, goes through every `finally`
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    machine = _machine(directory)
    console.print(table.describe(machine), markup=False)
    if machine["etcd"] is None:
        console.print(
            "[bold yellow]etcd is not here[/]: nothing to compare PUTs with, and those goals stay "
            "unmeasured. Debian: apt-get install etcd-server"
        )
    if machine["nginx"] is None:
        console.print(f"[bold yellow]nginx is not here[/]: the load balancer {proxies.NEEDS_NGINX}")
    rounds, seconds = options.rounds, options.seconds
    timeout = aiohttp.ClientTimeout(total=5.0)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        with console.status("…") as status:
            tell = status.update
            puts = await measure.puts(directory, session, rounds=rounds, seconds=seconds, tell=tell)
            gets = await measure.gets(directory, session, rounds=rounds, seconds=seconds, tell=tell)
            starts = await measure.starts(directory, session, rounds=rounds, tell=tell)
            proxied = await proxies.measure(
                directory, session, rounds=rounds, seconds=seconds, tell=tell
            )
            simulated = await sim.measure(rounds=rounds, tell=tell)
    found = [*table.goals(puts, gets, starts, proxied), *table.simulation_goals(simulated)]
    table.show_puts(console, puts)
    table.show_others(console, gets, starts)
    table.show_proxies(console, proxied)
    sim.show(console, simulated)
    table.show_goals(console, found)
    document = {
        "machine": machine,
        "goals": [{**asdict(goal), "met": goal.met} for goal in found],
        "puts": puts,
        "gets": gets,
        "starts": starts,
        "proxies": proxied,
        "simulated": simulated,
    }
    report.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    console.print(f"all figures: {report.relative_to(ROOT)}", markup=False)
    return 1 if any(goal.met is False for goal in found) else _inconclusive(found)


def _inconclusive(found: list[table.Goal]) -> int:
    return 2 if any(goal.met is None for goal in found) else 0


def _machine(directory: Path) -> dict[str, Any]:
    program, nginx = etcd_program(), proxies.nginx_program()
    return {
        **environment.describe(),
        "fdatasync_p50_ms": measure.synchronize_p50_ms(directory),
        "etcd": etcd_version(program) if program else None,
        "nginx": proxies.nginx_version(nginx) if nginx else None,
    }
