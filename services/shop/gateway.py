"""The shop's public face: checks what comes from outside, names the order, hands it on.

    POST /orders        {"customer", "product", "quantity"}, Idempotency-Key: …   201, or 200 again
    GET  /orders/{id}

The customer's key becomes the order's id, and from here on the order is a PUT: whoever sends it
again, the customer, this gateway or a load balancer, places it once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from services.chassis.app import (
    Context,
    deadline_of,
    json_response,
    read_json_body,
    single_header,
)
from services.chassis.config import load
from services.chassis.errors import BadRequest
from services.chassis.machine import Machine
from services.chassis.service import Service, run_process
from services.shop.documents import OrderRequest, name_of, order_id
from services.shop.roles import ROLE_PARSERS, Role, RoleConfig, check_peers, names, rest_of

PREFIX = "GATEWAY_"
ORDERS = "/orders"

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig(RoleConfig):
    """`orders`: the peers that take orders; a load balancer, as a rule."""

    orders: tuple[str, ...]
    retries: int = 2

    def check(self, prefix: str) -> None:
        RoleConfig.check(self, prefix)
        check_peers(self, prefix, "ORDERS", self.orders)


class Gateway(Role):
    """See the module."""

    role = "gateway"

    def __init__(self, config: GatewayConfig, machine: Machine) -> None:
        super().__init__(config, machine)
        self._orders = config.orders
        self.app.add("POST", ORDERS, self.place)
        self.app.add("GET", f"{ORDERS}/", self.show)

    async def place(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Place an order."""
        deadline = deadline_of(request, context)
        key = _idempotency_key(single_header(request, "Idempotency-Key"))
        asked: OrderRequest = await read_json_body(request, OrderRequest, deadline=deadline)
        # Without a key it is an order of its own, each time; our own retries are still the same.
        order = order_id(asked.customer, key) if key else f"{self.random.getrandbits(96):024x}"
        context.fields["order"] = order
        answer = await self.ask(
            self._orders,
            "PUT",
            f"{ORDERS}/{order}",
            context=context,
            deadline=deadline,
            body=asked,
        )
        return json_response(answer.document, answer.status)

    async def show(self, request: web.BaseRequest, context: Context) -> web.Response:
        """An order that was placed."""
        order = name_of(rest_of(context, f"{ORDERS}/"), "an order's id")
        answer = await self.ask(
            self._orders,
            "GET",
            f"{ORDERS}/{order}",
            context=context,
            deadline=deadline_of(request, context),
        )
        return json_response(answer.document, answer.status)


def _idempotency_key(header: str | None) -> str | None:
    if header is not None and not _IDEMPOTENCY_KEY.fullmatch(header):
        raise BadRequest("Idempotency-Key has 1 to 128 visible ASCII characters")
    return header


def make(environ: Mapping[str, str], machine: Machine) -> Service:
    """A gateway, not yet started. Raises ConfigError."""
    parsers = {**ROLE_PARSERS, "orders": names}
    return Gateway(load(GatewayConfig, environ, PREFIX, parsers), machine)


def main(environ: Mapping[str, str]) -> int:
    """The gateway as a process of its own."""
    return run_process(make, environ)


if __name__ == "__main__":
    sys.exit(main(os.environ))
