"""The containers of one Compose project: what state each is in, and what changes it.

The engine's event stream says what has become of a container, as `waitpid` does of a process: that
one was killed, or paused, from outside is seen too. A container counts as stopped only when what it
wrote is in its log file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import aiodocker

from labs.harness.testbed.compose_shell import Shell
from labs.harness.testbed.description import State
from labs.harness.testbed.errors import NodeExited, TestbedError
from labs.harness.testbed.spawner import Process
from labs.harness.testbed.waiting import until

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
CALL_WITHIN_S = 20.0
PAUSE_ATTEMPTS = 5
ENDS_WITHIN_S = 10.0
SIGNALLED = 128  # an exit code above it: killed by the signal of that number
NO_LOG = Path(os.devnull)


class Containers:
    """`watch()` before the project is made, `find()` after it; `close()` at the end.

    `logs`: the log file of each service; NO_LOG for one that has nothing to say.
    """

    def __init__(self, project: str, logs: dict[str, Path]) -> None:
        self.project = project
        self.processes = {service: Process(service, path) for service, path in logs.items()}
        self.lost: str | None = None
        # One each: an aiodocker client has one event stream, with one filter.
        self._docker = aiodocker.Docker()
        self._logs = logs
        self._ids: dict[str, str] = {}
        self._watching: asyncio.Task[None] | None = None
        self._asked_to_end: set[str] = set()
        self._closing = False

    async def watch(self) -> None:
        """Listen to the engine's events from now on. Raises TestbedError."""
        events: Any = self._docker.events
        filters = json.dumps({"label": [f"{PROJECT}={self.project}"], "type": ["container"]})
        heard = events.subscribe(filters=filters)
        self._watching = asyncio.create_task(self._watch(heard), name="docker events")

        def listening() -> bool:  # aiodocker does not tell when it is
            return self._watching is None or self._watching.done() or events.json_stream is not None

        await until(listening, CALL_WITHIN_S, "the Docker engine tells its events")
        if self.lost:
            raise TestbedError(self.lost)

    async def find(self) -> None:
        """Learn the containers' ids, and what happened before the events were heard."""
        filters = json.dumps({"label": [f"{PROJECT}={self.project}"]})
        with _told("list the containers"):
            found = await self._docker.containers.list(all=True, filters=filters)
            for container in found:
                service = container["Labels"].get(SERVICE, "")
                self._ids[service] = container.id
                process = self.processes.get(service)
                if process and container["State"] == "created":
                    self._asked_to_end.add(service)  # nobody misses what was not started yet
                    process.become("stopped")
                if process and process.state == "running" and container["State"] == "exited":
                    code = (await container.show())["State"]["ExitCode"]
                    await self._ended(service, code)
        if missing := sorted(self.processes.keys() - self._ids.keys()):
            raise TestbedError(f"no container was made for {', '.join(missing)}")

    async def close(self) -> None:
        """Hear no more."""
        self._closing = True
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._docker.close()

    def id(self, service: str) -> str:
        return self._ids[service]

    def log_to(self, service: str, path: Path) -> None:
        """Where the log of a container is saved from now on."""
        self._logs[service] = self.processes[service].log = path

    def state(self, service: str) -> State:
        return self.processes[service].state

    def check(self, names: dict[str, str]) -> None:
        """Raise if one ended unasked. `names`: what a reader calls each service.

        Raises:
            NodeExited: a container ended though nobody had asked it to.
            TestbedError: the engine is gone.
        """
        if self.lost:
            raise TestbedError(self.lost)
        for service, process in self.processes.items():
            if process.state == "stopped" and service not in self._asked_to_end:
                name = names.get(service, service)
                raise NodeExited(name, process.exit_code, process.last_lines())

    # --- changes; each returns when the engine says that it is so

    async def end(self, service: str, how: str, within_s: float) -> None:
        """Send a signal and wait for the end; what is left after `within_s` gets SIGKILL."""
        process = self.processes[service]
        self._asked_to_end.add(service)
        if process.state == "stopped":
            return
        if process.state == "paused":
            how, within_s = "SIGKILL", ENDS_WITHIN_S  # it could not hear anything else
        with _told(f"{how} to {service}", gone_is_fine=True):
            await self._container(service).kill(signal=how, timeout=_timeout())
        if await process.reach("stopped", within_s=within_s):
            return
        if how == "SIGKILL":
            raise TestbedError(f"{service} lives {within_s:g} s after SIGKILL")
        await self.end(service, "SIGKILL", ENDS_WITHIN_S)

    async def start_all(self) -> None:
        """Start what was created. Raises TestbedError."""
        tried = await asyncio.gather(*map(self.start, self.processes), return_exceptions=True)
        for error in tried:
            if isinstance(error, BaseException):
                raise error

    async def start(self, service: str) -> None:
        """Start a container that is stopped, or was only created."""
        await self._save_log(service)
        self._asked_to_end.discard(service)
        # A new one, so that its last words are not those of the one before.
        process = self.processes[service] = Process(service, self._logs[service])
        try:
            with _told(f"start {service}"):
                await self._container(service).start(timeout=_timeout())
        except BaseException:
            process.become("stopped")
            raise

    async def pause(self, service: str) -> None:
        for attempt in range(1, PAUSE_ATTEMPTS + 1):
            try:
                with _told(f"pause {service}"):
                    await self._container(service).pause()
                break
            except TestbedError as error:
                # On a busy machine runc gives up on tasks that are slow to stop, and thaws them.
                if "unable to freeze" not in str(error) or attempt == PAUSE_ATTEMPTS:
                    raise
        await self._reach(service, "paused")

    async def resume(self, service: str) -> None:
        with _told(f"resume {service}"):
            await self._container(service).unpause()
        await self._reach(service, "running")

    async def shell(self, service: str) -> Shell:
        """A shell in a container, open until it is closed. Raises TestbedError."""
        with _told(f"a shell in {service}"):
            return await Shell.open(service, self._container(service))

    async def execute(self, service: str, command: list[str], user: str = "0:0") -> str:
        """Run a command in a container and give what it wrote. Raises TestbedError."""
        with _told(f"{command[0]} in {service}"):
            async with asyncio.timeout(CALL_WITHIN_S):
                run = await self._container(service).exec(command, user=user)
                written = b""
                async with run.start(detach=False) as stream:
                    while message := await stream.read_out():
                        written += message.data
                code = (await run.inspect())["ExitCode"]
        text = written.decode(errors="replace")
        if code:
            raise TestbedError(f"{command[0]} in {service} failed with {code}: {text[-300:]}")
        return text

    async def run_once(
        self, image: str, command: list[str], volume: str, labels: dict[str, str]
    ) -> None:
        """Run a command as root in a container of its own that sees `volume` at /data alone."""
        config: dict[str, Any] = {
            "Image": image,
            "Entrypoint": command,
            "Cmd": [],
            "User": "0:0",
            "Labels": {**labels, PROJECT: self.project},
            "HostConfig": {
                "Binds": [f"{volume}:/data"],
                "NetworkMode": "none",
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "CapAdd": ["DAC_OVERRIDE"],
                "SecurityOpt": ["no-new-privileges"],
            },
        }
        with _told(f"{command[0]} on {volume}"):
            container = await self._docker.containers.create(config)
            try:
                await container.start()
                code = (await container.wait(timeout=CALL_WITHIN_S))["StatusCode"]
            finally:
                await container.delete(force=True)
        if code:
            raise TestbedError(f"{' '.join(command)} on {volume} failed with {code}")

    async def save_logs(self) -> None:
        """Bring every log file up to now."""
        await asyncio.gather(*map(self._save_log, self._ids.keys() & self._logs.keys()))

    # --- how it is done

    def _container(self, service: str) -> Any:
        return self._docker.containers.container(self._ids[service])

    async def _reach(self, service: str, wanted: State) -> None:
        process = self.processes[service]
        if not await process.reach(wanted, "stopped", within_s=ENDS_WITHIN_S):
            raise TestbedError(f"{service} is still {process.state}")

    async def _watch(self, heard: Any) -> None:
        try:
            while (event := await heard.get()) is not None:
                await self._take_in(event)
        finally:
            if not self._closing:
                self.lost = "the Docker engine has hung up: this run can't go on"
                for process in self.processes.values():
                    process.become("stopped")

    async def _take_in(self, event: dict[str, Any]) -> None:
        actor = event["Actor"]
        service = actor["Attributes"].get(SERVICE, "")
        process = self.processes.get(service)
        if process is None:
            return
        match event["Action"]:
            case "die":
                self._ids.setdefault(service, actor["ID"])
                await self._ended(service, int(actor["Attributes"].get("exitCode", 0)))
            case "pause":
                process.become("paused")
            case "unpause" | "start":
                process.become("running")

    async def _ended(self, service: str, code: int) -> None:
        process = self.processes[service]
        await self._save_log(service)
        process.become("stopped", SIGNALLED - code if code > SIGNALLED else code)

    async def _save_log(self, service: str) -> None:
        if self._logs[service] == NO_LOG:
            return
        with contextlib.suppress(aiodocker.DockerError, OSError, ValueError, TimeoutError):
            lines = await self._container(service).log(stdout=True, stderr=True, timeout=_timeout())
            self._logs[service].write_text("".join(lines))


def _timeout() -> Any:
    return CALL_WITHIN_S


@contextlib.contextmanager
def _told(what: str, *, gone_is_fine: bool = False) -> Any:
    """The engine's errors as the testbed's own. `gone_is_fine`: for what has just ended."""
    try:
        yield
    except aiodocker.DockerError as error:
        if gone_is_fine and error.status in (404, 409):
            return
        raise TestbedError(f"{what}: the Docker engine says: {error.message}") from error
    except (OSError, TimeoutError) as error:
        raise TestbedError(f"{what}: the Docker engine does not answer: {error!r}") from error
