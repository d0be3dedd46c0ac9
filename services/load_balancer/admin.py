"""The admin face: which backends there are, their weights, and draining.

    GET    /admin/backends            all of them, as in /status
    PUT    /admin/backends/{name}     {"address": "host:port", "weight": 3}: add or replace
    PATCH  /admin/backends/{name}     {"weight": 0, "draining": true}: what is absent stays
    DELETE /admin/backends/{name}     take it out; what is under way comes to its end

It is on a listener of its own (LOAD_BALANCER_ADMIN_LISTEN; loopback by default), as Envoy's and
HAProxy's are: who may send requests through a balancer must not be able to take its backends away.
A testbed knows one address of each node, so LOAD_BALANCER_ADMIN=on serves `/admin/` on the public
one, too. Changes need LOAD_BALANCER_ADMIN_TOKEN, or, without one, come from loopback
(`chassis.admin_access`): on the public listener, from clients that are on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import msgspec
from aiohttp import web

from services.chassis.admin_access import AdminAccess
from services.chassis.app import App, Context, deadline_of, json_response, read_json_body
from services.chassis.config import PEERS_MAX, node, parse_address
from services.chassis.errors import BadRequest, NoRoute
from services.load_balancer.backends import Backends
from services.load_balancer.config import WEIGHT_MAX, BackendConfig

PATH = "/admin/backends"

Weight = Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_MAX)]


class NewBackend(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PUT."""

    address: str
    weight: Weight = 1


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PATCH."""

    weight: Weight | None = None
    draining: bool | None = None


class Admin:
    """Handlers. `changed` is called when the set of backends has."""

    def __init__(
        self, backends: Backends, changed: Callable[[], None], access: AdminAccess
    ) -> None:
        self._backends = backends
        self._changed = changed
        self._guard = access.guard
        self._loop = asyncio.get_running_loop()

    def add_routes(self, app: App) -> None:
        app.add("GET", PATH, self.show)
        app.add("PUT", f"{PATH}/", self._guard(self.put))
        app.add("PATCH", f"{PATH}/", self._guard(self.patch))
        app.add("DELETE", f"{PATH}/", self._guard(self.delete))

    def _name(self, context: Context, *, known: bool = True) -> str:
        name = context.path.removeprefix(f"{PATH}/")
        try:
            node(name)
        except ValueError as exc:
            raise BadRequest(f"{name[:50]!r} is not {exc}") from None
        if known and name not in self._backends.all:
            raise NoRoute(f"there is no backend {name}")
        return name

    def _answer(self) -> web.Response:
        return json_response({"backends": self._backends.status(self._loop.time())})

    async def show(self, _: web.BaseRequest, __: Context) -> web.Response:
        return self._answer()

    async def put(self, request: web.BaseRequest, context: Context) -> web.Response:
        name = self._name(context, known=False)
        deadline = deadline_of(request, context)
        wanted: NewBackend = await read_json_body(request, NewBackend, deadline=deadline)
        try:
            address = parse_address(wanted.address)
        except ValueError as exc:
            raise BadRequest(f"address {wanted.address[:100]!r}: allowed is {exc}") from None
        if name not in self._backends.all and len(self._backends.all) >= PEERS_MAX:
            raise BadRequest(f"there are {PEERS_MAX} backends already")
        self._backends.add(name, BackendConfig(address, wanted.weight), self._loop.time())
        self._changed()
        return self._answer()

    async def patch(self, request: web.BaseRequest, context: Context) -> web.Response:
        name = self._name(context)
        deadline = deadline_of(request, context)
        change: Change = await read_json_body(request, Change, deadline=deadline)
        if name not in self._backends.all:
            raise NoRoute(f"there is no backend {name} any more")
        if change.weight is not None:
            self._backends.set_weight(name, change.weight)
        if change.draining is not None:
            self._backends.drain(name, change.draining, self._loop.time())
        return self._answer()

    async def delete(self, _: web.BaseRequest, context: Context) -> web.Response:
        self._backends.remove(self._name(context))
        self._changed()
        return self._answer()
