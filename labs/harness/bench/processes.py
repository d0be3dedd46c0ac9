"""Processes of one measured system: started together, in a group of their own, killed together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from labs.harness.testbed import registry
from labs.harness.workloads.http_load import ENDS_WITHIN_S, Load, Result

ROOT = Path(__file__).resolve().parents[3]
PROC = Path("/proc")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
LINES_SHOWN = 15


class BenchError(Exception):
    """The benchmark could not measure; the message says what went wrong."""


class Group:
    """A system's processes and its directory; `with` kills and removes both in the end.

    Recorded with the testbed's registry: after a `kill -9` of the benchmark, the next run, or
    `python -m labs sweep`, finishes the work.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []
        self._run = f"bench-{os.getpid()}-{secrets.token_hex(4)}"

    def __enter__(self) -> Group:
        self.directory.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._group, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            registry.record_path(self._run).unlink(missing_ok=True)

    @property
    def _group(self) -> int:
        return self.processes[0].pid

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def start(self, arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
        """Start one more process; what it prints goes to a log in the directory."""
        group = self.processes[0].pid if self.processes else 0  # 0: a new one, led by this process
        with (self.directory / f"{len(self.processes)}.log").open("ab") as log:
            process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=group,
            )
        self.processes.append(process)
        self._record()

    def check(self) -> None:
        """Raise BenchError when one of them has ended."""
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                text = (self.directory / f"{number}.log").read_text(errors="replace")
                lines = "\n".join(text.splitlines()[-LINES_SHOWN:])
                raise BenchError(f"{self.name}: exit code {process.returncode}:\n{lines}")

    def _record(self) -> None:
        identities = registry.identify([os.getpid(), *self.pids])
        runner = registry.OwnedProcess(os.getpid(), identities.pop(os.getpid()), "bench")
        owned = [registry.OwnedProcess(*each, self.name) for each in identities.items()]
        record = registry.OwnerRecord(self._run, runner, self._group, owned, [str(self.directory)])
        record.save()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def cpu_s(pids: Sequence[int]) -> float:
    """Seconds of CPU that living processes have used so far."""
    if not PROC.joinpath("self", "stat").exists():
        return sum(_cpu_s_by_ps(pid) for pid in pids)
    ticks = 0
    for pid in pids:
        fields = PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime: proc(5), fields 14 and 15
    return ticks / CLOCK_TICKS


def resident_mib(pid: int) -> float:
    """Resident memory of a living process."""
    return int(_ps(pid, "rss")) / 1024


def _cpu_s_by_ps(pid: int) -> float:
    seconds = 0.0
    for part in _ps(pid, "time").replace("-", ":").split(":"):  # [[dd-]hh:]mm:ss.ss
        seconds = seconds * 60 + float(part)
    return seconds


def _ps(pid: int, column: str) -> str:
    if column == "rss" and (statm := PROC / str(pid) / "statm").exists():
        return str(int(statm.read_text().split()[1]) * resource.getpagesize() // 1024)
    command = ["ps", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


async def generate(load: Load) -> Result:
    """Run the load generator in a process of its own. Raises BenchError when answers failed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "labs.harness.workloads.http_load"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    within_s = load.warm_up_s + load.duration_s + 2 * ENDS_WITHIN_S
    try:
        async with asyncio.timeout(within_s):
            output, errors = await process.communicate(msgspec.json.encode(load))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise BenchError(f"load on {load.address}: {errors.decode(errors='replace')[-1000:]}")
    result = msgspec.json.decode(output, type=Result)
    if result.failures or not result.measured:
        raise BenchError(f"load on {load.address}: {result.failures}: {result.example}")
    return result
