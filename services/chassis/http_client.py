"""One HTTP request, one answer, and errors that say what is known of it: for clients and services.

Light to import: the harness, which only calls, has no use for a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
from yarl import URL

from services.chassis.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Unavailable,
    from_problem,
)

DEADLINE_HEADER = "X-Deadline-Ms"
CONNECTIONS_MAX = 1_024


class Answer(NamedTuple):
    """What came back with a status below 300: the headers, and the body as JSON (None: no JSON)."""

    status: int
    headers: Mapping[str, str]
    document: Any


def new_session() -> aiohttp.ClientSession:
    """A session that adds no header of its own and repeats no request by itself."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ttl_dns_cache=3600),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
    )
    # aiohttp sends GET, PUT and DELETE again when a kept-alive connection breaks under them. The
    # first attempt may have been carried out: a hidden retry, where the error should say that
    # nobody knows. (A test breaks a connection and counts requests.)
    session._retry_connection = False
    return session


class HttpClient:
    """What a client of a service is made of: connections, opened at need and closed once.

    To be used as an async context manager, or closed with `close`.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def exchange(
        self,
        peer: str,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str],
        deadline: float,
    ) -> Answer:
        """One request over the client's own connections. Raises as `exchange`."""
        if self._session is None:
            self._session = new_session()
        return await exchange(
            self._session, peer, method, url, body=body, headers=headers, deadline=deadline
        )


async def exchange(
    session: aiohttp.ClientSession,
    peer: str,
    method: str,
    url: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    deadline: float,
) -> Answer:
    """One request, one answer; the one place where HTTP and library errors become ours.

    `deadline`: on the event loop's clock. Raises Unavailable (never sent), DeadlineExceeded and
    ConnectionLost (indefinite), or the error that the answer stands for.
    """
    left_s = deadline - asyncio.get_running_loop().time()
    if left_s <= 0:
        # Nothing was sent by this attempt; the attempts before it have raised their own errors.
        raise Unavailable("the deadline passed before the request was sent")
    sent = {**headers, DEADLINE_HEADER: str(max(1, int(left_s * 1000)))}
    try:
        async with asyncio.timeout(left_s):
            response = await session.request(
                method, URL(url, encoded=True), data=body, headers=sent, allow_redirects=False
            )
            async with response:
                data = await response.read()
    except TimeoutError:
        raise DeadlineExceeded(f"{peer} did not answer in time", node=peer) from None
    except aiohttp.ClientConnectorError as exc:
        # Never connected, so never sent: definite, whatever the reason.
        raise Unavailable(f"cannot connect to {peer}: {exc.strerror or exc}", node=peer) from exc
    except (aiohttp.ClientError, OSError) as exc:
        reason = str(exc) or type(exc).__name__
        raise ConnectionLost(f"the connection to {peer} broke: {reason}", node=peer) from exc
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = None  # damaged, or not ours: what came of the request is not known
    if response.status >= 300:
        raise from_problem(response.status, document)
    return Answer(response.status, response.headers, document)
