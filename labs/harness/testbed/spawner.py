"""The runner's side of the zygote: spawn a process, signal it, know what has become of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labs.harness.testbed.description import State
from labs.harness.testbed.errors import TestbedError, ZygoteDied
from labs.harness.testbed.launcher import Launched
from labs.harness.testbed.waiting import until

ANSWER_WITHIN_S = 20.0  # the first answer waits for the zygote's imports, perhaps not compiled yet
END_WITHIN_S = 8.0  # the zygote itself waits at most 5 s for its children
LOG_LINES = 15


class Process:
    """One process of the run. `state` is what the kernel told its parent, the zygote.

    `pid` is 0 until the zygote has answered (a process that is on its way counts as running).
    """

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.log_offset = log.stat().st_size if log.exists() else 0
        self.pid = 0
        self.state: State = "running"
        self.exit_code: int | None = None
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"Process({self.name}, pid={self.pid}, {self.state}, exit_code={self.exit_code})"

    def become(self, state: State, exit_code: int | None = None) -> None:
        self.state, self.exit_code = state, exit_code
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def reach(self, *states: State, within_s: float) -> bool:
        """Wait until the process is in one of `states`; False when the time has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.state not in states:
                    await self._changed.wait()
        return self.state in states

    async def settled(self) -> None:
        """Wait until the zygote has said whether there is such a process."""
        async with asyncio.timeout(ANSWER_WITHIN_S):
            while not self.pid and self.state != "stopped":
                await self._changed.wait()

    def last_lines(self, count: int = LOG_LINES) -> str:
        """The end of what this very process (not an earlier one of the name) has logged."""
        return tail(self.log, count, self.log_offset)


def tail(log: Path, count: int = LOG_LINES, offset: int = 0) -> str:
    """The last `count` lines of a file from `offset` bytes on, without reading all of it."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - 64 * 1024))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return "\n".join(lines[-count:]) or "(nothing)"


class Spawner:
    """Talks to one zygote. `connect()` first; `close()` ends the zygote and all it started."""

    def __init__(self, launched: Launched) -> None:
        self.launched = launched
        self.warm = asyncio.Event()
        self.warm_seconds = 0.0
        self.died: ZygoteDied | None = None
        self._processes: dict[int, Process] = {}
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._spawning: dict[int, Process] = {}
        self._ids = itertools.count(1)
        self._closing = False
        self._ended = asyncio.Event()

    async def connect(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self.launched.control)
        self._reading = asyncio.create_task(self._read(reader), name="zygote")

    async def spawn(
        self,
        process: Process,
        module: str,
        environment: Mapping[str, str],
        *,
        directory: Path,
    ) -> None:
        """Fork a process that runs `module.main(environment)`; its output goes to its log.

        The caller notes `process` down before it calls: if it is cancelled while it waits for the
        answer, there may be a process all the same, and somebody has to end it.

        Raises:
            TestbedError: it could not be started.
            ZygoteDied: the zygote is gone, and every process of the run with it.
        """
        await self._ask(
            process,
            do="spawn",
            name=process.name,
            module=module,
            environment=dict(environment),
            log=str(process.log),
            directory=str(directory),
        )

    async def signal(self, process: Process, number: signal.Signals) -> bool:
        """Send a signal; False when the process has ended already."""
        await process.settled()
        answer = await self._ask(None, do="signal", pid=process.pid, signal=int(number))
        return bool(answer["sent"])

    async def close(self) -> None:
        """End every process and remove the run's temporary files. Never raises, never hangs."""
        self._closing = True
        self._writer.close()  # the zygote sees the end of file, as if we had died
        try:
            with contextlib.suppress(TimeoutError):
                await until(self._has_ended, END_WITHIN_S, "the zygote ends")
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        finally:
            self.launched.abandon()  # finds nothing left to do, unless the zygote failed us

    def _has_ended(self) -> bool:
        return self.launched.process.poll() is not None

    async def _ask(self, spawning: Process | None, **command: Any) -> dict[str, Any]:
        if self.died or self._ended.is_set():
            if spawning:
                spawning.become("stopped")
            raise self.died or TestbedError("the testbed is closed")
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        if spawning:
            self._spawning[number] = spawning
        try:
            self._writer.write(json.dumps({"id": number, **command}).encode() + b"\n")
            async with asyncio.timeout(ANSWER_WITHIN_S):
                found = await answer
        except TimeoutError:
            raise TestbedError(
                f"the zygote (pid {self.launched.process.pid}) did not answer within "
                f"{ANSWER_WITHIN_S:g} s; its log: {self.launched.log}"
            ) from None
        finally:
            self._answers.pop(number, None)
        if "error" in found:
            raise TestbedError(f"{command['do']} {command.get('name', '')}: {found['error']}")
        return found

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Until the zygote hangs up, or every task there is gets cancelled: asyncio does that when
        an interrupt has reached its loop (orderly.py keeps them from it, not every test does).

        Who then still waits for an answer, to end its nodes in good order, would wait in vain: so
        nobody reads any more means the same as nobody is there, and the run is killed at once.
        """
        how = "was let go: nobody listens to it any more"
        try:
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    self._take_in(json.loads(line))
            how = "died"
        finally:
            self._end(how)

    def _take_in(self, message: dict[str, Any]) -> None:
        if "id" in message:
            # Registered here and not where the answer is awaited: a process that ends at once has
            # its exit on the next line, before the awaiting task has run.
            spawning = self._spawning.pop(message["id"], None)
            if spawning:
                spawning.pid = message.get("pid", 0)
                spawning.become("running" if spawning.pid else "stopped")
            if spawning and spawning.pid:
                self._processes[spawning.pid] = spawning
            answer = self._answers.get(message["id"])
            if answer and not answer.done():
                answer.set_result(message)
            return
        match message["event"]:
            case "warm":
                self.warm_seconds = message["seconds"]
                self.warm.set()
            case "exited":
                self._processes.pop(message["pid"]).become("stopped", message["code"])
            case "paused":
                self._processes[message["pid"]].become("paused")
            case "continued":
                self._processes[message["pid"]].become("running")
            case "ending":
                self._lose("was told to end")

    def _lose(self, how: str) -> None:
        if not self._closing and not self.died:
            self.died = ZygoteDied(
                f"the zygote of this run (pid {self.launched.process.pid}) {how}; all nodes go "
                f"with it, and this run can't go on. "
                f"Its log, {self.launched.log}, ends:\n{tail(self.launched.log)}"
            )

    def _end(self, how: str) -> None:
        """No more of the zygote is heard: nothing of the run is left, or will be in a moment."""
        if not self._closing:
            self._writer.close()
            self.launched.abandon()
            self._lose(f"{how} (exit code {self.launched.process.returncode})")
        for process in (*self._processes.values(), *self._spawning.values()):
            process.become("stopped")
        self._processes.clear()
        self._spawning.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self.died or TestbedError("the testbed is being closed"))
        self._ended.set()
