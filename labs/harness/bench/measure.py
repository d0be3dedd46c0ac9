"""The measurements: interleaved rounds, so that a noisy neighbour disturbs all systems alike."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from labs.harness.bench.processes import Group, cpu_s, generate, resident_mib
from labs.harness.bench.systems import (
    ask,
    bare,
    etcd,
    etcd_program,
    http,
    start_nodes,
    store,
)
from labs.harness.testbed.description import kv_cluster
from labs.harness.testbed.local import LocalTestbed
from labs.harness.testbed.waiting import until
from labs.harness.workloads.http_load import Load

CLIENTS = (1, 16, 64)
WARM_UP_S = 0.3
GET_CLIENTS = 16
START_NODES = 5
READY_WITHIN_S = 20.0
SYNCHRONIZE_BYTES = 4096
SYNCHRONIZE_TIMES = 200

Figures = dict[str, Any]
Tell = Callable[[str], None]


def synchronize_p50_ms(directory: Path) -> float:
    """The median of overwriting 4 KiB of a preallocated file and fdatasync: the machine's floor."""
    synchronize = getattr(os, "fdatasync", os.fsync)
    block = b"x" * SYNCHRONIZE_BYTES
    path = directory / "fdatasync"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    times = []
    try:
        os.write(descriptor, block * SYNCHRONIZE_TIMES)
        os.fsync(descriptor)
        for number in range(SYNCHRONIZE_TIMES):
            started = time.perf_counter()
            os.pwrite(descriptor, block, number * SYNCHRONIZE_BYTES)
            synchronize(descriptor)
            times.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()
    return median(times) * 1000


async def puts(
    directory: Path, session: aiohttp.ClientSession, *, rounds: int, seconds: float, tell: Tell
) -> list[Figures]:
    """Durable PUTs, closed loop, of each interface at each number of clients, once a round."""
    found: list[Figures] = []
    systems = [store, etcd] if etcd_program() else [store]
    for number in range(rounds):
        for start in systems:
            async with start(directory / f"{start.__name__}-{number}", session) as system:
                for interface, requests in system.puts.items():
                    for clients in CLIENTS:
                        tell(f"round {number + 1} of {rounds}: {interface}, {clients} clients")
                        load = Load(system.leader, clients, WARM_UP_S, seconds, requests)
                        before = cpu_s(system.group.pids)
                        result = await generate(load)
                        used_s = cpu_s(system.group.pids) - before
                        found.append(
                            {
                                "round": number,
                                "interface": interface,
                                "clients": clients,
                                "throughput": result.throughput,
                                "p50_ms": result.p50_ms,
                                "p99_ms": result.p99_ms,
                                "max_ms": result.max_ms,
                                "cpu_us": used_s / result.answers * 1e6,
                                "resident_mib": max(map(resident_mib, system.group.pids)),
                            }
                        )
    return found


async def gets(
    directory: Path, session: aiohttp.ClientSession, *, rounds: int, seconds: float, tell: Tell
) -> list[Figures]:
    """CPU per GET of one store node, telemetry and all, and of a bare handler with the body."""
    found: list[Figures] = []
    path = "/kv/k0?consistency=local"
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: CPU per GET, observed and bare")
        async with store(directory / f"one-{number}", session, nodes=1) as node:
            url = f"http://{node.leader}{path}"
            await ask(session, "PUT", f"http://{node.leader}/kv/k0", json={"value": "v" * 64})
            async with session.get(url) as response:
                body = await response.text()
            async with bare(directory / f"bare-{number}", session, body) as handler:
                for name, system in (("observed", node), ("bare", handler)):
                    request = http("GET", path, system.leader)
                    load = Load(system.leader, GET_CLIENTS, WARM_UP_S, seconds, [request])
                    before = cpu_s(system.group.pids)
                    result = await generate(load)
                    used_s = cpu_s(system.group.pids) - before
                    found.append(
                        {
                            "round": number,
                            "handler": name,
                            "throughput": result.throughput,
                            "cpu_us": used_s / result.answers * 1e6,
                        }
                    )
    return found


async def starts(
    directory: Path, session: aiohttp.ClientSession, *, rounds: int, tell: Tell
) -> list[Figures]:
    """Seconds until five nodes are ready: forked from a warm zygote, and as plain processes."""
    found: list[Figures] = []
    async with LocalTestbed(directory / "testbed") as testbed:
        for number in range(rounds + 1):
            tell(f"round {number} of {rounds}: start of {START_NODES} nodes")
            started = time.perf_counter()
            spec = kv_cluster(START_NODES, protocol="raft", clients=("c1",), name=f"s{number}")
            async with testbed.cluster(spec) as cluster:
                await cluster.ready(within_s=READY_WITHIN_S)
                seconds = time.perf_counter() - started
            if number > 0:  # the first one waited for the zygote's imports
                found.append({"round": number - 1, "how": "forked", "seconds": seconds})
    for number in range(rounds):
        with Group("faultline", directory / f"start-{number}") as group:
            started = time.perf_counter()
            addresses = start_nodes(group, START_NODES)
            await until(lambda a=addresses, g=group: _ready(session, a, g), READY_WITHIN_S)  # type: ignore[misc]
            seconds = time.perf_counter() - started
            found.append({"round": number, "how": "processes", "seconds": seconds})
    return found


async def _ready(session: aiohttp.ClientSession, addresses: list[str], group: Group) -> bool:
    group.check()
    urls = [f"http://{address}/health/ready" for address in addresses]
    answers = await asyncio.gather(*(ask(session, "GET", url) for url in urls))
    return all(status == 200 for status, _ in answers)


def middle(figures: list[Figures], what: str, **where: Any) -> float:
    """The median over the rounds of `what`; NaN when it was not measured."""
    values = [f[what] for f in figures if all(f[key] == value for key, value in where.items())]
    return median(values) if values else float("nan")
