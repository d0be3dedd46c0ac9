"""`/health/live`, `/health/ready`, `/status`, `/metrics` and `/admin/clock` of a node."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from services.chassis.app import App, Context, deadline_of, json_response, read_json_body
from services.chassis.clock import Clock
from services.chassis.errors import BadRequest, Unavailable
from services.chassis.metrics import CONTENT_TYPE, Metrics


class ClockSetting(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/clock`; what is absent stays as it is."""

    offset_ms: float | None = None
    rate: float | None = None


class Observed:
    """What the handlers below look at; `node.Node` is one."""

    clock: Clock
    metrics: Metrics
    pid: int

    def status(self) -> dict[str, Any]:
        """The document of `/status` without clock and pid."""
        raise NotImplementedError

    def not_ready(self) -> str | None:
        """Why the node is not ready; None when it is."""
        raise NotImplementedError

    def clock_changed(self) -> None:
        """The clock was set."""
        raise NotImplementedError


def add_routes(app: App, node: Observed, *, fault_injection: bool) -> None:
    """Serve these faces of `node`."""

    async def live(_: web.BaseRequest, __: Context) -> web.Response:
        return json_response({"live": True})  # the event loop runs, or nobody would answer

    async def ready(_: web.BaseRequest, __: Context) -> web.Response:
        reason = node.not_ready()
        if reason is not None:
            raise Unavailable(reason)
        return json_response({"ready": True})

    async def status(_: web.BaseRequest, __: Context) -> web.Response:
        return json_response({**node.status(), "clock": node.clock.status(), "pid": node.pid})

    async def metrics(_: web.BaseRequest, __: Context) -> web.Response:
        return web.Response(body=node.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def set_clock(request: web.BaseRequest, context: Context) -> web.Response:
        deadline = deadline_of(request, context)
        setting: ClockSetting = await read_json_body(request, ClockSetting, deadline=deadline)
        try:
            node.clock.set(offset_ms=setting.offset_ms, rate=setting.rate)
        except ValueError as exc:
            raise BadRequest(str(exc)) from None
        node.clock_changed()
        return json_response({"clock": node.clock.status()})

    app.add("GET", "/health/live", live)
    app.add("GET", "/health/ready", ready)
    app.add("GET", "/status", status)
    app.add("GET", "/metrics", metrics)
    if fault_injection:
        app.add("POST", "/admin/clock", set_clock)
