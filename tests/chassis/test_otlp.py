"""Spans to a collector: real OTLP, decoded by its own protobuf classes; and no collector at all."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.trace.v1 import trace_pb2

from services.chassis import otlp
from services.chassis.app import Context, json_response
from services.chassis.config import Address, ConfigError, ServiceConfig, load
from services.chassis.errors import NotFound
from services.chassis.machine import Machine
from services.chassis.service import Service
from tests.chassis.fakes import until
from tests.chassis.otlp import Collector, a_collector

ROOT = Path(__file__).resolve().parents[2]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVER, CLIENT = trace_pb2.Span.SPAN_KIND_SERVER, trace_pb2.Span.SPAN_KIND_CLIENT
UNSET, ERROR = trace_pb2.Status.STATUS_CODE_UNSET, trace_pb2.Status.STATUS_CODE_ERROR


class Shop(Service):
    async def order(self, _: web.BaseRequest, context: Context) -> web.Response:
        context.fields |= {"item": "<book>", "parts": [1, 2], "price": 3.5}
        return json_response({})

    async def missing(self, _: web.BaseRequest, __: Context) -> web.Response:
        raise NotFound("no such thing")

    async def bug(self, _: web.BaseRequest, __: Context) -> web.Response:
        raise RuntimeError("boom")


@asynccontextmanager
async def a_shop(url: str, events: Path | None = None) -> AsyncIterator[Any]:
    """A running service whose spans go to `url`; `ask(method, path)` asks it."""
    config = ServiceConfig(
        node="s1", listen=Address("127.0.0.1", 0), telemetry=events, otlp=url, service="shop"
    )
    shop = Shop(config, replace(Machine(), output=io.StringIO()))
    shop.app.add("POST", "/orders", shop.order)
    shop.app.add("GET", "/missing", shop.missing)
    shop.app.add("GET", "/bug", shop.bug)
    await shop.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{shop.app.port}") as session:

        async def ask(method: str, path: str) -> str:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "r-1"}
            async with session.request(method, path, headers=headers) as response:
                return await response.text()

        shop.ask = ask  # type: ignore[attr-defined]
        try:
            yield shop
        finally:
            await shop.stop()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with a_collector() as running:
        yield running


async def test_the_collector_gets_what_the_events_file_has(
    collector: Collector, tmp_path: Path
) -> None:
    """Same ids, same parents, same times; whose they are; attributes under names viewers know."""
    events = tmp_path / "events.jsonl"
    async with a_shop(collector.url, events) as shop:
        await shop.ask("POST", "/orders?x=1")
        await shop.ask("GET", "/missing")
        await shop.ask("GET", "/bug")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    told = [event for event in told if event.get("kind") == "span"]

    assert len(collector.spans) == len(told) == 3
    for span, event in zip(collector.spans, told, strict=True):
        ids = (span.trace_id, span.span_id, span.parent_span_id)
        assert ids == (event["trace_id"], event["span_id"], event["parent_span_id"])
        assert ids[0] == TRACE
        assert ids[2] == PARENT
        assert span.end_ns == pytest.approx(event["time"] * 1e9, abs=1000)
        assert span.end_ns - span.start_ns == event["duration_us"] * 1000
        assert span.resource == {
            "service.namespace": "faultline",
            "service.name": "shop",
            "service.instance.id": "s1",
        }
        assert span.kind == SERVER
        assert span.attributes["request_id"] == "r-1"
    order, missing, bug = collector.spans
    assert order.name == "POST /orders"
    assert order.attributes["http.request.method"] == "POST"
    assert order.attributes["url.path"] == "/orders"
    assert order.attributes["http.response.status_code"] == 200
    assert order.attributes["item"] == "<book>"
    assert order.attributes["parts"] == "[1, 2]"
    assert order.attributes["price"] == 3.5
    assert [span.status for span in collector.spans] == [UNSET, UNSET, ERROR]
    assert missing.attributes["outcome"] == "key-not-found"
    assert bug.attributes["http.response.status_code"] == 500


async def test_without_a_file_spans_go_out_all_the_same(collector: Collector) -> None:
    """And while it runs, in batches, not only when it stops; counted in `/metrics`."""
    async with a_shop(collector.url) as shop:
        for _ in range(20):
            await shop.ask("POST", "/orders")
        await until(lambda: len(collector.spans) >= 20, within_s=10.0)
        assert len(collector.batches) < 20, "one request for many spans"
        # Counted once the answer is there, in the thread that sends.
        sent = 'otlp_spans_total{outcome="sent"} 20.0'
        async with asyncio.timeout(10):
            while sent not in await shop.ask("GET", "/metrics"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_slow_collector_costs_spans_and_no_request(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is bounded; what finds it full is dropped, counted, and told once."""
    monkeypatch.setattr(otlp, "QUEUED_MAX", 40)
    monkeypatch.setattr(otlp, "BATCH_MAX", 20)
    collector.open.clear()
    async with a_shop(collector.url) as shop:
        for _ in range(100):
            await shop.ask("POST", "/orders")
        said = await shop.ask("GET", "/metrics")
        dropped = int(float(_value(said, 'otlp_spans_total{outcome="dropped"}')))
        assert dropped >= 60
        assert 'otlp_spans_total{outcome="sent"} 0.0' in said
        slowest = [line for line in said.splitlines() if 'duration_seconds_bucket{le="0.1"' in line]
        # One after another: a stall of the machine makes one late, to wait for spans all.
        assert float(slowest[0].split()[-1]) >= 90, "orders are answered within 0.1 s"
        collector.open.set()
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    lines = shop.machine.output.getvalue().splitlines()
    assert sum("spans are being lost" in line for line in lines) == 1
    assert all(isinstance(json.loads(line), dict) for line in lines), "no line of a library"


