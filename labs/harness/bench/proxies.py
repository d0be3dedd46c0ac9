"""The load balancer beside nginx: the same two backends, one worker each, a core of its own.

The backends are nginx's `return 200`, which cost next to nothing, so the proxy is what is measured.
It has core 0, backends and load generator share core 1 (where the system can pin processes). Both
proxies keep connections to the backends, add X-Forwarded-For and X-Request-Id, and write no log;
"observed" is the balancer with its telemetry on, as labs run it.

*Requests per second per core* is the inverse of the CPU time per request under 64 clients in a
closed loop: it does not depend on which of the two cores was the bottleneck. *Added p99* is the p99
through the proxy minus the one without it, at the same offered rate for all: an open loop of 2,000
requests a second, which is below what saturates either (were it more than half of that, it would
count as not measured). In a closed loop whoever is slower is saturated, its p99 is but the inverse
of its throughput, which is measured already; and a single client sees no queueing at all.

The balancer is faster with heads that it has seen before on their connection
(`services/load_balancer/repeated.py`). So requests per second per core are measured a second time,
"anew": a browser's heads, of which no two are alike, and answers with an id of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from labs.harness.bench.processes import ROOT, BenchError, Group, cpu_s, free_ports, generate
from labs.harness.bench.systems import READY_WITHIN_S, ask, http
from labs.harness.testbed.waiting import TimedOut, until
from labs.harness.workloads.http_load import Load, Result

CLIENTS = 64
RATE_PER_S = 2_000.0  # of the open loop in which latency is measured
WARM_UP_S = 0.3
NEEDS_NGINX = "needs nginx to be compared with (Debian: apt-get install nginx-light)"
BACKENDS = 2

Figures = dict[str, Any]

_BACKENDS = """
daemon off; master_process off; error_log stderr; pid {directory}/backends.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_temp_path {directory}/body;
    server {{
        {listen}
        location / {{ return 200 "0123456789abcdef0123456789abcdef"; }}
        location /anew/ {{
            add_header X-Answer $request_id;
            return 200 "0123456789abcdef0123456789abcdef";
        }}
    }}
}}
"""
_PROXY = """
daemon off; master_process off; error_log stderr; pid {directory}/proxy.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    upstream backends {{ {servers} keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://backends;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Request-Id $request_id;
        }}
    }}
}}
"""


_ANEW = """\
GET /anew/{number} HTTP/1.1\r
Host: {address}\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r
Accept-Language: en-US,en;q=0.5\r
Accept-Encoding: gzip, deflate, br\r
Referer: http://{address}/anew/\r
Cookie: session={number:032x}\r
Sec-Fetch-Mode: navigate\r
\r
"""
ANEW = 256  # requests that a client goes through before one comes again


def nginx_program() -> str | None:
    """Where nginx is; Debian keeps it out of the PATH of users."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def nginx_version(program: str) -> str:
    text = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    return text.strip().rpartition("/")[2] or "?"


