"""A stand-in for a service: the face that the testbed needs, a counter on disk, and ways to fail.

ECHO_FAIL=config: ends with exit code 2 and one line, as a service does that finds its settings bad.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web


def main(environ: Mapping[str, str]) -> int:
    if environ.get("ECHO_FAIL") == "config":
        print("ECHO_LISTEN must be host:port, got 'nonsense'", file=sys.stderr)
        return 2
    host, _, port = environ["ECHO_LISTEN"].rpartition(":")
    data = Path(environ["ECHO_DATA_DIR"])
    print(f"{environ['ECHO_NODE']} starts")
    app = web.Application()
    app["clock"] = {"offset_ms": 0, "rate": 1.0}
    app["node"] = environ["ECHO_NODE"]
    app["started"] = time.monotonic_ns()
    app["leads"] = environ["ECHO_NODE"] == environ.get("ECHO_LEADER")
    app["data"] = data / "value"
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


async def ready(request: web.Request) -> web.Response:
    return web.json_response({"ready": True})


async def status(request: web.Request) -> web.Response:
    role = "leader" if request.app["leads"] else "follower"
    said = {"node": request.app["node"], "role": role, "pid": os.getpid()}
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
    file: Path = request.app["data"]
    return web.json_response(json.loads(file.read_text()) if file.exists() else None)


async def put_value(request: web.Request) -> web.Response:
    request.app["data"].write_text(await request.text())
    return web.json_response({})


async def end(request: web.Request) -> web.Response:
    os._exit(int(request.query["code"]))
