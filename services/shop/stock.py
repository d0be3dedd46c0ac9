"""The stock of a product, and what reservations do to it. Pure: no I/O, no clock.

Invariant: every order is counted at most once, whatever is retried, duplicated or lost.

The store changes one key at a time, but a reservation is two facts: less is available, and this
order has its share. So both are in one document: `reserved` holds the orders that were counted.
It must not grow for ever. Once an order's share also stands in a record of its own (written after
the stock, never removed), the order is *settled*, and the next change of the stock drops it.

Why is nothing counted twice? Who reserves reads the stock first, at some version, then the record,
and then writes the stock on condition of that version. If the record was absent and the version
still holds, nobody has counted the order: one that had been counted and dropped before that version
has its record, which was written earlier and would have been seen; one that was counted since has
changed the version. Read them in the other order, and a duplicate that arrives late (its first copy
counted, recorded and dropped between the two reads) would be counted again.
"""

from __future__ import annotations

from collections.abc import Set

import msgspec

from services.chassis.errors import Unavailable
from services.shop.errors import OrderReused, OutOfStock

RESERVED_MAX = 500  # orders in one document: about 20 kB, of 64 that a value may have


class Stock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A product's document in the store. `reserved`: order → quantity, counted, not yet dropped."""

    available: int
    reserved: dict[str, int] = {}


def reserve(
    stock: Stock, order: str, quantity: int, settled: Set[str] = frozenset()
) -> Stock | None:
    """The stock after `order` took `quantity`; None when it had been counted already.

    Orders in `settled` (they have a record) are dropped. Raises OutOfStock, OrderReused (it was
    counted with another quantity), Unavailable (too many orders are counted and not settled).
    """
    assert quantity > 0, quantity
    counted = stock.reserved.get(order)
    if counted is not None:
        if counted != quantity:
            raise OrderReused(f"order {order} has reserved {counted}, not {quantity}")
        return None
    if stock.available < quantity:
        raise OutOfStock(
            f"{quantity} are asked for, {stock.available} are left", available=stock.available
        )
    reserved = {each: share for each, share in stock.reserved.items() if each not in settled}
    if len(reserved) >= RESERVED_MAX:
        raise Unavailable(f"{RESERVED_MAX} orders of this product are not settled yet")
    reserved[order] = quantity
    return Stock(stock.available - quantity, reserved)
