"""The shop over real HTTP: orders, retries, the trace through all of it, and bad input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import strategies as st

from services.chassis.config import ConfigError
from services.chassis.errors import DeadlineExceeded, Unavailable
from services.chassis.machine import Machine
from services.shop import gateway, orders
from services.shop.client import ShopClient
from services.shop.errors import NoSuchOrder, NoSuchProduct, OrderReused, OutOfStock
from tests.services.faces import VALUES, anything, ask, fuzz, standing
from tests.services.shop import Shop, shop

TRACE, CALLER = "ab" * 16, "cd" * 8
HEADERS = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "request-1"}


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[tuple[Shop, ShopClient]]:
    async with shop(tmp_path) as (made, client):
        await client.restock(made.address["inventory"], "book", 5)
        yield made, client


async def test_an_order_takes_its_share_and_can_be_shown(opened: tuple[Shop, ShopClient]) -> None:
    """Gateway, orders, inventory and store: each has done its part."""
    made, client = opened
    placed = await client.order("ann", "book", 2)

    assert not placed.again
    assert await client.show(placed.order) == {
        "id": placed.order, "customer": "ann", "product": "book", "quantity": 2, "status": "placed",
    }  # fmt: skip
    assert await client.available(made.address["inventory"], "book") == 3


async def test_a_retry_by_the_same_key_orders_once(opened: tuple[Shop, ShopClient]) -> None:
    """Also ten at the same time; another order by that key is refused, and takes nothing."""
    made, client = opened
    tries = [client.order("ann", "book", idempotency_key="k") for _ in range(10)]
    placed = await asyncio.gather(*tries)

    assert len({each.order for each in placed}) == 1
    assert await client.available(made.address["inventory"], "book") == 4
    with pytest.raises(OrderReused):
        await client.order("ann", "book", 2, idempotency_key="k")
    assert await client.available(made.address["inventory"], "book") == 4
    assert (await client.order("bob", "book", idempotency_key="k")).order != placed[0].order


async def test_many_at_once_sell_exactly_what_is_there(opened: tuple[Shop, ShopClient]) -> None:
    """Twelve want one of five: five get it, seven are told that nothing is left."""
    made, client = opened
    ends = await asyncio.gather(
        *(client.order("ann", "book") for _ in range(12)), return_exceptions=True
    )

    sold = [end for end in ends if not isinstance(end, BaseException)]
    assert len(sold) == 5
    refused = [end for end in ends if isinstance(end, BaseException)]
    assert all(isinstance(end, OutOfStock) and end.definite for end in refused), refused
    assert await client.available(made.address["inventory"], "book") == 0


async def test_what_nobody_knows_is_not_there(opened: tuple[Shop, ShopClient]) -> None:
    """Problems keep their type on the way through three services."""
    _, client = opened
    with pytest.raises(NoSuchProduct):
        await client.order("ann", "unicorn")
    with pytest.raises(NoSuchOrder):
        await client.show("nothing")


async def test_one_trace_through_all_services(opened: tuple[Shop, ShopClient]) -> None:
    """Each outgoing call is a span below its request, each request one below its call; every line
    carries the caller's request id."""
    made, client = opened
    await client.order("ann", "book", headers=HEADERS)
    spans = [event | {"at": name} for name in ("gateway", "orders", "inventory", "n1")
             for event in made.events(name) if event.get("trace_id") == TRACE]  # fmt: skip

    [placed] = [span for span in spans if span["event"] == "call" and span["peer"] == "orders"]
    assert placed["status"] == 201, "a call tells what was answered"
    by_id = {span["span_id"]: span for span in spans}
    assert {span["request_id"] for span in spans} == {"request-1"}
    way = []
    for span in spans:
        parent = by_id.get(span["parent_span_id"])
        if parent is None:
            assert span["parent_span_id"] == CALLER, span
        way.append(
            (parent and f"{parent['at']} {parent['event']}", f"{span['at']} {span['event']}")
        )
    assert sorted(way, key=str) == sorted(
        [
            (None, "gateway request"),
            ("gateway request", "gateway call"),
            ("gateway call", "orders request"),
            ("orders request", "orders call"),
            ("orders call", "inventory request"),
            *[("inventory request", "inventory call"), ("inventory call", "n1 request")] * 4,
            ("orders request", "orders call"),
            ("orders call", "n1 request"),
        ],
        key=str,
    )


