"""`/kv/{key}` of a causally consistent store: a node serves who has seen no more than it has."""

from __future__ import annotations

from typing import Any, cast

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
from services.chassis.causal import CausalDriver
from services.chassis.errors import BadRequest, NotFound
from services.chassis.limits import encode_value, key_of
from services.chassis.node import Chance, Node
from services.kv.client import SESSION_TOKEN
from services.kv.consistency import in_header, in_problem, level_of, patience
from services.kv.handlers import PREFIX, PutBody
from services.kv.leaderless import CONDITIONS, refuse
from services.protocols.causal import LEVELS, Causal, Level, Reply, Session
from services.protocols.leaderless import node_of


class CausalHandlers:
    """The public face of the store."""

    def __init__(self, driver: CausalDriver) -> None:
        self._driver = driver

    def add_routes(self, app: App) -> None:
        """Serve `/kv/…`."""
        app.add("GET", PREFIX, self.get)
        app.add("PUT", PREFIX, self.put)
        app.add("DELETE", PREFIX, self.delete)

    async def get(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Read a key."""
        key, session, level = self._asked(request, context)
        deadline = patience(deadline_of(request, context))
        reply = await self._driver.read(key, session=session, level=level, deadline=deadline)
        if reply.write is None or reply.write.value is None:
            token = reply.session.token()
            raise NotFound("the store has no such key", key=key, **in_problem(token))
        return self._response(context, reply, {"value": msgspec.Raw(reply.write.value)})

    async def put(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Write a key."""
        key, session, level = self._asked(request, context)
        deadline = deadline_of(request, context)
        body: PutBody = await read_json_body(request, PutBody, deadline=deadline)
        value = encode_value(body.value)
        reply = await self._driver.write(
            key, value, session=session, level=level, deadline=patience(deadline)
        )
        return self._response(context, reply)

    async def delete(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Remove a key; a tombstone stays."""
        key, session, level = self._asked(request, context)
        deadline = patience(deadline_of(request, context))
        if request.can_read_body:
            raise BadRequest("a DELETE has no body")
        reply = await self._driver.write(key, None, session=session, level=level, deadline=deadline)
        return self._response(context, reply)

    def _asked(self, request: web.BaseRequest, context: Context) -> tuple[str, Session, Level]:
        refuse(request, *CONDITIONS)
        level = cast("Level", level_of(context.query, LEVELS) or "causal")
        token = single_header(request, SESSION_TOKEN) or ""
        try:
            session = Session.of(token)
        except ValueError as exc:
            raise BadRequest(f"{SESSION_TOKEN}: {exc}: {token[:50]!r}") from None
        core = self._driver.core
        if strangers := {disk for disk in session.seen if node_of(disk) not in core.nodes}:
            raise BadRequest(f"{SESSION_TOKEN}: {min(strangers)} is not of this store")
        if session.seen.get(core.disk, 0) > core.has(core.disk):
            # Nobody was told of a write before it was there. (Those of other disks may be on their
            # way: who has seen them waits.)
            raise BadRequest(f"{SESSION_TOKEN}: {core.disk} has not given out so many")
        return key_of(context.path[len(PREFIX) :]), session, level

    def _response(
        self, context: Context, reply: Reply, more: dict[str, Any] | None = None
    ) -> web.Response:
        write = reply.write
        assert write is not None, reply
        version = context.fields["version"] = self._driver.core.version(write)
        document = {"key": write.key, **(more or {}), "version": version}
        return json_response(document, headers=in_header(reply.session.token()))


def add_faces(driver: CausalDriver, capacity: Capacity, app: App) -> None:
    """Serve keys. A read costs this node alone, and takes none of `capacity`."""
    CausalHandlers(driver).add_routes(app)


def make_driver(node: Node, chance: Chance, records: list[Any]) -> CausalDriver:
    """The core that the node's configuration describes, and its driver."""
    config = node.config
    core = Causal(
        config.node,
        tuple(config.peers),
        random=chance.fresh,
        records=records,
        # Sooner, a slow link would be given everything twice.
        resend_ticks=config.election_ticks,
        anti_entropy_ticks=config.anti_entropy_ticks,
    )
    return CausalDriver(core, *node.parts, **node.pace)
