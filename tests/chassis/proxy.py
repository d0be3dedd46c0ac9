"""A TCP proxy that can hold bytes (as a partition does), hang up, or refuse."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class HoldingProxy:
    """Forwards to `port`; while `hold()` is in force it reads and forwards nothing."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.connections = 0
        self._pass = asyncio.Event()
        self._pass.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    def hold(self) -> None:
        self._pass.clear()

    def heal(self) -> None:
        self._pass.set()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._stopped = True
        self._server.close()
        self.hang_up()
        # Whom the server had accepted, but not yet handed over, must not stay open when the loop
        # of the test closes: its handler takes a few turns to begin.
        for _ in range(10):
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopped:
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with suppress(OSError, asyncio.CancelledError):
            upstream, up = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(up)
            await asyncio.gather(self._copy(reader, up), self._copy(upstream, writer))
        self._tasks.discard(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while True:
                await self._pass.wait()
                data = await reader.read(4096)
                await self._pass.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()
