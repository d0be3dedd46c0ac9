"""The documents of the shop: bodies of requests and answers, and what the store keeps.

Every text and number that comes from outside is bounded here; msgspec refuses the rest, and the
face answers 400 with its words.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

import msgspec
from msgspec import Meta

from services.chassis.errors import BadRequest

QUANTITY_MAX = 1_000
AVAILABLE_MAX = 1_000_000_000

# Part of a path and of a key in the store, hence so few letters.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Quantity = Annotated[int, Meta(ge=1, le=QUANTITY_MAX)]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class OrderRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a customer asks for: the body of `POST /orders` and of `PUT /orders/{id}`."""

    customer: Name
    product: Name
    quantity: Quantity = 1


class Order(msgspec.Struct, frozen=True):
    """An order that was taken; the answer, and the document at `order.<id>` in the store."""

    id: str
    customer: str
    product: str
    quantity: int
    status: str = "placed"


class ReservationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /reservations/{order}`."""

    product: Name
    quantity: Quantity


class Restock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /stock/{product}`: so many are on the shelf, whatever was before."""

    available: Annotated[int, Meta(ge=0, le=AVAILABLE_MAX)]


def name_of(raw: str, what: str) -> str:
    """An id or a product's name in a path. Raises BadRequest."""
    if not _NAME.fullmatch(raw):
        raise BadRequest(f"{what} has 1 to 64 letters, digits, '.', '_' or '-', not {raw[:50]!r}")
    return raw


def order_id(customer: str, idempotency_key: str) -> str:
    """The id of the order that this customer calls by this key: the same for every retry.

    So a retry is the same PUT further down, and no table of keys is needed at the gateway, which
    would have to survive it.
    """
    return hashlib.sha256(f"{customer}\0{idempotency_key}".encode()).hexdigest()[:24]
