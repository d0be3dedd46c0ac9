"""A collector: receives OTLP over HTTP and decodes it with OpenTelemetry's own protobuf classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Received(NamedTuple):
    """A span as it arrived; ids in hexadecimal, `resource` and `attributes` as dictionaries."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_span_id: str
    start_ns: int
    end_ns: int
    status: int
    resource: dict[str, Any]
    attributes: dict[str, Any]


class Collector:
    """`spans`: all that was received. While `open` is cleared it answers nobody."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.batches: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def receive(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        await self.open.wait()
        message = ExportTraceServiceRequest.FromString(body)
        before = len(self.spans)
        for resource in message.resource_spans:
            owner = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_received(span, owner) for span in scope.spans]
        self.batches.append(len(self.spans) - before)
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code,
        resource,
        _attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@asynccontextmanager
async def a_collector() -> AsyncIterator[Collector]:
    """One that listens, gone with its connections when the scope is left."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.port = runner.addresses[0][1]
    try:
        yield collector
    finally:
        collector.open.set()
        await runner.cleanup()
