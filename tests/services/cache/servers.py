"""Real Redis and Memcached for the tests, each on a free port of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.members import memcached, redis
from services.chassis.config import Address

READY_WITHIN_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process; `restart` keeps its port and its directory."""

    def __init__(self, kind: str, directory: Path, **settings: str) -> None:
        self.kind, self.directory, self.settings = kind, directory, settings
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def _command(self) -> list[str]:
        if self.kind == "memcached":
            options = {"listen": "127.0.0.1", "port": str(self.port)} | self.settings
            if os.geteuid() == 0:
                options["user"] = "nobody"
            return [memcached.find()[0], *(f"--{k.replace('_', '-')}={v}"
                                           for k, v in options.items())]  # fmt: skip
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory),
                   "save": "", "appendonly": "no"} | self.settings  # fmt: skip
        words = [word for k, v in options.items() for word in (f"--{k.replace('_', '-')}", v)]
        return [redis.find()[0], *words]

    async def start(self) -> None:
        self._spawn()
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    return

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def pause(self, on: bool = True) -> None:
        """Returns when it stands still: a thread of Memcached's may answer after the signal."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)
        if on:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def restart(self) -> None:
        self.kill()
        await self.start()


def missing(kind: str) -> str:
    """What to type to have a server of that kind; empty when it is here."""
    try:
        (memcached if kind == "memcached" else redis).find()
    except TestbedError as error:
        return str(error)
    return ""
