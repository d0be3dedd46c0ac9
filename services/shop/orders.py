"""Takes orders: has the stock reserved, then writes the order down.

    PUT /orders/{id}    {"customer", "product", "quantity"}    201, or 200 when it was there already
    GET /orders/{id}

Both steps can be repeated, so the whole can: an attempt that broke off between them has reserved
stock and placed no order, and the retry finds the reservation and goes on. If nobody ever retries,
that stock stays reserved; to give it back is what a saga is for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from services.chassis.app import Context, deadline_of, json_response, read_json_body
from services.chassis.config import load
from services.chassis.errors import PreconditionFailed
from services.chassis.machine import Machine
from services.chassis.service import Service, run_process
from services.shop.documents import Order, OrderRequest, ReservationRequest, name_of
from services.shop.errors import NoSuchOrder, OrderReused
from services.shop.roles import ROLE_PARSERS, Role, RoleConfig, check_peers, names, rest_of
from services.shop.store import Store, decode

PREFIX = "ORDERS_"
PATH = "/orders/"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersConfig(RoleConfig):
    """`inventory`, `store`: the peers that are asked for each."""

    inventory: tuple[str, ...]
    store: tuple[str, ...]

    def check(self, prefix: str) -> None:
        RoleConfig.check(self, prefix)
        check_peers(self, prefix, "INVENTORY", self.inventory)
        check_peers(self, prefix, "STORE", self.store)


class Orders(Role):
    """See the module."""

    role = "orders"

    def __init__(self, config: OrdersConfig, machine: Machine) -> None:
        super().__init__(config, machine)
        self._inventory = config.inventory
        self._store = Store(self.calls, self.addresses(config.store), self.random)
        self.app.add("PUT", PATH, self.place)
        self.app.add("GET", PATH, self.show)

    async def end(self) -> None:
        await self._store.close()
        await super().end()

    async def place(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Place the order, unless it has been."""
        deadline = deadline_of(request, context)
        name = name_of(rest_of(context, PATH), "an order's id")
        context.fields["order"] = name
        asked: OrderRequest = await read_json_body(request, OrderRequest, deadline=deadline)
        await self.ask(
            self._inventory,
            "PUT",
            f"/reservations/{name}",
            context=context,
            deadline=deadline,
            body=ReservationRequest(asked.product, asked.quantity),
        )
        order = Order(name, asked.customer, asked.product, asked.quantity)
        try:
            await self._store.put(
                _key(name), order, version=None, context=context, deadline=deadline
            )
        except PreconditionFailed as taken:
            if decode(taken.value, Order, _key(name)) != order:
                raise OrderReused(f"order {name} is another one") from None
            return json_response(order)
        return json_response(order, 201)

    async def show(self, request: web.BaseRequest, context: Context) -> web.Response:
        """An order that was placed."""
        name = name_of(rest_of(context, PATH), "an order's id")
        deadline = deadline_of(request, context)
        found = await self._store.get(_key(name), Order, context=context, deadline=deadline)
        if found is None:
            raise NoSuchOrder(f"there is no order {name}")
        return json_response(found[0])


def _key(order: str) -> str:
    return f"order.{order}"


def make(environ: Mapping[str, str], machine: Machine) -> Service:
    """The role, not yet started. Raises ConfigError."""
    parsers = {**ROLE_PARSERS, "inventory": names, "store": names}
    return Orders(load(OrdersConfig, environ, PREFIX, parsers), machine)


def main(environ: Mapping[str, str]) -> int:
    """The role as a process of its own."""
    return run_process(make, environ)


if __name__ == "__main__":
    sys.exit(main(os.environ))
