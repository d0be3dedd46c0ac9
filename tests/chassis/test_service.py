"""A service put together, and calls from one service to another, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from services.chassis.app import Context, deadline_of, json_response, read_json_body
from services.chassis.calls import Calls
from services.chassis.config import Address, ServiceConfig
from services.chassis.errors import DeadlineExceeded, NotFound, Unavailable
from services.chassis.service import Service

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ROOT = Path(__file__).resolve().parents[2]


def config(name: str, directory: Path) -> ServiceConfig:
    return ServiceConfig(
        node=name, listen=Address("127.0.0.1", 0), telemetry=directory / f"{name}.jsonl"
    )


class Back(Service):
    """Answers, late or never, and keeps what it was sent."""

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.received: list[tuple[dict[str, str], Any]] = []
        self.asked = asyncio.Event()
        self.app.add("POST", "/answer", self.answer)
        self.app.add("POST", "/missing", self.missing)
        self.app.add("POST", "/never", self.never)

    async def answer(self, request: web.BaseRequest, context: Context) -> web.Response:
        body = await read_json_body(request, Any, deadline=deadline_of(request, context))
        self.received.append((dict(request.headers), body))
        return json_response({"got": body})

    async def missing(self, _: web.BaseRequest, __: Context) -> web.Response:
        raise NotFound("no such thing")

    async def never(self, _: web.BaseRequest, __: Context) -> web.Response:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


class Front(Service):
    """Passes everything on to the back."""

    def __init__(self, config: ServiceConfig, back: Callable[[], int]) -> None:
        super().__init__(config)
        self.calls = Calls(self.telemetry, self.clock)
        self._back = back
        self.app.add("POST", "/", self.forward)

    async def forward(self, request: web.BaseRequest, context: Context) -> web.Response:
        answer = await self.calls.request(
            "back",
            "POST",
            f"http://127.0.0.1:{self._back()}{context.path}",
            context=context,
            deadline=deadline_of(request, context),
            body={"asked": context.path},
        )
        return json_response(answer.document)

    async def end(self) -> None:
        await self.calls.close()


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[tuple[Front, Back]]:
    back = Back(config("back", directory))
    front = Front(config("front", directory), lambda: back.app.port)
    await back.start()
    await front.start()
    try:
        yield front, back
    finally:
        await front.stop()
        await back.stop()


async def post(front: Front, path: str, **headers: str) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{front.app.port}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, headers=headers) as response,
    ):
        return response.status, await response.json(content_type=None)


def spans(directory: Path, name: str) -> list[dict[str, Any]]:
    lines = (directory / f"{name}.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == "span"]


async def test_a_trace_goes_on_through_a_call(tmp_path: Path) -> None:
    """request at front → call → request at back: each is the parent of the next, one request id."""
    async with pair(tmp_path) as (front, back):
        traceparent = f"00-{TRACE}-{SPAN}-01"
        status, document = await post(
            front, "/answer", **{"traceparent": traceparent, "X-Request-Id": "r1"}
        )
        assert (status, document) == (200, {"got": {"asked": "/answer"}})
        assert 1 <= int(back.received[0][0]["X-Deadline-Ms"]) <= 2_000

    call, request = spans(tmp_path, "front")
    (answered,) = spans(tmp_path, "back")
    assert (request["event"], call["event"], answered["event"]) == ("request", "call", "request")
    assert request["parent_span_id"] == SPAN
    assert call["parent_span_id"] == request["span_id"]
    assert answered["parent_span_id"] == call["span_id"]
    assert {each["trace_id"] for each in (request, call, answered)} == {TRACE}
    assert {each["request_id"] for each in (request, call, answered)} == {"r1"}
    assert call["duration_us"] >= answered["duration_us"]


async def test_what_a_call_raises_is_what_the_callee_said(tmp_path: Path) -> None:
    """Its problem document becomes the same error here, and goes on to the caller."""
    async with pair(tmp_path) as (front, back):
        status, problem = await post(front, "/missing")
        assert (status, problem["type"], problem["definite"]) == (
            404,
            "urn:faultline:key-not-found",
            True,
        )
        status, problem = await post(front, "/never", **{"X-Deadline-Ms": "100"})
        assert (status, problem["definite"]) == (504, False)
        await back.stop()
        status, problem = await post(front, "/answer")
        assert (status, problem["definite"]) == (503, True)

    outcomes = [each["outcome"] for each in spans(tmp_path, "front") if each["event"] == "call"]
    assert outcomes == ["key-not-found", DeadlineExceeded.slug, Unavailable.slug]


async def test_a_call_is_not_sent_after_its_deadline(tmp_path: Path) -> None:
    """What nobody waits for any more is not asked."""
    async with pair(tmp_path) as (front, back):
        loop = asyncio.get_running_loop()

        async def ask(request: web.BaseRequest, context: Context) -> web.Response:
            await front.calls.request(
                "back",
                "POST",
                f"http://127.0.0.1:{back.app.port}/answer",
                context=context,
                deadline=loop.time() - 0.001,
                body=1,
            )
            raise AssertionError

        front.app.add("POST", "/late", ask)
        status, problem = await post(front, "/late")
        assert (status, problem["detail"]) == (
            503,
            "the deadline passed before the request was sent",
        )
        assert not back.received


async def test_health_status_and_metrics_come_with_it(tmp_path: Path) -> None:
    """Every service is asked the same way how it is."""
    async with pair(tmp_path) as (front, _), aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{front.app.port}"
        for path in ("/health/live", "/health/ready"):
            async with session.get(base + path) as response:
                assert response.status == 200
        async with session.get(base + "/status") as response:
            status = await response.json()
            assert (status["node"], status["pid"]) == ("front", os.getpid())
        async with session.get(base + "/metrics") as response:
            assert "requests_total" in await response.text()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def accepts_nobody(back: Back) -> None:
    with suppress(ConnectionError):
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", back.app.port)
            await hang_up(writer)


async def a_caller_at(back: Back) -> asyncio.StreamWriter:
    """Of `/never`: its connection, once the request is being answered."""
    _, writer = await asyncio.open_connection("127.0.0.1", back.app.port)
    writer.write(b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    await back.asked.wait()
    return writer


@pytest.mark.parametrize("leaves", ["before the stop", "during it"])
async def test_a_stop_waits_for_no_caller_who_has_hung_up(
    leaves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overloaded service has seconds of work before it that nobody wants any more."""
    monkeypatch.setattr("services.chassis.service.GRACE_S", 1e6)
    back = Back(config("back", tmp_path))
    await back.start()
    writer = await a_caller_at(back)
    if leaves == "before the stop":
        await hang_up(writer)
    stopping = asyncio.create_task(back.stop())
    if leaves == "during it":
        await accepts_nobody(back)
        assert not stopping.done()
        await hang_up(writer)
    async with asyncio.timeout(20):
        await stopping


PROGRAM = """
import os, sys
from services.chassis.config import ServiceConfig, load
from services.chassis.service import Service, run_process
make = lambda environ, machine: Service(load(ServiceConfig, environ, "X_", {}), machine)
sys.exit(run_process(make, os.environ))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process(number: signal.Signals, tmp_path: Path) -> None:
    """Started, told to stop, stopped: exit code 0."""
    environ = {**os.environ, "X_NODE": "x1", "X_LISTEN": "127.0.0.1:0", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert json.loads(process.stderr.readline())["event"] == "started"
        process.send_signal(number)
        assert json.loads(process.stderr.readline())["event"] == "stopped"
        assert process.wait(60) == 0


def test_bad_configuration_is_one_line(tmp_path: Path) -> None:
    """Exit code 2, no traceback."""
    environ = {**os.environ, "X_NODE": "x1", "X_LISTEN": "nowhere", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("X_LISTEN='nowhere': allowed is host:port")
    assert ended.stderr.count("\n") == 1
