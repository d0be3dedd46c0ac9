"""`/kv/{key}` of a store with many leaders: each answers for itself, at once."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from services.chassis.app import App, Context, deadline_of, json_response, read_json_body
from services.chassis.capacity import Capacity
from services.chassis.errors import BadRequest, NotFound
from services.chassis.leaderless import LeaderlessDriver
from services.chassis.limits import encode_value, key_of
from services.chassis.node import Chance, Node
from services.kv.consistency import level_of
from services.kv.handlers import PREFIX, PutBody
from services.kv.leaderless import CONDITIONS, refuse
from services.protocols.multi_leader import MultiLeader, State

EVENTUAL = ("eventual", "local")  # what this node has: it asks no other


class MultiLeaderHandlers:
    """The public face of the store. Reads share `capacity`."""

    def __init__(self, driver: LeaderlessDriver, capacity: Capacity) -> None:
        self._driver = driver
        self._capacity = capacity

    def add_routes(self, app: App) -> None:
        """Serve `/kv/…`."""
        app.add("GET", PREFIX, self.get)
        app.add("PUT", PREFIX, self.put)
        app.add("DELETE", PREFIX, self.delete)

    async def get(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Read a key as it is here."""
        level_of(context.query, EVENTUAL)
        key, deadline = _key(request, context), deadline_of(request, context)
        async with self._capacity:
            state: State = await self._driver.read(key, deadline=deadline)
        if state.latest is None or state.latest.value is None:
            raise NotFound("the store has no such key", key=key)
        document = {"value": msgspec.Raw(state.latest.value), **_known(context, key, state)}
        return json_response(document)

    async def put(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Write a key."""
        key, deadline = _key(request, context, writes=True), deadline_of(request, context)
        body: PutBody = await read_json_body(request, PutBody, deadline=deadline)
        return await self._write(context, key, encode_value(body.value), deadline)

    async def delete(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Remove a key; a tombstone stays."""
        key, deadline = _key(request, context, writes=True), deadline_of(request, context)
        if request.can_read_body:
            raise BadRequest("a DELETE has no body")
        return await self._write(context, key, None, deadline)

    async def _write(
        self, context: Context, key: str, value: bytes | None, deadline: float
    ) -> web.Response:
        state: State = await self._driver.write(key, value, deadline=deadline)
        return json_response(_known(context, key, state))


def _key(request: web.BaseRequest, context: Context, *, writes: bool = False) -> str:
    refuse(request, *CONDITIONS)
    if writes and context.query:
        raise BadRequest(f"a write takes no query parameters: {context.query[:100]!r}")
    return key_of(context.path[len(PREFIX) :])


def _known(context: Context, key: str, state: State) -> dict[str, Any]:
    """`version` is a number that grows with every write that is known here."""
    version = sum(state.vector.values())
    context.fields["version"] = version
    return {"key": key, "version": version, "vector": state.vector}


def add_faces(driver: LeaderlessDriver, capacity: Capacity, app: App) -> None:
    """Serve keys."""
    MultiLeaderHandlers(driver, capacity).add_routes(app)


def make_driver(node: Node, chance: Chance, records: list[Any]) -> LeaderlessDriver:
    """The core that the node's configuration describes, and its driver."""
    config = node.config
    core = MultiLeader(
        config.node,
        tuple(config.peers),
        random=chance.fresh,
        records=records,
        topology=config.topology,
        leaders=config.leaders,
        have_ticks=config.heartbeat_ticks,
    )
    return LeaderlessDriver(core, *node.parts, **node.pace)
