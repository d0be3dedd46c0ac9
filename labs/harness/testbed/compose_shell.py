"""A shell that stays open in a container: a command takes its own time, not that of a new `exec`.

Starting a process by `docker exec` takes 80 ms, and a partition of five nodes needs seven of them,
several times over. Through a shell that is there already the same command takes ten.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from labs.harness.links.control import LinksError

ANSWER_WITHIN_S = 10.0


class Shell:
    """`sh` in a container, as root. Commands are run one after the other."""

    def __init__(self, name: str, stream: Any) -> None:
        self.name = name
        self._stream = stream
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, name: str, container: Any) -> Shell:
        """Start it in an aiodocker container."""
        execution = await container.exec(["sh"], stdin=True, user="0:0")
        stream = execution.start(detach=False)
        await stream.__aenter__()
        return cls(name, stream)

    async def run(self, command: str, text: str) -> str:
        """What `command` prints when it is fed `text`. Raises LinksError when it fails."""
        mark = secrets.token_hex(8)
        # Quoted, so that the shell takes the text as it is.
        script = f"{command} 2>&1 <<'{mark}'\n{text}\n{mark}\necho {mark} $?\n"
        async with self._lock:
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    await self._stream.write_in(script.encode())
                    printed, code = await self._until(mark.encode())
            except TimeoutError:
                raise LinksError(f"{self.name}: {command}: no answer in time") from None
            except (OSError, RuntimeError) as error:
                raise LinksError(f"{self.name}: {command}: {error!r}") from error
        if code:
            raise LinksError(f"{self.name}: {command} failed with {code}: {printed[-300:]}")
        return printed

    async def close(self) -> None:
        """End it; the engine ends the process with the container at the latest."""
        await self._stream.close()

    async def _until(self, mark: bytes) -> tuple[str, int]:
        printed = b""
        while True:
            head, found, tail = printed.partition(mark)
            if found and b"\n" in tail:
                return head.decode(errors="replace"), int(tail.split()[0])
            message = await self._stream.read_out()
            if message is None:
                raise LinksError(f"{self.name}: its shell has ended")
            printed += message.data
