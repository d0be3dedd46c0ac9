"""A stand-in for a service: the face that the testbed needs, a counter on disk, and ways to fail.

ECHO_FAIL=config: ends with exit code 2 and one line, as a service does that finds its settings bad.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web


def main(environ: Mapping[str, str]) -> int:
    if environ.get("ECHO_FAIL") == "config":
        print("ECHO_LISTEN must be host:port, got 'nonsense'", file=sys.stderr)
        return 2
    host, _, port = environ["ECHO_LISTEN"].rpartition(":")
    print(f"{environ['ECHO_NODE']} starts")
    app = make_app(environ, FileValue(Path(environ["ECHO_DATA_DIR"]) / "value"), os._exit)
    Path(environ["ECHO_TELEMETRY"]).open("a").close()
    web.run_app(
        app,
        host=host,
        port=int(port),
        reuse_port=True,
        access_log=None,
        print=lambda *_: None,
        shutdown_timeout=0.1,
    )
    print(f"{environ['ECHO_NODE']} stops")
    return 0


async def serve(environ: Mapping[str, str], machine: Any) -> int:
    """The same in a simulation: see labs/harness/testbed/simulation/process.py."""
    if environ.get("ECHO_FAIL") == "config":
        print("ECHO_LISTEN must be host:port, got 'nonsense'", file=machine.output)
        return 2
    host, _, port = environ["ECHO_LISTEN"].rpartition(":")
    print(f"{environ['ECHO_NODE']} starts", file=machine.output)
    stored = MachineValue(machine.files("always"), Path(environ["ECHO_DATA_DIR"]) / "value")
    app = make_app(environ, stored, sys.exit)
    app["pid"] = machine.pid
    machine.open_events(Path(environ["ECHO_TELEMETRY"]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, int(port)).start()
    await stop.wait()
    await runner.cleanup()
    print(f"{environ['ECHO_NODE']} stops", file=machine.output)
    return 0


class FileValue:
    """The value on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Any:
        return json.loads(self._path.read_text()) if self._path.exists() else None

    def store(self, text: str) -> None:
        self._path.write_text(text)


class MachineValue:
    """The value on the disk of a simulated machine."""

    def __init__(self, files: Any, path: Path) -> None:
        self._files, self._path = files, path

    def load(self) -> Any:
        if self._path.name not in self._files.names(self._path.parent):
            return None
        return json.loads(self._files.read(self._path))

    def store(self, text: str) -> None:
        descriptor = self._files.open(self._path)
        self._files.truncate(descriptor, 0)
        self._files.write(descriptor, text.encode(), 0)
        self._files.close(descriptor)


def make_app(
    environ: Mapping[str, str], stored: FileValue | MachineValue, end_process: Callable[[int], Any]
) -> web.Application:
    app = web.Application()
    app["clock"] = {"offset_ms": 0, "rate": 1.0}
    app["node"] = environ["ECHO_NODE"]
    app["leads"] = environ["ECHO_NODE"] == environ.get("ECHO_LEADER")
    app["stored"] = stored
    app["end_process"] = end_process
    app["pid"] = os.getpid()
    app["started"] = time.monotonic_ns()
    app["environ"] = dict(environ)
    app.add_routes(
        [
            web.get("/health/ready", ready),
            web.get("/status", status),
            web.post("/admin/clock", clock),
            web.get("/environ", environment),
            web.get("/value", value),
            web.put("/value", put_value),
            web.post("/exit", end),
        ]
    )
    return app


async def ready(request: web.Request) -> web.Response:
    return web.json_response({"ready": True})


async def status(request: web.Request) -> web.Response:
    role = "leader" if request.app["leads"] else "follower"
    said = {"node": request.app["node"], "role": role, "pid": request.app["pid"]}
    said["started"] = request.app["started"]  # in a container of its own every pid is 1
    return web.json_response(said | {"clock": request.app["clock"]})


async def clock(request: web.Request) -> web.Response:
    setting = await request.json()
    if setting["rate"] <= 0:
        return web.json_response({"title": "rate must be positive"}, status=422)
    request.app["clock"].update(setting)
    return web.json_response({})


async def environment(request: web.Request) -> web.Response:
    return web.json_response(request.app["environ"])


async def value(request: web.Request) -> web.Response:
    return web.json_response(request.app["stored"].load())


async def put_value(request: web.Request) -> web.Response:
    request.app["stored"].store(await request.text())
    return web.json_response({})


async def end(request: web.Request) -> web.Response:
    request.app["end_process"](int(request.query["code"]))
    raise AssertionError("the process has ended")
