"""`GET`, `PUT`, `DELETE /kv/{key}` as the store has them, answered by the cache where it can be.

Beside the store's answers: `Cache-Status` (RFC 9211: `hit`, `fwd=miss; stored; collapsed`,
`fwd=bypass; detail=…`) and `Age`. A reader who names a `?consistency=` other than `cached` wants a
promise that no cache can give, and is passed on to the store.

`/admin/flush` forgets everything, `/admin/write-back` writes back at once. `/admin/shards` takes
servers out of the placement, and back in (emptied first: it has missed what was written meanwhile).
Tell all cache nodes: two that look for a key in different places do not see each other's writes.
They need CACHE_ADMIN_TOKEN, or, without one, come from loopback (`chassis.admin_access`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from services.cache.engines import EngineError
from services.cache.entry import Entry, Kind
from services.cache.reads import Reader
from services.cache.store import Store
from services.cache.tier import Tier
from services.cache.writes import Writer
from services.chassis.admin_access import AdminAccess
from services.chassis.app import (
    App,
    Context,
    deadline_of,
    json_response,
    read_json_body,
    single_header,
)
from services.chassis.errors import BadRequest, NotFound, Unavailable
from services.chassis.limits import idempotency_key_of, if_match_of, if_none_match_of, key_of

KV = "/kv/"
CONSISTENCIES = ("cached", "linearizable", "lease", "local")


class PutBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PUT."""

    value: Any


class ShardsBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/shards`: the servers that are to keep keys, from now on."""

    shards: list[str]


class CacheHandlers:
    """The public face. `place`: makes the placement of the shards that are given."""

    def __init__(
        self,
        name: str,
        reader: Reader,
        writer: Writer,
        store: Store,
        tier: Tier,
        now_ms: Callable[[], int],
        place: Callable[[list[str]], Awaitable[None]],
        access: AdminAccess,
    ) -> None:
        self._name = name
        self._reader = reader
        self._writer = writer
        self._store = store
        self._tier = tier
        self._now_ms = now_ms
        self._place = place
        self._guard = access.guard

    def add_routes(self, app: App) -> None:
        """Serve `/kv/…` and `/admin/…`."""
        app.add("GET", KV, self.get)
        app.add("PUT", KV, self.put)
        app.add("DELETE", KV, self.delete)
        app.add("POST", "/admin/flush", self._guard(self.flush))
        app.add("POST", "/admin/shards", self._guard(self.shards))
        app.add("POST", "/admin/write-back", self._guard(self.write_back))

    async def get(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Read a key."""
        key = key_of(context.path[len(KV) :])
        consistency = _consistency(context.query)
        deadline = deadline_of(request, context)
        if consistency == "cached":
            entry, how = await self._reader.read(key, deadline, context)
        else:
            entry, how = await self._past(key, consistency, deadline, context)
        context.fields["version"] = entry.version
        self._say(how, context)
        if how.startswith("hit"):
            context.headers["Age"] = str(
                max(0, self._now_ms() - (entry.stored_ms or self._now_ms())) // 1000
            )
        if entry.kind is Kind.ABSENT:
            raise NotFound("the store has no such key", key=key)
        if entry.version:
            context.headers["ETag"] = f'"{entry.version}"'
        document = {"key": key, "value": msgspec.Raw(entry.value), "version": entry.version}
        return json_response(document)

    async def _past(
        self, key: str, consistency: str, deadline: float, context: Context
    ) -> tuple[Entry, str]:
        how = "fwd=request"
        try:
            reply = await self._store.get(key, consistency, deadline, context)
        except NotFound:
            return Entry(Kind.ABSENT), how
        return Entry(Kind.VALUE, reply.version, msgspec.json.encode(reply.value)), how

    async def put(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Write a key, by the policy."""
        key = key_of(context.path[len(KV) :])
        _no_query(context)
        deadline = deadline_of(request, context)
        conditions = _conditions(request)
        body: PutBody = await read_json_body(request, PutBody, deadline=deadline)
        written = await self._writer.put(key, body.value, conditions, deadline, context)
        return self._written(key, written.version, written.how, context)

    async def delete(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Remove a key."""
        key = key_of(context.path[len(KV) :])
        _no_query(context)
        deadline = deadline_of(request, context)
        if request.can_read_body:
            raise BadRequest("a DELETE has no body")
        conditions = _conditions(request)
        if conditions[1]:
            raise BadRequest("If-None-Match: * of a DELETE would remove what is not there")
        written = await self._writer.delete(key, conditions, deadline, context)
        return self._written(key, written.version, written.how, context)

    def _written(self, key: str, version: int, how: str, context: Context) -> web.Response:
        context.fields["version"] = version
        self._say(how, context)
        if version:
            context.headers["ETag"] = f'"{version}"'
        return json_response({"key": key, "version": version})

    def _say(self, how: str, context: Context) -> None:
        context.fields["cache"] = how
        context.headers["Cache-Status"] = f"{self._name}; {how}"

    # ------------------------------------------------------------------ for operators

    async def flush(self, request: web.BaseRequest, _: Context) -> web.Response:
        """Empty every server. 503 names the one that could not be."""
        if request.can_read_body:
            raise BadRequest("a flush has no body")
        for shard in self._tier.shards.values():
            try:
                await shard.ask(lambda engine: engine.flush())
            except EngineError as exc:
                raise Unavailable(f"{shard.name} was not emptied: {exc}") from None
        return json_response({"flushed": list(self._tier.shards)})

    async def write_back(self, request: web.BaseRequest, _: Context) -> web.Response:
        """Write back what waits, now. 503: the store did not take all of it."""
        if request.can_read_body:
            raise BadRequest("it has no body")
        if not await self._writer.flush():
            raise Unavailable("the store did not take all of it; what is left is tried again")
        return json_response({"written_back": True})

    async def shards(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Which servers keep keys."""
        deadline = deadline_of(request, context)
        body: ShardsBody = await read_json_body(request, ShardsBody, deadline=deadline)
        known = list(self._tier.shards)
        wanted = set(body.shards)
        if not wanted or len(wanted) != len(body.shards) or wanted - set(known):
            raise BadRequest(f"shards are some of {', '.join(known)}, each once")
        try:
            await self._place([name for name in known if name in wanted])
        except EngineError as exc:
            raise Unavailable(f"it was not emptied, so it stays out: {exc}") from None
        return json_response({"shards": list(self._tier.placement.nodes)})


def _no_query(context: Context) -> None:
    if context.query:
        raise BadRequest(f"a write takes no query parameters: {context.query[:100]!r}")


def _consistency(query: str) -> str:
    if not query:
        return "cached"
    name, _, value = query.partition("=")
    if name != "consistency" or value not in CONSISTENCIES:
        allowed = ", ".join(CONSISTENCIES)
        raise BadRequest(f"the one parameter is consistency, one of {allowed}; not {query[:100]!r}")
    return value


def _conditions(request: web.BaseRequest) -> tuple[int | None, bool, str | None]:
    if_match = if_match_of(single_header(request, "If-Match"))
    if_none_match = if_none_match_of(single_header(request, "If-None-Match"))
    if if_match is not None and if_none_match:
        raise BadRequest("If-Match and If-None-Match: * contradict each other")
    return if_match, if_none_match, idempotency_key_of(single_header(request, "Idempotency-Key"))
