"""The runner's side of the link proxies' control port."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from labs.harness.links.fault import Link, LinkFault, LinkStats
from labs.harness.links.proxy import CONNECT_WITHIN_S
from labs.harness.links.server import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Link", "LinkControl", "LinkFault", "LinkStats", "Links", "LinksError"]


class LinksError(Exception):
    """The proxies refused a command, or did not answer within its deadline (then: indefinite)."""


class LinkControl(Protocol):
    """What sets the faults of links, be it at proxies (`Links`) or in a packet filter."""

    async def set(self, faults: Mapping[Link, LinkFault | None]) -> None:
        """Give each link its fault (None: heal); others stay as they are. Raises LinksError."""

    async def stats(self) -> dict[Link, LinkStats]:
        """The counters of all links. Raises LinksError."""
        ...

    async def close(self) -> None:
        """End the control; links stay as they are. Never raises LinksError."""


class Links:
    """A connection to the link proxies. Commands may overlap; each has a deadline.

    `async with await Links.connect(host, port) as links: …`; `close()` ends the connection and
    leaves the links as they are, `close(links=True)` closes the links too.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, within_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._within_s = within_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._lost: str | None = None
        self._answers = asyncio.create_task(self._read_answers(), name="links control")

    @classmethod
    async def connect(cls, host: str, port: int, *, within_s: float = 5.0) -> Links:
        """Connect; `within_s` is also the deadline of every command. Raises LinksError."""
        try:
            async with asyncio.timeout(within_s):
                streams = await asyncio.open_connection(host, port, limit=MAX_LINE_BYTES)
        except (OSError, TimeoutError) as error:
            raise LinksError(f"no control of the links at {host}:{port}: {error}") from error
        return cls(*streams, within_s)

    def control_address(self) -> tuple[str, int]:
        """(host, port) of the other side."""
        host, port, *_ = self._writer.get_extra_info("peername")
        return host, port

    async def open(
        self,
        targets: Mapping[Link, str],
        *,
        host: str = "127.0.0.1",
        ports: Mapping[Link, int] | None = None,
        seed: int = 0,
        connect_within_s: float = CONNECT_WITHIN_S,
    ) -> dict[Link, str]:
        """Open links to `targets` ("host:port"); returns where each one listens.

        All or none. `ports` fixes some of the ports; `seed` seeds the jitter; a target that takes
        longer than `connect_within_s` is given up, and the caller reset.
        """
        links = [
            {"src": link.src, "dst": link.dst, "target": target, "port": (ports or {}).get(link, 0)}
            for link, target in targets.items()
        ]
        answer = await self._ask(
            "open", links=links, host=host, seed=seed, connect_within_s=connect_within_s
        )
        return {Link(src, dst): listen for src, dst, listen in answer["listen"]}

    async def set(self, faults: Mapping[Link, LinkFault | None]) -> None:
        """Give each link its fault (None: heal), all in one step; others stay as they are."""
        if faults:
            links = [
                {"src": link.src, "dst": link.dst, "fault": fault} for link, fault in faults.items()
            ]
            await self._ask("set", links=links)

    async def stats(self) -> dict[Link, LinkStats]:
        """The counters of all links."""
        answer = await self._ask("stats")
        return {
            Link(src, dst): msgspec.convert(stats, LinkStats) for src, dst, stats in answer["stats"]
        }

    async def close(self, *, links: bool = False) -> None:
        """End this connection (and the links, if asked). Never raises LinksError."""
        if links and self._lost is None:
            with contextlib.suppress(LinksError):  # they are gone already
                await self._ask("close")
        self._answers.cancel()
        await asyncio.gather(self._answers, return_exceptions=True)
        self._writer.transport.abort()

    async def __aenter__(self) -> Links:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        if self._lost is not None:
            raise LinksError(self._lost)
        number = next(self._numbers)
        line = msgspec.json.encode({"id": number, "command": command, **arguments}) + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise LinksError(f"{command}: {len(line)} bytes in one command")
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(self._within_s):
                self._writer.write(line)
                answer = await future
        except TimeoutError as error:
            raise LinksError(f"{command}: no answer within {self._within_s} s") from error
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise LinksError(f"{command}: {answer['error']}")
        return answer

    async def _read_answers(self) -> None:
        lost = "the control connection has ended"
        try:
            while line := await self._reader.readline():
                answer = msgspec.json.decode(line)
                waiting = self._waiting.get(answer["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            lost = f"the control connection has broken: {error}"
        finally:
            self._lost = lost
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(LinksError(lost))
