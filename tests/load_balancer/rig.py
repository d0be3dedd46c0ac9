"""A balancer as a part of the test's own event loop, and backends that do what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from services.chassis.machine import Machine
from services.load_balancer import make
from services.load_balancer.balancer import LoadBalancer


async def until(condition: Callable[[], Any], within_s: float = 15.0, what: str = "") -> Any:
    """Wait for `condition()` to be true and return it; AssertionError after `within_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not (value := condition()):
        assert loop.time() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.005)
    return value


@dataclass
class Message:
    """A request or an answer as it came over the wire. `start`: its first line."""

    start: str
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    @property
    def method(self) -> str:
        return self.start.split()[0]

    @property
    def target(self) -> str:
        return self.start.split()[1]

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self
        document: dict[str, Any] = json.loads(self.body)
        return document


async def read_head(reader: asyncio.StreamReader) -> Message:
    """Raises IncompleteReadError at the end of the connection."""
    start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")[:-4].split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Message(start, headers)


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """By its framing; without any, until the connection ends if it is an answer's."""
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body
    return await reader.readexactly(int(headers.get("content-length", 0)))


async def read_answer(reader: asyncio.StreamReader, *, method: str = "GET") -> Message:
    """A whole answer."""
    answer = await read_head(reader)
    if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
        return answer
    if "content-length" in answer.headers or "transfer-encoding" in answer.headers:
        answer.body = await read_body(reader, answer.headers)
    else:
        answer.body = await reader.read()
    return answer


def answer(status: int = 200, body: bytes = b"", *lines: str) -> bytes:
    """An answer with a Content-Length."""
    more = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


Handler = Callable[[Message, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


class FakeBackend:
    """Answers by `reply` (bytes, or a coroutine that does as it likes and says whether to go on).

    `requests`: those that came whole, health checks left out.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.reply: bytes | Handler = answer(body=name.encode())
        self.healthy = True
        self.requests: list[Message] = []
        self.connections = 0
        self.lost = 0  # connections that the other side ended
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Gone from one moment to the next; `start` brings it back at the same port."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        checked = False
        try:
            while True:
                request = await read_head(reader)
                if request.target == "/health/ready":
                    checked = True
                    writer.write(answer(200 if self.healthy else 503))
                    continue
                self.connections += 0 if self.requests and checked else 1
                if callable(self.reply):
                    self.requests.append(request)
                    if not await self.reply(request, reader, writer):
                        break
                else:
                    request.body = await read_body(reader, request.headers)
                    self.requests.append(request)
                    writer.write(self.reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost += not checked
        finally:
            self._writers.discard(writer)
            writer.close()


class Rig:
    """A balancer in front of `backends`, and raw connections to it."""

    def __init__(self, balancer: LoadBalancer, backends: list[FakeBackend], log: StringIO) -> None:
        self.balancer = balancer
        self.backends = backends
        self.log = log
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.balancer.port}"

    def backend(self, name: str) -> Any:
        """What the balancer knows of it."""
        return self.balancer.proxy.backends.all[name]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.balancer.port)
        self._writers.append(writer)
        return reader, writer

    async def ask(
        self, method: str = "GET", target: str = "/", *lines: str, body: bytes | None = None
    ) -> Message:
        """One request on a connection of its own, one answer."""
        reader, writer = await self.connect()
        if body is not None:
            lines = (*lines, f"Content-Length: {len(body)}")
        more = "".join(f"{line}\r\n" for line in lines)
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: test\r\n{more}\r\n".encode())
        writer.write(body or b"")
        async with asyncio.timeout(15):
            found = await read_answer(reader, method=method)
        writer.close()
        return found

    async def raw(self, data: bytes) -> list[Message]:
        """Send `data`, read answers until the balancer closes the connection, or 0.3 s of silence
        after the last one."""
        reader, writer = await self.connect()
        writer.write(data)
        answers: list[Message] = []
        try:
            while True:
                async with asyncio.timeout(2 if not answers else 0.3):
                    answers.append(await read_answer(reader))
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            writer.close()
        return answers

    def events(self) -> list[dict[str, Any]]:
        """The wide events of requests that were answered so far."""
        self.balancer.telemetry.flush()
        path = self.balancer.config.telemetry
        assert path is not None
        events = [json.loads(line) for line in path.read_text().splitlines()]
        return [each for each in events if each["event"] == "request"]

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await self.balancer.stop()
        for backend in self.backends:
            await backend.kill()


@asynccontextmanager
async def rig(count: int = 1, **settings: Any) -> AsyncIterator[Rig]:
    """`count` backends b1, b2, … behind a balancer with `settings` (keys without prefix).

    A bug that it logs, or an exception that its callbacks leave to the loop, fails the test.
    """
    loop = asyncio.get_running_loop()
    leaks: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: leaks.append(context))
    backends = [FakeBackend(f"b{number}") for number in range(1, count + 1)]
    for each in backends:
        await each.start()
    environ = {
        "LOAD_BALANCER_NODE": "lb",
        "LOAD_BALANCER_LISTEN": "127.0.0.1:0",
        "LOAD_BALANCER_BACKENDS": ",".join(f"{b.name}=127.0.0.1:{b.port}" for b in backends),
        "LOAD_BALANCER_HEALTH_INTERVAL_MS": "0",
        "LOAD_BALANCER_GRACE_MS": "200",
        **{f"LOAD_BALANCER_{key.upper()}": str(value) for key, value in settings.items()},
    }
    log = StringIO()
    made = Rig(make(environ, Machine(output=log)), backends, log)
    try:
        await made.balancer.start()
        yield made
    finally:
        await made.close()
    proxy = made.balancer.proxy
    await until(lambda: not proxy.clients, 15, "all clients are gone")
    assert not leaks, leaks
    assert '"level":"error"' not in log.getvalue(), log.getvalue()
    assert proxy.admission.in_flight == 0
    assert all(each.in_flight == 0 for each in proxy.backends.all.values())
    known = proxy.backends.all.values()
    await until(
        lambda: not any(each.connections for each in known), 15, "all connections are closed"
    )
