"""What is measured: Faultline's store, etcd, a bare aiohttp handler. Each started fresh per round.

All on loopback, data on the disk of the repository, all with one durable copy on a majority before
an answer (etcd's default, Faultline's `KV_FSYNC=always`). The store runs as labs run it: telemetry
on. Clients talk to the leader, so nobody pays for a hop.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from labs.harness.bench.processes import ROOT, BenchError, Group, free_ports
from labs.harness.testbed.waiting import TimedOut, until

READY_WITHIN_S = 30.0
KEYS = 1000
VALUE = "v" * 64


@dataclass(slots=True)
class System:
    """A started system: its processes, the leader's address, and the requests it understands.

    `puts` are raw HTTP requests by the name of the interface they use.
    """

    group: Group
    leader: str
    puts: dict[str, list[str]] = field(default_factory=dict)


def http(method: str, path: str, address: str, body: str = "", content_type: str = "") -> str:
    """A raw HTTP/1.1 request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {address}\r\n"
    if body:
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body.encode())}\r\n"
    return f"{head}\r\n{body}"


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, **options: Any
) -> tuple[int, Any]:
    """Status and JSON of an answer; (0, None) while nobody answers."""
    try:
        async with session.request(method, url, **options) as response:
            body = await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0, None
    try:
        return response.status, msgspec.json.decode(body)
    except msgspec.DecodeError:
        return response.status, None


async def _leader(
    group: Group, addresses: list[str], leads: Any, session: aiohttp.ClientSession
) -> str:
    async def find() -> str | None:
        group.check()
        for address in addresses:
            if await leads(session, address):
                return address
        return None

    try:
        found = await until(find, READY_WITHIN_S, f"{group.name} has a leader")
    except TimedOut as error:
        raise BenchError(str(error)) from None
    assert found is not None
    return found


def start_nodes(group: Group, nodes: int, **settings: str) -> list[str]:
    """Start `nodes` plain processes of the store; their addresses."""
    addresses = {f"n{i + 1}": f"127.0.0.1:{port}" for i, port in enumerate(free_ports(nodes))}
    for name, address in addresses.items():
        peers = ",".join(f"{n}={a}" for n, a in addresses.items() if n != name)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("KV_")},
            "PYTHONPATH": str(ROOT),
            "KV_NODE": name,
            "KV_LISTEN": address,
            "KV_PEERS": peers,
            "KV_DATA_DIR": str(group.directory / name),
            "KV_TELEMETRY": str(group.directory / f"{name}.events.jsonl"),
            **settings,
        }
        group.start([sys.executable, "-m", "services.kv"], environment)
    return list(addresses.values())


async def _node_leads(session: aiohttp.ClientSession, address: str) -> bool:
    status, document = await ask(session, "GET", f"http://{address}/status")
    if status != 200 or document["role"] != "leader":
        return False
    status, _ = await ask(session, "GET", f"http://{address}/health/ready")
    return status == 200


@asynccontextmanager
async def store(
    directory: Path, session: aiohttp.ClientSession, nodes: int = 3
) -> AsyncIterator[System]:
    """Faultline's store, ready."""
    with Group("faultline", directory) as group:
        addresses = start_nodes(group, nodes)
        leader = await _leader(group, addresses, _node_leads, session)
        body = f'{{"value":"{VALUE}"}}'
        puts = [http("PUT", f"/kv/k{i}", leader, body, "application/json") for i in range(KEYS)]
        yield System(group, leader, {"faultline": puts})


def etcd_program() -> str | None:
    """Where etcd is, when it is installed."""
    return shutil.which("etcd")


def etcd_version(program: str) -> str:
    """What `etcd --version` says first."""
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return output.stdout.splitlines()[0].removeprefix("etcd Version:").strip()


def _has_v2(program: str) -> bool:
    output = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    return "--enable-v2" in output.stdout + output.stderr


async def _member_leads(session: aiohttp.ClientSession, address: str) -> bool:
    url = f"http://{address}/v3/maintenance/status"
    status, document = await ask(session, "POST", url, data="{}")
    return status == 200 and document.get("leader") == document["header"]["member_id"]


@asynccontextmanager
async def etcd(directory: Path, session: aiohttp.ClientSession) -> AsyncIterator[System]:
    """Three members with default timing; the v2 HTTP interface too, where this version has it."""
    program = etcd_program()
    assert program is not None, "ask etcd_program() first"
    with_v2 = _has_v2(program)
    with Group("etcd", directory) as group:
        ports = free_ports(6)
        members = [(f"e{i}", ports[2 * i], ports[2 * i + 1]) for i in range(3)]
        initial = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, _, peer in members)
        for name, client, peer in members:
            urls = [f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"]
            group.start(
                [
                    *(program, "--name", name, "--data-dir", str(group.directory / name)),
                    *("--listen-client-urls", urls[0], "--advertise-client-urls", urls[0]),
                    *("--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1]),
                    *("--initial-cluster", initial, "--initial-cluster-state", "new"),
                    *("--logger", "zap", "--log-level", "error"),
                    *(["--enable-v2"] if with_v2 else []),
                ]
            )
        addresses = [f"127.0.0.1:{client}" for _, client, _ in members]
        leader = await _leader(group, addresses, _member_leads, session)
        yield System(group, leader, _etcd_puts(leader, with_v2=with_v2))


def _etcd_puts(leader: str, *, with_v2: bool) -> dict[str, list[str]]:
    puts = {}
    if with_v2:
        form = "application/x-www-form-urlencoded"
        puts["etcd v2"] = [
            http("PUT", f"/v2/keys/k{i}", leader, f"value={VALUE}", form) for i in range(KEYS)
        ]
    value = base64.b64encode(VALUE.encode()).decode()
    keys = [base64.b64encode(f"k{i}".encode()).decode() for i in range(KEYS)]
    puts["etcd v3"] = [
        http("POST", "/v3/kv/put", leader, f'{{"key":"{k}","value":"{value}"}}', "application/json")
        for k in keys
    ]
    return puts


@asynccontextmanager
async def bare(directory: Path, session: aiohttp.ClientSession, body: str) -> AsyncIterator[System]:
    """A bare aiohttp handler that answers `body`."""
    with Group("bare", directory) as group:
        (port,) = free_ports(1)
        group.start([sys.executable, "-m", "labs.harness.bench.bare", str(port), body])

        async def answers(session: aiohttp.ClientSession, address: str) -> bool:
            return (await ask(session, "GET", f"http://{address}/kv/k0"))[0] == 200

        leader = await _leader(group, [f"127.0.0.1:{port}"], answers, session)
        yield System(group, leader)
