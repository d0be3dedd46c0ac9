"""The store behind the shop: documents with versions, every access a call span of the request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any, TypeVar

import msgspec

from services.chassis.app import Context
from services.chassis.calls import Calls
from services.chassis.errors import InternalError, NotFound
from services.kv.client import KvClient

PEER = "store"  # one name for its nodes: which of them answers is the client's business

T = TypeVar("T")


class Store:
    """Reads and writes documents as `type_`s. `addresses`: the store's nodes."""

    def __init__(self, calls: Calls, addresses: Mapping[str, str], random: Random) -> None:
        self._calls = calls
        self._client = KvClient(addresses, random=random)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def get(
        self, key: str, type_: type[T], *, context: Context, deadline: float
    ) -> tuple[T, int] | None:
        """The document and its version; None when there is none. Raises as `KvClient.get`."""
        try:
            async with self._calls.span(context, PEER, "GET", f"/kv/{key}") as headers:
                reply = await self._client.get(key, deadline_ms=_left_ms(deadline), headers=headers)
        except NotFound:
            return None
        return decode(reply.value, type_, key), reply.version

    async def put(
        self, key: str, document: Any, *, version: int | None, context: Context, deadline: float
    ) -> int:
        """Write if the key is at `version` (None: absent); the new version.

        Raises PreconditionFailed with what is there, or as `KvClient.put`.
        """
        async with self._calls.span(context, PEER, "PUT", f"/kv/{key}") as headers:
            reply = await self._client.cas(
                key,
                msgspec.to_builtins(document),
                version=version,
                deadline_ms=_left_ms(deadline),
                headers=headers,
            )
        return reply.version


def decode(value: Any, type_: type[T], key: str) -> T:
    """A value of the store as the document that it should be. Raises InternalError."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as exc:
        raise InternalError(f"the store holds something else at {key}: {exc}") from None


def _left_ms(deadline: float) -> int:
    return max(1, int((deadline - asyncio.get_running_loop().time()) * 1000))