async def test_a_service_that_drops_the_context_breaks_the_trace(tmp_path: Path) -> None:
    """What is behind it begins traces and request ids of its own: nothing leads there."""
    async with shop(tmp_path, orders={"propagation": "off"}) as (made, client):
        await client.restock(made.address["inventory"], "book", 5)
        await client.order("ann", "book", headers=HEADERS)

        for name, told in (("gateway", 2), ("orders", 3), ("inventory", 0), ("n1", 0)):
            mine = [event for event in made.events(name) if event.get("trace_id") == TRACE]
            assert len(mine) == told, name
            assert len([e for e in made.events(name) if e.get("request_id") == "request-1"]) == told


async def test_what_is_not_sampled_is_served_and_leaves_no_event(
    opened: tuple[Shop, ShopClient],
) -> None:
    """Head sampling: the root's decision (W3C trace-flags, bit 0) goes all the way down."""
    made, client = opened
    unsampled = {**HEADERS, "traceparent": f"00-{TRACE}-{CALLER}-00"}
    await client.order("ann", "book", headers=unsampled)

    assert await client.available(made.address["inventory"], "book") == 4
    for name in ("gateway", "orders", "inventory", "n1"):
        told = [e for e in made.events(name) if e.get("request_id") == "request-1"]
        assert told == [], name


async def test_only_the_outermost_tries_again(opened: tuple[Shop, ShopClient]) -> None:
    """Retries multiply along a chain: the gateway makes three attempts, who is behind it one."""
    made, client = opened
    await made.roles["inventory"].stop()
    with pytest.raises(Unavailable) as caught:
        await client.order("ann", "book", headers=HEADERS)

    assert caught.value.definite, "nobody could be connected to, so nothing happened"
    for name, peer in (("gateway", "orders"), ("orders", "inventory")):
        calls = [e for e in made.events(name) if e["event"] == "call" and e["peer"] == peer]
        assert [call["outcome"] for call in calls] == ["unavailable"] * 3, name


async def test_an_answer_that_does_not_come_is_indefinite(tmp_path: Path) -> None:
    """The deadline is passed on, reduced: whoever is behind gives up first, and says so."""
    heard: list[bytes] = []

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(1 << 20)  # until the caller hangs up
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with shop(tmp_path) as (made, client), server:
        made.address["mute"] = f"127.0.0.1:{port}"
        await made.start("deaf", orders.make, orders.PREFIX, store="n1", inventory="mute")
        made.address["orders"] = made.address["deaf"]
        await made.start("front", gateway.make, gateway.PREFIX, orders="orders")
        client.address = made.address["front"]
        with pytest.raises(DeadlineExceeded):
            await client.order("ann", "book", deadline_ms=1_500)
        await made.roles["front"].stop()
        await made.roles["deaf"].stop()

    deadlines = [int(line.split(b":")[1]) for line in heard[0].split(b"\r\n")
                 if line.lower().startswith(b"x-deadline-ms")]  # fmt: skip
    assert len(deadlines) == 1
    assert 0 < deadlines[0] < 1_500


ORDERS = st.fixed_dictionaries(
    {"customer": st.text(max_size=70), "product": st.text(max_size=70)},
    optional={"quantity": VALUES, "available": VALUES},
)
PATHS = ("/orders", "/orders/a", "/reservations/a", "/stock/book", "/orders/%00", "/stock/")


def test_fuzzing_finds_no_5xx(tmp_path: Path) -> None:
    """Whatever is sent to any face: no 5xx, and every refusal is a problem document."""
    with standing(shop(tmp_path)) as (runner, (made, _)):
        session = made.store.session
        for name in ("gateway", "orders", "inventory"):
            fuzz(
                runner,
                partial(ask, session, made.address[name]),
                anything(st.sampled_from(PATHS), ORDERS, ["Idempotency-Key"]),
                examples=100,
            )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("GATEWAY_ORDERS", "nobody", "is not among GATEWAY_PEERS"),
        ("GATEWAY_ORDERS", "a,a", "each once"),
        ("GATEWAY_RETRIES", "99", "from 0 to 10"),
        ("GATEWAY_ORDER", "orders", "the nearest is GATEWAY_ORDERS"),
    ],
)
def test_a_wrong_setting_is_one_line(key: str, value: str, words: str) -> None:
    """Key, value and what is allowed, before anything starts."""
    environ = {
        "GATEWAY_NODE": "gateway",
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_PEERS": "orders=127.0.0.1:1",
        "GATEWAY_ORDERS": "orders",
    }
    with pytest.raises(ConfigError, match=words) as caught:
        gateway.make({**environ, key: value}, Machine())
    assert "\n" not in str(caught.value)
