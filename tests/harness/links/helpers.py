"""A tiny target, a tiny caller, and link proxies in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from labs.harness.links import Link, Links
from labs.harness.links.server import MAX_LINE_BYTES, LinkServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

C1_N1 = Link("c1", "n1")


class Target:
    """Answers each line with `re:` and the line, after it has put it into `seen`."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=2**24)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                self.seen.append(line.strip())
                writer.write(b"re:" + line)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.ended += 1
            self._writers.discard(writer)
            writer.close()

    def abort(self) -> None:
        """Reset all connections."""
        for writer in list(self._writers):
            half = writer.get_extra_info("socket")
            half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.abort()


class Caller:
    """One connection of a caller."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def dial(cls, address: str) -> Caller:
        host, port = address.rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port), limit=2**24))

    def send(self, line: bytes) -> None:
        self.writer.write(line + b"\n")

    async def line(self, within_s: float = 2.0) -> bytes:
        """The next answer; TimeoutError when there is none."""
        async with asyncio.timeout(within_s):
            return (await self.reader.readline()).strip()

    async def ask(self, line: bytes, within_s: float = 2.0) -> bytes:
        self.send(line)
        return await self.line(within_s)

    def abort(self) -> None:
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def proxies() -> AsyncIterator[tuple[Links, LinkServer]]:
    """A link server in this loop and its control."""
    server = LinkServer()
    control = await asyncio.start_server(server.serve_control, "127.0.0.1", 0, limit=MAX_LINE_BYTES)
    port = control.sockets[0].getsockname()[1]
    links = await Links.connect("127.0.0.1", port)
    try:
        yield links, server
    finally:
        await links.close()
        control.close()
        server.close()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def one_link() -> AsyncIterator[tuple[Links, Target, str]]:
    """One link c1→n1 to a target; yields (control, target, where to dial)."""
    target = Target()
    await target.start()
    async with proxies() as (links, _):
        listen = await links.open({C1_N1: target.address})
        try:
            yield links, target, listen[C1_N1]
        finally:
            target.close()


async def condition(holds: object, within_s: float = 2.0) -> None:
    """Wait until `holds()`; TimeoutError after `within_s`."""
    assert callable(holds)
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - the condition is another party's, it sets no event
            await asyncio.sleep(0.005)
