"""Fuzzing of the HTTP face: whatever a client sends, no 5xx, no bug in the log, and no hanging.

In front of a sound backend a 5xx could only be our own.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.load_balancer.rig import Rig, rig

PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A balancer with a sound backend, in a thread of its own; it is asked at the end for bugs."""
    ready: Future[int] = Future()
    ended = threading.Event()
    failed: list[BaseException] = []

    async def serve() -> None:
        impatient = {f"{each}_timeout_ms": 100 for each in ("header", "body", "send")}
        async with rig(1, keepalive_ms=100, body_bytes_max=10_000, admin="on", **impatient) as made:
            ready.set_result(made.balancer.port)
            await asyncio.get_running_loop().run_in_executor(None, ended.wait)
            await still_sound(made)

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as exc:
            failed.append(exc)
            if not ready.done():
                ready.set_exception(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ready.result(30)
    finally:
        ended.set()
        thread.join(30)
    assert not failed, failed


async def still_sound(made: Rig) -> None:
    found = await made.ask()
    assert (found.status, found.body) == (200, b"b1")
    assert made.backend("b1").failures == 0


def statuses(port: int, data: bytes) -> list[int]:
    """What is answered to `data`, until the connection ends: by itself, within its timeouts."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        received = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                received += piece
        except ConnectionError:
            pass  # cut off while it was still sending: fair
    return [int(each) for each in re.findall(rb"HTTP/1\.1 ([0-9]{3}) [A-Za-z -]*\r\n", received)]


TOKENS = st.sampled_from(
    [b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS", b"CONNECT", b"TRACE",
     b" ", b"  ", b"/", b"/a?b#c", b"http://a/b", b"*", b"%", b"/status", b"/health/ready",
     b"/admin/backends/b9", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"HTTP/1.1 200 OK",
     b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x00", b"\xff", b"\t", b":", b": ", b",",
     b"Host: a", b"Host:", b"Content-Length: 5", b"Content-Length: 99999", b"Content-Length: -1",
     b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Connection: close",
     b"Connection: upgrade", b"Upgrade: websocket", b"Expect: 100-continue", b"X-Deadline-Ms: 1",
     b"X-Deadline-Ms: x", b"traceparent: 00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01",
     b"X-Request-Id: \xe4", b"Idempotency-Key: k", b"TE: trailers", b"X: " + b"y" * 5000,
     b"5\r\nhello\r\n", b"0\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"hello", b"{}"]
)  # fmt: skip
NOISE = st.lists(st.one_of(TOKENS, st.binary(max_size=20)), max_size=30).map(b"".join)
FIELDS = st.lists(TOKENS.filter(lambda each: b": " in each), max_size=6)


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """Two requests, one after the other, with something wrong in them perhaps."""
    data = b""
    for _ in range(2):
        method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS"]))
        target = draw(st.sampled_from([b"/", b"/x?y=z", b"http://a/b", b"*", b"/status", b"//"]))
        fields = [b"Host: a", *draw(FIELDS)]
        body = draw(st.sampled_from([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n"]))
        data += (
            method + b" " + target + b" HTTP/1.1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n" + body
        )
    at = draw(st.integers(0, len(data)))
    cut = draw(st.integers(0, 3))
    return data[:at] + draw(st.binary(max_size=3)) + data[at + cut :]


def check(port: int, data: bytes) -> None:
    found = statuses(port, data)
    # 504: what came with X-Deadline-Ms: 1 and was not answered in that time.
    late = {504} if b"X-Deadline-Ms: 1" in data else set()
    assert not [status for status in found if status >= 500 and status not in late], (data, found)


SETTINGS = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@given(data=NOISE)
def test_noise_is_the_clients_fault(port: int, data: bytes) -> None:
    check(port, data)


@SETTINGS
@given(data=nearly_requests())
def test_nearly_a_request_is_answered_or_refused(port: int, data: bytes) -> None:
    check(port, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NO_ADDRESS = st.text().filter(lambda text: not re.search(r":[0-9]+$", text)) | JSON.filter(
    lambda value: not isinstance(value, str)
)


@SETTINGS
@given(
    method=st.sampled_from(["PUT", "PATCH", "DELETE", "POST", "GET"]),
    name=st.sampled_from(["b9", "", "B9", "b9/x", "%00", "b" * 60]),
    document=st.fixed_dictionaries({"address": NO_ADDRESS}, optional={"weight": JSON}) | JSON,
)
def test_the_admin_face_refuses_what_is_no_backend(
    port: int, method: str, name: str, document: object
) -> None:
    """4xx, whatever the document; what it describes badly is not added."""
    body = json.dumps(document).encode()
    head = f"{method} /admin/backends/{name} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    (found,) = statuses(port, head.encode() + body)

    assert 400 <= found < 500
