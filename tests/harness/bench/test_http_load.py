"""The load generator: it must see the end of every answer, count what failed, and end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from labs.harness.workloads.http_load import Load, response_end, run_load

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
NO_BODY = b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
LAST_HEADER = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 2\r\n\r\n{}"

Answer = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """An HTTP server that answers the n-th request of a connection by `answer(writer, n)`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await answer(writer, number)
                await writer.drain()
                number += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        host, port = listening.sockets[0].getsockname()
        yield f"{host}:{port}"


def load(address: str, clients: int = 2) -> Load:
    return Load(address, clients, 0.02, 0.1, [f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n"])


@pytest.mark.parametrize("response", [PLAIN, NO_BODY, CHUNKED, LAST_HEADER])
def test_the_end_of_a_response_is_seen_wherever_it_is_cut(response: bytes) -> None:
    """None for every beginning of it, its length for the whole (a head without a length is one)."""
    for cut in range(len(response)):
        assert response_end(response[:cut]) is None
    assert response_end(response) == len(response)


async def test_good_answers_are_counted_and_timed() -> None:
    """A closed loop: answers in pieces, one at a time, until the time is over."""

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(PLAIN[:20])
        await writer.drain()
        writer.write(PLAIN[20:])

    async with server(answer) as address:
        result = await run_load(load(address))

    assert result.failures == {}
    assert 0 < result.measured < result.answers  # the warm-up's are not measured
    assert 0 < result.p50_ms <= result.p99_ms <= result.max_ms
    assert result.throughput > 0


async def test_refusals_are_failures_with_an_example() -> None:
    """A benchmark of errors is fast, and worthless: every other answer here is a 503."""

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        refusal = PLAIN.replace(b"200 OK", b"503 Sorry")
        writer.write(refusal if number % 2 else PLAIN)

    async with server(answer) as address:
        result = await run_load(load(address))

    assert list(result.failures) == ["503"]
    assert "503 Sorry" in result.example
    assert result.measured + result.failures["503"] <= result.answers


async def test_lost_connections_are_failures() -> None:
    """The server hangs up: the client does not, and the run ends before its time."""

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number:
            raise ConnectionResetError
        writer.write(PLAIN)

    async with server(answer) as address:
        result = await run_load(load(address, clients=3))

    assert result.failures == {"connection lost": 3}


async def test_nobody_there_is_an_error() -> None:
    """The caller hears it, instead of a throughput of nothing."""
    async with server(lambda *_: asyncio.sleep(0)) as address:
        pass
    with pytest.raises(OSError, match="Connect call failed"):
        await run_load(load(address))


async def test_an_open_loop_keeps_its_rate_and_counts_the_wait_for_a_connection() -> None:
    """Requests come whether or not earlier ones are answered: with one connection and 20 ms an
    answer, of 100 a second each waits behind those before it, and its latency says so."""

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(0.02)
        writer.write(PLAIN)

    async with server(answer) as address:
        request = f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n"
        crowded = await run_load(Load(address, 1, 0.05, 1.0, [request], rate_per_s=100))
        calm = await run_load(Load(address, 20, 0.05, 1.0, [request], rate_per_s=100))

    assert crowded.failures == calm.failures == {}
    assert crowded.p99_ms > 200, "each 10 ms one comes, and each 20 ms one goes"
    assert 20 <= calm.p50_ms < crowded.p50_ms
    assert 50 < calm.measured < 160, "the server's pace is not the load's"