def _pin(pid: int, core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(pid, {core})


async def _answers(session: aiohttp.ClientSession, group: Group, address: str) -> None:
    async def ready() -> bool:
        group.check()
        return (await ask(session, "GET", f"http://{address}/"))[0] == 200

    try:
        await until(ready, READY_WITHIN_S, f"{group.name} answers")
    except TimedOut as error:
        raise BenchError(str(error)) from None


@asynccontextmanager
async def _nginx(
    name: str, directory: Path, config: str, addresses: Sequence[str], core: int,
    session: aiohttp.ClientSession,
) -> AsyncIterator[Group]:  # fmt: skip
    program = nginx_program()
    assert program is not None
    with Group(name, directory) as group:
        path = group.directory / "nginx.conf"
        path.write_text(config)
        group.start([program, "-c", str(path), "-p", str(group.directory), "-e", "stderr"])
        _pin(group.pids[0], core)
        for address in addresses:
            await _answers(session, group, address)
        yield group


@asynccontextmanager
async def _balancer(
    directory: Path, address: str, backends: list[str], telemetry: str,
    session: aiohttp.ClientSession,
) -> AsyncIterator[Group]:  # fmt: skip
    with Group("load balancer", directory) as group:
        own = {
            "LOAD_BALANCER_NODE": "lb",
            "LOAD_BALANCER_LISTEN": address,
            "LOAD_BALANCER_BACKENDS": ",".join(f"b{i}={each}" for i, each in enumerate(backends)),
            "LOAD_BALANCER_HEALTH_PATH": "/",
            "LOAD_BALANCER_TELEMETRY": telemetry,
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LOAD_BALANCER_")}
        environment = {**kept, "PYTHONPATH": str(ROOT), **own}
        group.start([sys.executable, "-m", "services.load_balancer"], environment)
        _pin(group.pids[0], 0)
        await _answers(session, group, address)
        yield group


async def measure(
    directory: Path,
    session: aiohttp.ClientSession,
    *,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> list[Figures]:
    """GETs through each proxy and through none, once a round; nothing where nginx is not here."""
    if nginx_program() is None:
        return []
    found: list[Figures] = []
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    _pin(0, 1)  # the load generator is a child of ours
    try:
        for number in range(rounds):
            found += await _round(directory / f"proxies-{number}", session, number, seconds, tell)
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
    return found


async def _round(
    directory: Path,
    session: aiohttp.ClientSession,
    number: int,
    seconds: float,
    tell: Callable[[str], None],
) -> list[Figures]:
    found: list[Figures] = []
    backends = [f"127.0.0.1:{port}" for port in free_ports(BACKENDS)]
    listen = " ".join(f"listen {each};" for each in backends)
    config = _BACKENDS.format(directory=directory / "backends", listen=listen)
    async with _nginx("backends", directory / "backends", config, backends, 1, session):
        tell(f"round {number + 1}: no proxy")
        found.append(await _measure("none", backends[0], None, number, seconds))
        (port,) = free_ports(1)
        address = f"127.0.0.1:{port}"
        servers = " ".join(f"server {each};" for each in backends)
        config = _PROXY.format(directory=directory / "nginx", servers=servers, address=address)
        tell(f"round {number + 1}: nginx")
        async with _nginx("nginx", directory / "nginx", config, [address], 0, session) as group:
            found.append(await _measure("nginx", address, group, number, seconds))
        for name, telemetry in (("faultline", ""), ("observed", str(directory / "events.jsonl"))):
            tell(f"round {number + 1}: load balancer, {name}")
            (port,) = free_ports(1)
            address = f"127.0.0.1:{port}"
            one = _balancer(directory / name, address, backends, telemetry, session)
            async with one as group:
                found.append(await _measure(name, address, group, number, seconds))
    return found


async def _measure(
    name: str, address: str, group: Group | None, number: int, seconds: float
) -> Figures:
    requests = [http("GET", "/items/17", address)]
    anew = [_ANEW.format(number=number, address=address) for number in range(ANEW)]
    many, cpu_us = await _saturated(address, group, seconds, requests)
    _, anew_cpu_us = await _saturated(address, group, seconds, anew)
    calm = await generate(Load(address, CLIENTS, WARM_UP_S, seconds, requests, RATE_PER_S))
    return {
        "round": number,
        "proxy": name,
        "throughput": many.throughput,
        "cpu_us": cpu_us,
        "anew_cpu_us": anew_cpu_us,
        "p50_ms": calm.p50_ms,
        "p99_ms": calm.p99_ms,
        "late_p99_ms": calm.late_p99_ms,
    }


async def _saturated(
    address: str, group: Group | None, seconds: float, requests: list[str]
) -> tuple[Result, float]:
    """What came of a closed loop, and the CPU time per request in µs of the proxy, if any."""
    before = cpu_s(group.pids) if group else 0.0
    result = await generate(Load(address, CLIENTS, WARM_UP_S, seconds, requests))
    used_s = cpu_s(group.pids) - before if group else 0.0
    return result, used_s / result.answers * 1e6
