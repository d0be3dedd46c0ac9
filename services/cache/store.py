"""The store behind the cache: `KvClient`, with what the cache wants to know of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from services.cache.counters import Counters
from services.cache.entry import Entry, Kind
from services.chassis.app import Context
from services.chassis.calls import Calls
from services.chassis.errors import NotFound
from services.chassis.limits import ANY_VERSION
from services.kv.client import KvClient, Reply

_encode = msgspec.json.Encoder().encode


class Store:
    """Reads and writes of the store, each a span below the request that it is made for.

    `read`: how consistently to read (`linearizable`, `lease`, `local`): what a replica that lags
    answers would be cached for a whole time to live.
    """

    def __init__(
        self,
        client: KvClient,
        calls: Calls,
        counters: Counters,
        *,
        read: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._client = client
        self._calls = calls
        self._counters = counters
        self._read = read
        self._now_ms = now_ms

    async def fetch(self, key: str, deadline: float, context: Context | None) -> Entry:
        """The store's value, or its word that there is none; no expiry yet, `stored_ms` is now.

        `deadline`: on the event loop's clock. Raises what `KvClient.get` does, but NotFound.
        """
        self._counters.store_reads += 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            reply = await self.get(key, self._read, deadline, context)
        except NotFound:
            kind, version, value = Kind.ABSENT, 0, b"null"
        else:
            kind, version, value = Kind.VALUE, reply.version, _encode(reply.value)
        delta_ms = round((loop.time() - began) * 1000)
        return Entry(kind, version, value, stored_ms=self._now_ms(), delta_ms=delta_ms)

    async def get(
        self, key: str, consistency: str, deadline: float, context: Context | None
    ) -> Reply:
        """Straight from the store. Raises what `KvClient.get` does."""
        async with self._headers(context, "GET", key) as headers:
            return await self._client.get(
                key, consistency=consistency, deadline_ms=_left_ms(deadline), headers=headers
            )

    async def put(
        self,
        key: str,
        value: Any,
        conditions: tuple[int | None, bool, str | None],
        deadline: float,
        context: Context | None,
    ) -> Reply:
        """Write. `conditions`: If-Match (ANY_VERSION: `*`), If-None-Match, idempotency key.

        Raises what `KvClient.put` does.
        """
        self._counters.store_writes += 1
        if_match, if_none_match, idempotency_key = conditions
        async with self._headers(context, "PUT", key) as headers:
            return await self._client.put(
                key,
                value,
                if_match="*" if if_match == ANY_VERSION else if_match,
                if_none_match=if_none_match,
                idempotency_key=idempotency_key,
                deadline_ms=_left_ms(deadline),
                headers=headers,
            )

    async def delete(
        self,
        key: str,
        conditions: tuple[int | None, bool, str | None],
        deadline: float,
        context: Context | None,
    ) -> Reply:
        """Remove. Raises what `KvClient.delete` does."""
        self._counters.store_writes += 1
        if_match, _, idempotency_key = conditions
        async with self._headers(context, "DELETE", key) as headers:
            return await self._client.delete(
                key,
                if_match="*" if if_match == ANY_VERSION else if_match,
                idempotency_key=idempotency_key,
                deadline_ms=_left_ms(deadline),
                headers=headers,
            )

    def _headers(self, context: Context | None, method: str, key: str) -> Any:
        if context is None:  # the cache's own doing: no request to be part of
            return _NoSpan()
        return self._calls.span(context, "store", method, f"/kv/{key}")

    async def close(self) -> None:
        await self._client.close()


class _NoSpan:
    async def __aenter__(self) -> Mapping[str, str]:
        return {}

    async def __aexit__(self, *_: object) -> None:
        return None


def _left_ms(deadline: float) -> int:
    """What is left until then; KvClient refuses to send when that is nothing."""
    return max(0, int((deadline - asyncio.get_running_loop().time()) * 1000))
