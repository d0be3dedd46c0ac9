"""`GET`, `PUT` and `DELETE /kv/{key}`: from HTTP to a command or a read, and back."""

from __future__ import annotations

from typing import Any

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
from services.chassis.capacity import Capacity
from services.chassis.driver import Driver
from services.chassis.errors import (
    BadRequest,
    InternalError,
    KeyReused,
    NotFound,
    PreconditionFailed,
)
from services.chassis.limits import (
    encode_value,
    idempotency_key_of,
    if_match_of,
    if_none_match_of,
    key_of,
)
from services.kv.consistency import in_header, in_problem, index_of, level_of, patience
from services.kv.state_machine import Command, KeyValueStore, Reply, encode_command

PREFIX = "/kv/"
READS = ("linearizable", "lease", "sequential", "local", "eventual")
WRITES = ("linearizable", "sequential")


class PutBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PUT."""

    value: Any


class KvHandlers:
    """The public face of the store."""

    def __init__(self, driver: Driver, store: KeyValueStore, capacity: Capacity) -> None:
        self._driver = driver
        self._store = store
        self._capacity = capacity

    def add_routes(self, app: App) -> None:
        """Serve `/kv/…`."""
        app.add("GET", PREFIX, self.get)
        app.add("PUT", PREFIX, self.put)
        app.add("DELETE", PREFIX, self.delete)

    async def get(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Read a key, as consistently as asked for.

        `local`, or `eventual`, never asks the core: any node answers, perhaps with the past.

        `sequential` does so once the node has applied the log as far as the session has seen it.
        What that gives is sequential consistency: to order all writes by their index in the log,
        and each read behind the write at the index at which it was served, respects every
        session's own order, for its index never falls. It is not linearizable: who comes from
        elsewhere may be told what has been replaced since (ZooKeeper's reads: Hunt, Konar,
        Junqueira and Reed 2010, §2.3). A write of unknown outcome is in no token: after one, a
        session has to begin anew. And an index names a write only as long as the log loses none.
        """
        key = _key(context)
        consistency = _consistency(context.query)
        seen = index_of(request)
        deadline = deadline_of(request, context)
        if consistency == "sequential":
            # Before it takes a slot: who waits for the log keeps nobody else from reading.
            await self._driver.reach(seen or 0, deadline=patience(deadline))
        async with self._capacity:
            if consistency not in ("sequential", "local", "eventual"):
                await self._driver.read(deadline=deadline, lease=consistency == "lease")
            found = self._store.get(key)
            token = _token(seen, consistency, self._driver.applied_index)
        if found is None:
            raise NotFound("the store has no such key", key=key, **in_problem(token))
        value, version = found
        context.fields["version"] = version
        document = {"key": key, "value": msgspec.Raw(value), "version": version}
        return json_response(document, headers={"ETag": f'"{version}"', **in_header(token)})

    async def put(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Write a key."""
        key = _key(context)
        deadline = deadline_of(request, context)
        condition = _conditions(request)
        body: PutBody = await read_json_body(request, PutBody, deadline=deadline)
        command = Command(key, encode_value(body.value), *condition)
        return await self._write(command, request, deadline, context)

    async def delete(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Remove a key."""
        key = _key(context)
        deadline = deadline_of(request, context)
        if request.can_read_body:
            raise BadRequest("a DELETE has no body")
        command = Command(key, None, *_conditions(request))
        return await self._write(command, request, deadline, context)

    async def _write(
        self, command: Command, request: web.BaseRequest, deadline: float, context: Context
    ) -> web.Response:
        """Every write goes through the log and is linearizable, whatever less is asked for."""
        consistency = level_of(context.query, WRITES) or "linearizable"
        seen = index_of(request)
        reply: Reply = await self._driver.propose(
            encode_command(command), deadline=deadline, traceparent=context.origin
        )
        context.fields["version"] = reply.version
        if reply.outcome == "ok":
            document = {"key": command.key, "version": reply.version}
            token = _token(seen, consistency, reply.version or 0)
            headers = {"ETag": f'"{reply.version}"', **in_header(token)}
            return json_response(document, headers=headers)
        # What refused it was seen, too: the state machine as it was then.
        token = _token(seen, consistency, self._driver.applied_index)
        if reply.outcome == "precondition_failed":
            value = None if reply.value is None else msgspec.Raw(reply.value)
            raise PreconditionFailed(
                "the key is absent" if reply.version is None else f"it is at {reply.version}",
                value=value,
                version=reply.version,
                **in_problem(token),
            )
        if reply.outcome == "not_found":
            raise NotFound("the store has no such key", key=command.key, **in_problem(token))
        if reply.outcome == "key_reused":
            raise KeyReused("it came before with another request; nothing was changed")
        raise InternalError(f"the state machine answered {reply.outcome}")


def _key(context: Context) -> str:
    return key_of(context.path[len(PREFIX) :])


# What nearly every query is; to parse one costs a fifth of a local read.
_USUAL: dict[str, str] = {f"consistency={value}": value for value in READS}
_USUAL[""] = "linearizable"


def _consistency(query: str) -> str:
    return _USUAL.get(query) or level_of(query, READS) or "linearizable"


def _token(seen: int | None, consistency: str, index: int) -> str | None:
    """For a session: how far it has seen the log now."""
    if seen is None and consistency != "sequential":
        return None
    return str(max(seen or 0, index))


def _conditions(request: web.BaseRequest) -> tuple[int | None, bool, str | None]:
    if_match = if_match_of(single_header(request, "If-Match"))
    if_none_match = if_none_match_of(single_header(request, "If-None-Match"))
    if if_match is not None and if_none_match:
        raise BadRequest("If-Match and If-None-Match: * contradict each other")
    return if_match, if_none_match, idempotency_key_of(single_header(request, "Idempotency-Key"))
