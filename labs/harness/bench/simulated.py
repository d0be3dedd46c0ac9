"""How fast the whole service is simulated: client operations per second of one core's time.

Goal: a number of runs, and so of schedules, that a night of search can count on.
Method: three nodes and two clients, 200 operations a second, half of them reads, for four virtual
seconds from the first election on, without faults; the time counted is that of the CPU, for start,
load, end and the check of the history. Runs are those of the swarm (`make sim SERVICE=kv`), whose
own load is thinner (20 or 60 a second) and whose nodes crash: most of *its* time goes into starts.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from random import Random
from statistics import median

from rich.console import Console
from rich.table import Table

from labs.harness.bench.measure import Figures, Tell
from labs.harness.bench.processes import BenchError
from labs.harness.swarm.plan import CLIENTS, ELECTED_WITHIN_S, FAST_MS, KEYS, Operation, Plan, draw
from labs.harness.swarm.run import simulate

PROTOCOLS = ("raft", "paxos", "zab", "viewstamped", "chain", "primary_backup")
NODES, RATE_PER_S, FOR_S = 3, 200, 4.0


def steady(seed: int, protocol: str) -> Plan:
    """The plan that is measured."""
    random = Random(f"steady {seed}")
    operations: list[Operation] = []
    at_s = ELECTED_WITHIN_S
    while (at_s := at_s + random.expovariate(RATE_PER_S)) < ELECTED_WITHIN_S + FOR_S:
        place, key = random.choice(CLIENTS), random.choice(KEYS)
        if random.random() < 0.5:
            operations.append(Operation(at_s, place, "read", key, None))
        else:
            operations.append(Operation(at_s, place, "write", key, len(operations)))
    drawn = draw(seed, protocol)
    return replace(
        drawn,
        nodes=NODES,
        disks_ms=(FAST_MS,) * NODES,
        environment=tuple(each for each in drawn.environment if each[0] != "KV_SNAPSHOT_ENTRIES"),
        operations=tuple(operations),
        faults=(),
    )


def one(seed: int, protocol: str) -> Figures:
    """One run in this process. Raises BenchError: what breaks a promise is no measurement."""
    plan = steady(seed, protocol)
    began = time.process_time()
    failure = simulate(plan)
    cpu_s = time.process_time() - began
    if failure is not None:
        raise BenchError(f"simulated {protocol}, seed {seed}: {failure.promise}: {failure.detail}")
    operations = len(plan.operations)
    return {"protocol": protocol, "operations": operations, "cpu_s": cpu_s,
            "per_cpu_s": operations / cpu_s}  # fmt: skip


async def measure(*, rounds: int, tell: Tell) -> list[Figures]:
    """Rounds over all protocols, one run after the other in a process of their own."""
    found: list[Figures] = []
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        await loop.run_in_executor(pool, one, 0, PROTOCOLS[0])  # imports, caches
        for number in range(1, rounds + 1):
            for protocol in PROTOCOLS:
                tell(f"simulated {protocol}, round {number} of {rounds}")
                found.append(await loop.run_in_executor(pool, one, number, protocol))
    return found


def per_cpu_s(simulated: list[Figures], protocol: str) -> float:
    """The median of a protocol's rounds."""
    return float(median(each["per_cpu_s"] for each in simulated if each["protocol"] == protocol))


def show(console: Console, simulated: list[Figures]) -> None:
    """A row for each protocol."""
    title = f"Simulated store: {NODES} nodes, {RATE_PER_S} operations a virtual second, no faults"
    table = Table(title=title, title_justify="left")
    table.add_column("protocol")
    table.add_column("operations per second of CPU", justify="right")
    for protocol in dict.fromkeys(each["protocol"] for each in simulated):
        table.add_row(protocol, f"{per_cpu_s(simulated, protocol):,.0f}")
    console.print(table)
