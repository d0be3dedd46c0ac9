"""`GET`, `PUT` and `DELETE /kv/{key}`: from HTTP to a command or a read, and back."""

from __future__ import annotations

from typing import Any, Literal, get_args
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from services.chassis.app import (
    App,
    Context,
    deadline_of,
    json_response,
    read_json_body,
    single_header,
)
from services.chassis.driver import Driver
from services.chassis.errors import (
    BadRequest,
    InternalError,
    KeyReused,
    NotFound,
    PreconditionFailed,
)
from services.kv.limits import (
    encode_value,
    idempotency_key_of,
    if_match_of,
    if_none_match_of,
    key_of,
)
from services.kv.state_machine import Command, KeyValueStore, Reply, encode_command

PREFIX = "/kv/"
Consistency = Literal["linearizable", "lease", "local"]


class PutBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PUT."""

    value: Any


class KvHandlers:
    """The public face of the store."""

    def __init__(self, driver: Driver, store: KeyValueStore) -> None:
        self._driver = driver
        self._store = store

    def add_routes(self, app: App) -> None:
        """Serve `/kv/…`."""
        app.add("GET", PREFIX, self.get)
        app.add("PUT", PREFIX, self.put)
        app.add("DELETE", PREFIX, self.delete)

    async def get(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Read a key, as consistently as asked for."""
        key = _key(context)
        consistency = _consistency(context.query)
        deadline = deadline_of(request, context)
        if consistency != "local":
            # `local` never asks the core: it answers, perhaps with the past, from any node.
            await self._driver.read(deadline=deadline, lease=consistency == "lease")
        found = self._store.get(key)
        if found is None:
            raise NotFound("the store has no such key", key=key)
        value, version = found
        context.fields["version"] = version
        document = {"key": key, "value": msgspec.Raw(value), "version": version}
        return json_response(document, headers={"ETag": f'"{version}"'})

    async def put(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Write a key."""
        key = _key(context)
        _no_query(context)
        deadline = deadline_of(request, context)
        condition = _conditions(request)
        body: PutBody = await read_json_body(request, PutBody, deadline=deadline)
        command = Command(key, encode_value(body.value), *condition)
        return await self._write(command, deadline, context)

    async def delete(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Remove a key."""
        key = _key(context)
        _no_query(context)
        deadline = deadline_of(request, context)
        if request.can_read_body:
            raise BadRequest("a DELETE has no body")
        return await self._write(Command(key, None, *_conditions(request)), deadline, context)

    async def _write(self, command: Command, deadline: float, context: Context) -> web.Response:
        reply: Reply = await self._driver.propose(
            encode_command(command), deadline=deadline, traceparent=context.origin
        )
        context.fields["version"] = reply.version
        if reply.outcome == "ok":
            document = {"key": command.key, "version": reply.version}
            return json_response(document, headers={"ETag": f'"{reply.version}"'})
        if reply.outcome == "precondition_failed":
            value = None if reply.value is None else msgspec.Raw(reply.value)
            raise PreconditionFailed(
                "the key is absent" if reply.version is None else f"it is at {reply.version}",
                value=value,
                version=reply.version,
            )
        if reply.outcome == "not_found":
            raise NotFound("the store has no such key", key=command.key)
        if reply.outcome == "key_reused":
            raise KeyReused("it came before with another request; nothing was changed")
        raise InternalError(f"the state machine answered {reply.outcome}")


def _key(context: Context) -> str:
    return key_of(context.path[len(PREFIX) :])


def _no_query(context: Context) -> None:
    if context.query:
        raise BadRequest(f"a write takes no query parameters: {context.query[:100]!r}")


# What nearly every query is; to parse one costs a fifth of a local read.
_USUAL: dict[str, str] = {f"consistency={value}": value for value in get_args(Consistency)}
_USUAL[""] = "linearizable"


def _consistency(query: str) -> str:
    usual = _USUAL.get(query)
    if usual is not None:
        return usual
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=10)
    except ValueError:
        raise BadRequest(f"not a query string: {query[:100]!r}") from None
    for name, _ in pairs:
        if name != "consistency":
            raise BadRequest(f"unknown query parameter {name[:50]!r}; known is consistency")
    allowed = get_args(Consistency)
    if len(pairs) != 1 or pairs[0][1] not in allowed:
        value = pairs[0][1]
        raise BadRequest(f"consistency is one of {', '.join(allowed)}, once; not {value[:50]!r}")
    return pairs[0][1]


def _conditions(request: web.BaseRequest) -> tuple[int | None, bool, str | None]:
    if_match = if_match_of(single_header(request, "If-Match"))
    if_none_match = if_none_match_of(single_header(request, "If-None-Match"))
    if if_match is not None and if_none_match:
        raise BadRequest("If-Match and If-None-Match: * contradict each other")
    return if_match, if_none_match, idempotency_key_of(single_header(request, "Idempotency-Key"))
