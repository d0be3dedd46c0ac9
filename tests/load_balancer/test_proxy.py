"""What passes through the balancer, and in which form: over real sockets."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.load_balancer.rig import Message, answer, read_answer, read_body, read_head, rig, until


async def echo(
    request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    writer.write(answer(body=await read_body(reader, request.headers)))
    return True


async def test_a_request_passes_with_who_it_is() -> None:
    """RFC 9110, 7.6.3: a gateway adds Via to what it forwards; X-Forwarded-For is added to."""
    async with rig() as made:
        found = await made.ask(
            "GET", "/a%2Fb?c=d", "X-Own: 1", "X-Forwarded-For: 10.0.0.1", "Cookie: a=b"
        )
        (request,) = made.backends[0].requests

    assert (found.status, found.body) == (200, b"b1")
    assert found.headers["x-served-by"] == "b1"
    assert request.start == "GET /a%2Fb?c=d HTTP/1.1"
    assert request.headers["x-own"] == "1"
    assert request.headers["cookie"] == "a=b"
    assert request.headers["host"] == "test"
    assert request.headers["via"] == "1.1 lb"
    assert request.headers["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"
    assert "content-length" not in request.headers


async def test_the_trace_goes_on_with_a_span_of_its_own(tmp_path: Path) -> None:
    """W3C Trace Context: the trace id stays, the parent id becomes ours; the event has both."""
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with rig(telemetry=tmp_path / "events.jsonl") as made:
        given = await made.ask(
            "GET", "/", f"traceparent: 00-{trace}-{parent}-01", "X-Request-Id: order-17"
        )
        await made.ask("GET", "/", "traceparent: rubbish", "X-Request-Id: a,b")
        with_ids, without = made.backends[0].requests
        event, other = made.events()

    match = re.fullmatch(f"00-{trace}-([0-9a-f]{{16}})-01", with_ids.headers["traceparent"])
    assert match is not None
    assert match[1] != parent
    assert with_ids.headers["x-request-id"] == given.headers["x-request-id"] == "order-17"
    assert (event["trace_id"], event["span_id"]) == (trace, match[1])
    assert event["parent_span_id"] == parent
    assert event["request_id"] == "order-17"
    assert (event["backend"], event["status"], event["outcome"]) == ("b1", 200, "ok")
    assert event["answer_bytes"] == 2
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", without.headers["traceparent"])
    assert without.headers["x-request-id"] == other["span_id"]


async def test_head_samplings_decision_is_passed_on(tmp_path: Path) -> None:
    """W3C Trace Context, 3.2.2.5: what the caller does not record is not recorded here either."""
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with rig(telemetry=tmp_path / "events.jsonl") as made:
        for flags in ("00", "02", "01"):
            await made.ask("GET", f"/{flags}", f"traceparent: 00-{trace}-{parent}-{flags}")
        passed = [each.headers["traceparent"][-2:] for each in made.backends[0].requests]
        events = made.events()

    assert passed == ["00", "00", "01"]
    assert [event["path"] for event in events] == ["/01"]


async def test_hop_by_hop_fields_end_here() -> None:
    """RFC 9110, 7.6.1: remove what Connection names, and Connection itself, in both directions."""
    async with rig() as made:
        made.backends[0].reply = answer(
            200, b"ok", "Connection: X-Inner, keep-alive", "X-Inner: 1", "Keep-Alive: timeout=5",
            "Proxy-Authenticate: Basic", "X-Outer: 2",
        )  # fmt: skip
        found = await made.ask(
            "GET", "/", "Connection: X-Secret, TE", "X-Secret: 1", "TE: trailers",
            "Proxy-Authorization: Basic x", "Upgrade: h2c", "Keep-Alive: 5", "X-Kept: 2",
        )  # fmt: skip
        (request,) = made.backends[0].requests

    assert request.headers["x-kept"] == "2"
    for name in ("connection", "x-secret", "te", "proxy-authorization", "upgrade", "keep-alive"):
        assert name not in request.headers
    assert found.headers["x-outer"] == "2"
    for name in ("connection", "x-inner", "keep-alive", "proxy-authenticate"):
        assert name not in found.headers


async def test_the_absolute_form_is_brought_into_origin_form() -> None:
    """RFC 9112, 3.2.2: a proxy "MUST ignore the received Host header field … and instead replace it
    with the host information of the request-target"."""
    async with rig() as made:
        await made.ask("GET", "http://other.example:81/x?y")
        await made.ask("GET", "http://other.example?y")
        await made.ask("OPTIONS", "*")
        first, second, third = made.backends[0].requests

    assert (first.target, first.headers["host"]) == ("/x?y", "other.example:81")
    assert second.target == "/?y"
    assert third.target == "*"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_comes_through_whole(chunked: bool) -> None:
    async with rig() as made:
        made.backends[0].reply = echo
        reader, writer = await made.connect()
        body = bytes(range(256)) * 4000
        if chunked:
            writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: Chunked\r\n\r\n")
            for at in range(0, len(body), 10_000):
                piece = body[at : at + 10_000]
                writer.write(b"%X;ext=1\r\n%b\r\n" % (len(piece), piece))
            writer.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        else:
            writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
        found = await read_answer(reader)
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")

        assert found.body == body
        assert (await read_answer(reader)).body == b""  # the connection is of use still


