"""What only a shop can answer. All of it definite: nothing was ordered."""

from __future__ import annotations

from services.chassis.errors import BadRequest, Definite


class NoSuchProduct(BadRequest):
    """Nobody has ever put this product on a shelf."""

    slug, status, title = "no-such-product", 404, "no such product"


class NoSuchOrder(BadRequest):
    """There is no order of that id."""

    slug, status, title = "no-such-order", 404, "no such order"


class OutOfStock(Definite):
    """Less is left than was asked for; `available` says how much."""

    slug, status, title = "out-of-stock", 409, "out of stock"


class OrderReused(BadRequest):
    """The id (or the idempotency key behind it) came before with another order."""

    slug, status, title = "order-reused", 422, "the order's id was used before"
