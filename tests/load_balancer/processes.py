"""A balancer as a process of its own, as it is in earnest: on uvloop, with its own memory."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from labs.harness.bench.processes import free_ports, resident_mib
from tests.load_balancer.rig import read_answer

ROOT = Path(__file__).resolve().parents[2]


class BalancerProcess:
    """A running balancer."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def resident_mib(self) -> float:
        return resident_mib(self.process.pid)

    async def ask(self, data: bytes) -> int:
        """The status of the answer to `data`, on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            return (await read_answer(reader)).status
        finally:
            writer.close()

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.process.wait()


def environment(port: int, backends: Mapping[str, int], **settings: object) -> dict[str, str]:
    """What the process is given; `backends`: ports by name."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOAD_BALANCER")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "LOAD_BALANCER_NODE": "lb",
        "LOAD_BALANCER_LISTEN": f"127.0.0.1:{port}",
        "LOAD_BALANCER_BACKENDS": ",".join(f"{n}=127.0.0.1:{p}" for n, p in backends.items()),
        **{f"LOAD_BALANCER_{key.upper()}": str(value) for key, value in settings.items()},
    }


@asynccontextmanager
async def balancer_process(
    backends: Mapping[str, int], **settings: object
) -> AsyncIterator[BalancerProcess]:
    """Started and ready; it has to end with 0 when it is told to."""
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.load_balancer"),
        cwd=ROOT,
        env=environment(port, backends, **settings),
        stderr=asyncio.subprocess.DEVNULL,
    )
    made = BalancerProcess(process, port)
    try:
        async with asyncio.timeout(30):
            while True:
                assert process.returncode is None, f"exit code {process.returncode}"
                try:
                    if await made.ask(b"GET /health/ready HTTP/1.1\r\nHost: t\r\n\r\n") == 200:
                        break
                except (ConnectionError, asyncio.IncompleteReadError):
                    pass
                await asyncio.sleep(0.02)
        yield made
        assert await made.terminate() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
