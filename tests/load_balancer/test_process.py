"""The balancer as a process: memory, kills under load, ten thousand connections, start and stop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO

import pytest

from labs.harness.bench.processes import free_ports
from services.chassis.machine import Machine
from services.chassis.service import serve
from services.load_balancer import make
from tests.load_balancer.processes import ROOT, balancer_process, environment
from tests.load_balancer.rig import FakeBackend, Message, answer, read_answer, read_head, until

MIB = 1 << 20
BODY_MIB = 100
PIECE = bytes(range(256)) * 256  # 64 KiB

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])


async def echo_stream(
    request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Answer with the body while it comes."""
    left = int(request.headers["content-length"])
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
    while left:
        piece = await reader.read(min(left, len(PIECE)))
        assert piece
        left -= len(piece)
        writer.write(piece)
        await writer.drain()
    return True


@asynccontextmanager
async def backend(reply: object) -> AsyncIterator[FakeBackend]:
    made = FakeBackend("b1")
    made.reply = reply  # type: ignore[assignment]
    await made.start()
    try:
        yield made
    finally:
        await made.kill()


async def test_100_mib_stream_both_ways_within_bounded_memory() -> None:
    """In and out at once: what is held at any time are buffers, not bodies."""
    async with (
        backend(echo_stream) as one,
        balancer_process({"b1": one.port}) as balancer,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        before = balancer.resident_mib
        size = BODY_MIB * MIB
        writer.write(b"PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % size)
        sent, received, peak = hashlib.sha256(), hashlib.sha256(), before

        async def send() -> None:
            for _ in range(size // len(PIECE)):
                writer.write(PIECE)
                sent.update(PIECE)
                await writer.drain()

        sending = asyncio.create_task(send())
        assert (await read_head(reader)).headers["content-length"] == str(size)
        got = 0
        while got < size:
            piece = await reader.read(MIB)
            assert piece
            got += len(piece)
            received.update(piece)
            peak = max(peak, balancer.resident_mib)
        await sending
        writer.close()

        print(f"memory: {before:.1f} MiB before, {peak:.1f} MiB at most")
        assert received.digest() == sent.digest()
        assert peak - before < 16


async def test_a_backend_killed_under_load_costs_no_idempotent_request() -> None:
    """kill -9 of one of three while 24 clients ask, and its return; every answer is a 200.

    Each of the requests that it had was made again elsewhere, within the retry budget.
    """
    ports = dict(zip(("b1", "b2", "b3"), free_ports(3), strict=True))

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.load_balancer.backend", str(ports[name])]
        return subprocess.Popen(command, cwd=ROOT)

    processes = {name: start(name) for name in ports}
    statuses: Counter[int] = Counter()
    served: Counter[str] = Counter()
    stop = asyncio.Event()

    async def client(port: int, method: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b"" if method == b"GET" else b"x" * 100
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        while not stop.is_set():
            writer.write(b"%b / HTTP/1.1\r\nHost: t\r\n%b\r\n%b" % (method, length, body))
            found = await read_answer(reader)
            statuses[found.status] += 1
            served[found.headers.get("x-served-by", "?")] += 1
        writer.close()

    async def asked(more: int) -> None:
        goal = statuses.total() + more
        await until(lambda: statuses.total() >= goal, 60)

    try:
        async with balancer_process(
            ports, health_interval_ms=100, outlier_ejection_ms=200, retry_minimum_per_s=50
        ) as balancer:
            methods = [b"GET", b"PUT", b"DELETE"] * 8
            clients = [asyncio.create_task(client(balancer.port, each)) for each in methods]
            await asked(500)
            for _ in range(2):
                processes["b2"].kill()
                processes["b2"].wait()
                await asked(500)
                processes["b2"] = start("b2")
                served.clear()
                await until(lambda: served["b2"], 60)
            stop.set()
            await asyncio.gather(*clients)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    print(f"answers: {dict(statuses)}")
    assert set(statuses) == {200}


@pytest.mark.slow
async def test_10_000_connections_within_500_mib() -> None:
    """Each has asked once and stays; then each asks again."""
    count = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 500:
        pytest.skip(
            f"left out: {count} connections need {count + 500} file descriptors, not {hard}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        async with (
            backend(answer(body=b"held")) as one,
            balancer_process({"b1": one.port}) as balancer,
        ):
            before = balancer.resident_mib
            clients = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.load_balancer.clients"),
                *(str(balancer.port), str(count)),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                assert clients.stdout is not None
                async with asyncio.timeout(300):
                    assert await clients.stdout.readline() == b"held\n"
                    held = balancer.resident_mib
                    output, _ = await clients.communicate(b"")
            finally:
                if clients.returncode is None:
                    clients.kill()
                    await clients.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    each = (held - before) * 1024 / count
    print(
        f"{count} connections: {held:.0f} MiB, of which {before:.0f} at the start: {each:.1f} KiB"
    )
    assert json.loads(output) == {"200": count}
    assert held < 500


async def test_what_it_cannot_be_configured_with_is_one_line() -> None:
    """Exit code 2; the line names the key, the value and what is allowed."""
    for key, value, told in (
        ("policy", "round_robbin", "did you mean round_robin?"),
        ("backends", "b1=127.0.0.1:80*", "name=host:port"),
        ("backends", "", "LOAD_BALANCER_BACKENDS is missing"),
        ("retry_budget", "101", "from 0 to 100"),
        ("hash_key", "cookie", "header:<name>"),
        ("polcy", "x", "the nearest is LOAD_BALANCER_POLICY"),
    ):
        output = StringIO()
        given = {**environment(0, {"b1": 1}), f"LOAD_BALANCER_{key.upper()}": value}
        assert await serve(make, given, Machine(output=output)) == 2
        assert told in output.getvalue()
        assert len(output.getvalue().splitlines()) == 1