@pytest.mark.parametrize("form", ["chunked", "until close"])
async def test_answers_without_a_length_come_in_chunks(form: str) -> None:
    """To HTTP/1.0, which knows no chunks, they come with the end of the connection."""

    async def reply(_: Message, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if form == "chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await writer.drain()
            writer.write(b"4;x=y\r\ndefg\r\n0\r\nTrailer: 1\r\n\r\n")
            return True
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await writer.drain()
        writer.write(b"defg")
        return False

    async with rig() as made:
        made.backends[0].reply = reply
        found = await made.ask()
        (old,) = await made.raw(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert found.headers["transfer-encoding"] == "chunked"
    assert found.body == old.body == b"abcdefg"
    assert old.headers["connection"] == "close"


async def test_http_1_0_may_keep_its_connection() -> None:
    async with rig() as made:
        reader, writer = await made.connect()
        for _ in range(2):
            writer.write(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            found = await read_answer(reader)
            assert found.headers["connection"] == "keep-alive"
        assert made.backends[0].requests[0].headers["host"] == f"127.0.0.1:{made.backends[0].port}"
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await read_answer(reader)
        assert await reader.read() == b""


async def test_answers_that_have_no_body() -> None:
    """RFC 9112, 6.3: to HEAD, 204 and 304, whatever their fields say."""
    async with rig() as made:
        reader, writer = await made.connect()
        for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 200)):
            made.backends[0].reply = f"HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n".encode()
            writer.write(f"{method} / HTTP/1.1\r\nHost: t\r\n\r\n".encode())
            found = await read_answer(reader, method=method)
            assert found.status == status
            assert ("content-length" in found.headers) == (status != 204)
        made.backends[0].reply = answer(body=b"body")
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")

        assert (await read_answer(reader)).body == b"body"


async def test_pipelined_requests_are_answered_in_order() -> None:
    """RFC 9112, 9.3.2: "MUST send the corresponding responses in the same order"."""

    async def reply(
        request: Message, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        await asyncio.sleep(0.05 if request.target == "/0" else 0)
        writer.write(answer(body=request.target.encode()))
        return True

    async with rig(2) as made:
        for backend in made.backends:
            backend.reply = reply
        wanted = [f"/{number}".encode() for number in range(20)]
        found = await made.raw(b"".join(b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n" % w for w in wanted))

    assert [each.body for each in found] == wanted


async def test_too_many_pipelined_requests_are_too_many() -> None:
    async with rig() as made:
        found = await made.raw(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n" * 40)

    assert [each.status for each in found] == [200] * 32 + [429]
    assert found[-1].headers["connection"] == "close"


async def test_expect_100_continue_is_the_backends_to_answer() -> None:
    """RFC 9110, 10.1.1: a proxy forwards the expectation; 100, or the final answer, comes back."""

    async def reply(
        request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        assert request.headers["expect"] == "100-continue"
        if request.target == "/no":
            writer.write(answer(413, b"no"))
            return False
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await echo(request, reader, writer)

    async with rig() as made:
        made.backends[0].reply = reply
        reader, writer = await made.connect()
        head = b"PUT %b HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head % b"/yes")
        assert (await read_head(reader)).status == 100
        writer.write(b"hello")
        assert (await read_answer(reader)).body == b"hello"
        writer.write(head % b"/no")
        assert (await read_answer(reader)).status == 413
        assert await reader.read() == b""  # the body was not asked for: nothing can follow
        (refused,) = await made.raw(b"GET / HTTP/1.1\r\nHost: t\r\nExpect: tea\r\n\r\n")

    assert refused.status == 417


async def test_the_deadline_is_passed_on_reduced_and_kept() -> None:
    """504 when it is over: nobody can know whether the backend did it (indefinite)."""
    hanging = asyncio.Event()

    async def reply(_: Message, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> bool:
        await reader.read()
        hanging.set()
        return False

    async with rig() as made:
        made.backends[0].reply = reply
        found = await made.ask("GET", "/", "X-Deadline-Ms: 400")
        await asyncio.wait_for(hanging.wait(), 5)  # the backend's connection is ended as well
        (request,) = made.backends[0].requests

        assert found.status == 504
        assert found.problem["definite"] is False
        assert 1 <= int(request.headers["x-deadline-ms"]) <= 400
        assert made.backend("b1").failures == 0  # 400 ms say nothing of a backend
        for wrong in ("0", "-1", "60001", "x", "1_0"):
            assert (await made.ask("GET", "/", f"X-Deadline-Ms: {wrong}")).status == 400


async def test_its_own_paths_are_answered_by_itself() -> None:
    async with rig(2, admin="on") as made:
        ready = await made.ask("GET", "/health/ready")
        status = await made.ask("GET", "/status")
        metrics = await made.ask("GET", "/metrics")
        assert not any(backend.requests for backend in made.backends)
        await made.ask("GET", "/health/other")
        assert sum(len(backend.requests) for backend in made.backends) == 1

    assert ready.body == b'{"ready":true}'
    assert b'"policy":"round_robin"' in status.body
    assert b'backend_available{backend="b2"} 1.0' in metrics.body


async def test_a_connection_is_used_again_only_while_it_is_clean() -> None:
    """Bytes after an answer would be taken for the answer to the next client's request."""
    async with rig() as made:
        made.backends[0].reply = answer(body=b"one") + answer(body=b"poison")
        assert (await made.ask()).body == b"one"
        made.backends[0].reply = answer(body=b"two")
        assert (await made.ask()).body == b"two"
        assert (await made.ask()).body == b"two"
        assert made.backend("b1").connections == 1
        made.backends[0].reply = answer(200, b"three", "Connection: close")
        assert (await made.ask()).body == b"three"
        await until(lambda: made.backend("b1").connections == 0)


@pytest.mark.parametrize(
    "broken",
    [
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    ],
    ids=lambda data: data[:40].decode().split("\r")[0] + f"+{len(data)}",
)
async def test_a_backend_that_speaks_no_http_is_a_bad_gateway(broken: bytes) -> None:
    async with rig(retry_attempts=1) as made:
        made.backends[0].reply = broken
        found = await made.ask()

        assert found.status == 502
        assert found.problem["backend"] == "b1"
        assert made.backend("b1").failures == 1


async def test_an_answer_that_breaks_off_is_not_made_to_look_whole() -> None:
    """The client sees the connection end before the length, or the last chunk, is reached."""

    async def reply(_: Message, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        return False

    async with rig() as made:
        made.backends[0].reply = reply
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await made.ask()
        assert len(made.backends[0].requests) == 1  # no second beginning either
