"""Keeps the stock: how many of a product there are, and which orders have their share.

    PUT /reservations/{order}   {"product", "quantity"}    200, once and again
    PUT /stock/{product}        {"available"}
    GET /stock/{product}

`stock.py` has the rules, and why no order is counted twice; here is the order of the store's calls
that they rely on: stock, record, stock on condition of its version, record.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from services.chassis.app import Context, deadline_of, json_response, read_json_body
from services.chassis.config import load
from services.chassis.errors import Indefinite, PreconditionFailed, Unavailable
from services.chassis.machine import Machine
from services.chassis.service import Service, run_process
from services.shop.documents import ReservationRequest, Restock, name_of
from services.shop.errors import NoSuchProduct, OrderReused
from services.shop.roles import ROLE_PARSERS, Role, RoleConfig, check_peers, names, rest_of
from services.shop.stock import Stock, reserve
from services.shop.store import Store

PREFIX = "INVENTORY_"
RESERVATIONS, STOCK = "/reservations/", "/stock/"
CONFLICTS_MAX = 20
CONFLICT_WAIT_S = 0.005
SETTLED_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryConfig(RoleConfig):
    """`store`: the peers that are the store."""

    store: tuple[str, ...]

    def check(self, prefix: str) -> None:
        RoleConfig.check(self, prefix)
        check_peers(self, prefix, "STORE", self.store)


class Inventory(Role):
    """See the module."""

    role = "inventory"

    def __init__(self, config: InventoryConfig, machine: Machine) -> None:
        super().__init__(config, machine)
        self._store = Store(self.calls, self.addresses(config.store), self.random)
        # Orders whose record this process has written; the oldest are forgotten, which costs room
        # in a document, never a second count.
        self._settled: OrderedDict[str, None] = OrderedDict()
        self.app.add("PUT", RESERVATIONS, self.reserve)
        self.app.add("PUT", STOCK, self.restock)
        self.app.add("GET", STOCK, self.show)

    async def end(self) -> None:
        await self._store.close()
        await super().end()

    async def reserve(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Set aside what an order asks for."""
        deadline = deadline_of(request, context)
        order = name_of(rest_of(context, RESERVATIONS), "an order's id")
        context.fields["order"] = order
        asked: ReservationRequest = await read_json_body(
            request, ReservationRequest, deadline=deadline
        )
        for attempt in range(CONFLICTS_MAX):
            try:
                await self._reserve_once(order, asked, context, deadline)
            except PreconditionFailed:
                context.fields["conflicts"] = attempt + 1
                await asyncio.sleep(self.random.uniform(0, CONFLICT_WAIT_S * (attempt + 1)))
                continue
            return json_response({"order": order, **_shown(asked)})
        raise Unavailable(f"{asked.product} is wanted by too many at a time")

    async def _reserve_once(
        self, order: str, asked: ReservationRequest, context: Context, deadline: float
    ) -> None:
        """Raises PreconditionFailed when somebody else was quicker."""
        found = await self._store.get(
            _stock_key(asked.product), Stock, context=context, deadline=deadline
        )
        if found is None:
            raise NoSuchProduct(f"there is no {asked.product}")
        record = await self._store.get(
            _record_key(order), ReservationRequest, context=context, deadline=deadline
        )
        if record is not None:
            return self._check_same(order, record[0], asked)
        stock, version = found
        after = reserve(stock, order, asked.quantity, self._settled.keys())
        if after is not None:
            await self._store.put(
                _stock_key(asked.product), after, version=version, context=context,
                deadline=deadline,
            )  # fmt: skip
        await self._record(order, asked, context, deadline)
        return None

    async def _record(
        self, order: str, asked: ReservationRequest, context: Context, deadline: float
    ) -> None:
        try:
            await self._store.put(
                _record_key(order), asked, version=None, context=context, deadline=deadline
            )
        except PreconditionFailed as there:
            # A duplicate of this request was here at the same time, and has written it.
            if there.value != _shown(asked):
                raise OrderReused(f"order {order} has reserved something else") from None
        except (Indefinite, Unavailable) as exc:
            # The stock is written, so the order has its share, and `reserved` knows it: that is
            # what was asked for. Only it can't be dropped from there until somebody records it.
            context.fields["unrecorded"] = exc.slug
            return
        self._settled[order] = None
        while len(self._settled) > SETTLED_MAX:
            self._settled.popitem(last=False)

    def _check_same(
        self, order: str, record: ReservationRequest, asked: ReservationRequest
    ) -> None:
        if record != asked:
            raise OrderReused(f"order {order} has reserved {record.quantity} {record.product}")

    async def restock(self, request: web.BaseRequest, context: Context) -> web.Response:
        """So many are on the shelf now."""
        deadline = deadline_of(request, context)
        product = name_of(rest_of(context, STOCK), "a product")
        body: Restock = await read_json_body(request, Restock, deadline=deadline)
        for _ in range(CONFLICTS_MAX):
            found = await self._store.get(
                _stock_key(product), Stock, context=context, deadline=deadline
            )
            stock, version = found or (Stock(0), None)
            after = Stock(body.available, stock.reserved)
            try:
                await self._store.put(
                    _stock_key(product), after, version=version, context=context, deadline=deadline
                )
            except PreconditionFailed:
                continue
            return json_response({"product": product, "available": after.available})
        raise Unavailable(f"{product} is being sold too fast to be counted")

    async def show(self, request: web.BaseRequest, context: Context) -> web.Response:
        """How many are left."""
        product = name_of(rest_of(context, STOCK), "a product")
        deadline = deadline_of(request, context)
        found = await self._store.get(
            _stock_key(product), Stock, context=context, deadline=deadline
        )
        if found is None:
            raise NoSuchProduct(f"there is no {product}")
        return json_response({"product": product, "available": found[0].available})


def _shown(asked: ReservationRequest) -> dict[str, object]:
    return {"product": asked.product, "quantity": asked.quantity}


def _stock_key(product: str) -> str:
    return f"stock.{product}"


def _record_key(order: str) -> str:
    return f"reservation.{order}"


def make(environ: Mapping[str, str], machine: Machine) -> Service:
    """The role, not yet started. Raises ConfigError."""
    parsers = {**ROLE_PARSERS, "store": names}
    return Inventory(load(InventoryConfig, environ, PREFIX, parsers), machine)


def main(environ: Mapping[str, str]) -> int:
    """The role as a process of its own."""
    return run_process(make, environ)


if __name__ == "__main__":
    sys.exit(main(os.environ))