async def test_a_collector_that_is_gone_does_not_hold_up_the_stop(collector: Collector) -> None:
    """Nobody listens: the node serves, stops within bounds, and says what it lost."""
    url = "http://127.0.0.1:9"  # discard: nobody there
    async with a_shop(url) as shop:
        for _ in range(5):
            await shop.ask("POST", "/orders")
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    assert "spans are being lost" in shop.machine.output.getvalue()
    assert not collector.spans


async def test_what_is_queued_is_sent_at_the_stop(collector: Collector) -> None:
    """A span of the last millisecond is not lost."""
    async with a_shop(collector.url) as shop:
        await asyncio.gather(*(shop.ask("POST", "/orders") for _ in range(7)))
    assert len(collector.spans) == 7


def test_a_call_is_a_clients_span() -> None:
    """OpenTelemetry, HTTP spans: a 4xx is an error of who called, not of who answered."""
    event = {
        "event": "call", "kind": "span", "trace_id": TRACE, "span_id": PARENT, "peer": "s2",
        "parent_span_id": None, "method": "GET", "path": "/x/y?z", "status": 404,
        "outcome": "not-found", "duration_us": 5, "time": 1.0, "long": "x" * 999,
    }  # fmt: skip
    resource = otlp.Resource({})
    span = otlp.span_of(event, resource, otlp.InstrumentationScope("x"))

    assert (span.kind, span.name, span.parent) == (otlp.SpanKind.CLIENT, "GET /x", None)
    assert span.status.status_code is otlp.StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["network.peer.name"] == "s2"
    assert len(str(span.attributes["long"])) == 256


def test_it_costs_nothing_when_off() -> None:
    """No collector named: OpenTelemetry is not even imported."""
    program = (
        "import sys, asyncio, services.kv, services.chassis.service as s\n"
        "from services.chassis.config import Address, ServiceConfig\n"
        "async def main():\n"
        "    made = s.Service(ServiceConfig(node='n1', listen=Address('127.0.0.1', 0)))\n"
        "    await made.start()\n"
        "    await made.stop()\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "value",
    ["127.0.0.1:4318", "ftp://h:1", "http://h", "http://h:0", "http://u@h:1", "http://h:1/a b"],
)
def test_a_collector_that_is_none(value: str) -> None:
    """The line names the key, the value and what is allowed."""
    environ = {"SHOP_NODE": "s1", "SHOP_LISTEN": "127.0.0.1:0", "SHOP_OTLP": value}
    with pytest.raises(ConfigError, match=r"SHOP_OTLP=.*allowed is http://host:port"):
        load(ServiceConfig, environ, "SHOP_", {})


def test_the_service_is_named_by_its_prefix() -> None:
    """`LOAD_BALANCER_…` is service.name load-balancer; it is no setting of its own."""
    environ = {"LOAD_BALANCER_NODE": "b1", "LOAD_BALANCER_LISTEN": "127.0.0.1:0"}
    good = {**environ, "LOAD_BALANCER_OTLP": "http://127.0.0.1:4318/"}
    made = load(ServiceConfig, good, "LOAD_BALANCER_", {})
    assert (made.service, made.otlp) == ("load-balancer", "http://127.0.0.1:4318/")
    with pytest.raises(ConfigError, match="there is no such key"):
        load(ServiceConfig, {**environ, "LOAD_BALANCER_SERVICE": "x"}, "LOAD_BALANCER_", {})


def _value(metrics: str, series: str) -> str:
    return next(line.rpartition(" ")[2] for line in metrics.splitlines() if series in line)
