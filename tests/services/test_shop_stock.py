"""The stock of a product: no order is counted twice, whatever is retried, duplicated or lost."""

from __future__ import annotations

from random import Random

import pytest

from services.chassis.errors import Unavailable
from services.shop.documents import order_id
from services.shop.errors import OrderReused, OutOfStock
from services.shop.stock import RESERVED_MAX, Stock, reserve


def test_a_reservation_takes_its_share() -> None:
    """Both facts in one document: less is available, and this order has its share."""
    assert reserve(Stock(5), "a", 2) == Stock(3, {"a": 2})


def test_a_retry_takes_nothing() -> None:
    """An order that was counted already changes nothing, also when nothing is left for others."""
    assert reserve(Stock(0, {"a": 2}), "a", 2) is None


def test_another_order_of_the_same_id_is_refused() -> None:
    """A retry that asks for something else is none."""
    with pytest.raises(OrderReused):
        reserve(Stock(5, {"a": 2}), "a", 3)


def test_what_is_not_there_is_not_sold() -> None:
    """OutOfStock is definite, and says how much is left."""
    with pytest.raises(OutOfStock) as caught:
        reserve(Stock(1), "a", 2)

    assert caught.value.definite
    assert caught.value.members == {"available": 1}


def test_settled_orders_are_dropped() -> None:
    """The document does not grow for ever; one that nobody settled stays."""
    assert reserve(Stock(5, {"a": 2, "b": 1}), "c", 1, settled={"a"}) == Stock(4, {"b": 1, "c": 1})
    full = Stock(5, {f"o{number}": 1 for number in range(RESERVED_MAX)})
    with pytest.raises(Unavailable):
        reserve(full, "c", 1)
    assert reserve(full, "c", 1, settled={"o0"}) is not None


def test_one_key_of_one_customer_is_one_order() -> None:
    """The same for every retry; another customer's key of the same name is another order."""
    assert order_id("ann", "k") == order_id("ann", "k") != order_id("bob", "k")
    assert order_id("a", "b\0c") != order_id("a\0b", "x")


class Client:
    """One attempt to reserve, a step at a time, as `inventory.py` takes them."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.step = self.read_stock
        self.done = False

    def read_stock(self, world: World) -> None:
        self.stock, self.version = world.stock, world.version
        self.step = self.read_record

    def read_record(self, world: World) -> None:
        if self.order in world.records:
            self.done = True
        self.step = self.write_stock

    def write_stock(self, world: World) -> None:
        after = reserve(self.stock, self.order, 1, world.settled)
        if after is None:
            self.step = self.write_record
        elif world.version == self.version:
            world.stock, world.version = after, self.version + 1
            self.step = self.write_record
        else:
            self.step = self.read_stock  # the condition failed

    def write_record(self, world: World) -> None:
        world.records.add(self.order)
        self.step = self.settle

    def settle(self, world: World) -> None:
        world.settled.add(self.order)
        self.done = True


class World:
    """The store: one document with a version, and the records."""

    def __init__(self) -> None:
        self.stock, self.version = Stock(1_000), 1
        self.records: set[str] = set()
        self.settled: set[str] = set()


@pytest.mark.parametrize("seed", range(300))
def test_no_interleaving_counts_an_order_twice(seed: int) -> None:
    """Attempts of few orders, many of each, interleaved at random; some stop for ever halfway."""
    random = Random(seed)
    world, orders = World(), ["a", "b", "c"]
    clients = [Client(random.choice(orders)) for _ in range(12)]
    started = {client.order for client in clients}
    while running := [client for client in clients if not client.done]:
        client = random.choice(running)
        client.step(world)
        if random.random() < 0.05:
            clients.remove(client)  # it crashed, or its caller gave up
    for order in started:
        last = Client(order)  # the retry that goes through
        while not last.done:
            last.step(world)

    assert 1_000 - world.stock.available == len(started), f"seed {seed}"
    assert world.records == started
