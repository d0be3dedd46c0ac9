"""Spans to any collector: wide events as OTLP over HTTP, by OpenTelemetry's own exporter.

    KV_OTLP=http://127.0.0.1:4318       (Jaeger, an OpenTelemetry collector …)

What a request waits for is an append to a queue (1 µs): spans are made of events, encoded and sent
in the batch processor's thread. That takes 40 µs of CPU a span, most of it in OpenTelemetry's
encoder: half as much again as a read costs with the events file alone (measured: 80 µs, 120 µs).

The queue is bounded; what finds it full is dropped and counted, for a collector that is slow or
gone must cost spans, never a request. A batch that could not be sent is not kept either: counted as
well. OpenTelemetry is imported when a collector is named, not before.

Ids, parents and times are those of the events file, so that either finds the other.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, Metric

PATH = "/v1/traces"
QUEUED_MAX = 2_048
BATCH_MAX = 512
EVERY_MS = 500
SENT_WITHIN_S = 2.0
CLOSED_WITHIN_S = 0.7  # of the second that a testbed gives a node to end
TEXT_MAX = 256

_KINDS = {"request": SpanKind.SERVER, "call": SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
# Of HTTP the names that viewers know: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
_NAMES = {
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "peer": "network.peer.name",
}
_TOLD_OTHERWISE = {
    *("trace_id", "span_id", "parent_span_id", "kind", "time", "monotonic_ns", "node"),
    *("duration_us",),
}


class SpanExport:
    """Sends the spans of one process to the collector at `url` ("http://host:port").

    `service`, `instance`: whose they are ("kv", "n1"). `log`: is told once that spans are lost.
    """

    def __init__(self, url: str, service: str, instance: str, log: Any) -> None:
        # Its own lines are no JSON, and there is one for each batch that fails.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._log = log
        self._told = False
        # Each counter is written by one thread alone: the first two here, the others there.
        self._accepted = 0
        self._refused = 0
        self.sent = 0
        self._failed = 0
        self._url = url.rstrip("/") + PATH
        resource = Resource(
            {"service.namespace": "faultline", "service.name": service,
             "service.instance.id": instance}
        )  # fmt: skip
        self._exporter = _EventExporter(self, self._url, resource)
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=QUEUED_MAX,
            max_export_batch_size=BATCH_MAX,
            schedule_delay_millis=EVERY_MS,
        )

    @property
    def dropped(self) -> int:
        """Spans that no collector got."""
        return self._refused + self._failed

    def add(self, event: Mapping[str, Any]) -> None:
        """Have the span of a wide event (kind "span") sent; returns at once, whatever is there."""
        # The processor's queue would throw the oldest away and count nothing.
        if self._accepted - self.sent - self._failed >= QUEUED_MAX:
            self._refused += 1
            self._tell("the collector takes them too slowly")
            return
        self._accepted += 1
        self._processor.on_end(_Ended(event))

    async def close(self, within_s: float = CLOSED_WITHIN_S) -> None:
        """Send what is queued; what could not be sent within `within_s` is dropped."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(closed.set)

        # Not in the loop's executor, which the end of the loop would wait for: a collector that is
        # gone holds the processor up for as long as there are retries.
        threading.Thread(target=shut_down, daemon=True).start()
        try:
            async with asyncio.timeout(within_s):
                await closed.wait()
        except TimeoutError:
            self._exporter.give_up()
        if left := self._accepted - self.sent - self._failed:
            self._refused += left
            self._tell("the node stopped before they were taken")

    def collect(self) -> Iterable[Metric]:
        """For a Prometheus registry."""
        family = CounterMetricFamily("otlp_spans", "Spans for the collector", labels=["outcome"])
        family.add_metric(["sent"], self.sent)
        family.add_metric(["dropped"], self.dropped)
        yield family

    def describe(self) -> Iterable[Metric]:
        return []

    def register(self, registry: CollectorRegistry) -> None:
        """Show the counters in `/metrics`."""
        registry.register(self)

    def done(self, spans: int, *, sent: bool) -> None:
        """A batch was sent, or was not (called in the processor's thread)."""
        if sent:
            self.sent += spans
        else:
            self._failed += spans
            self._tell("the collector did not take them")

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._log.warning("spans are being lost", collector=self._url, reason=why)


class _Ended(ReadableSpan):
    """An event in the processor's queue; a span is made of it when it leaves, in another thread."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        self.event = event

    @property
    def context(self) -> SpanContext:
        return _ANY


_ANY = SpanContext(1, 1, is_remote=False, trace_flags=_SAMPLED)


class _EventExporter(SpanExporter):
    def __init__(self, export: SpanExport, url: str, resource: Resource) -> None:
        self._export = export
        self._resource = resource
        self._scope = InstrumentationScope("services.chassis")
        self._otlp = OTLPSpanExporter(endpoint=url, timeout=SENT_WITHIN_S)
        self._gave_up = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        made = [
            span_of(span.event, self._resource, self._scope)
            for span in spans
            if isinstance(span, _Ended)
        ]
        failed = self._gave_up or self._otlp.export(made) is not SpanExportResult.SUCCESS
        self._export.done(len(spans), sent=not failed)
        return SpanExportResult.FAILURE if failed else SpanExportResult.SUCCESS

    def give_up(self) -> None:
        """Wait for no retry any more, send no further batch."""
        self._gave_up = True
        self.shutdown()

    def shutdown(self) -> None:
        self._otlp.shutdown()  # type: ignore[no-untyped-call]


def span_of(
    event: Mapping[str, Any], resource: Resource, scope: InstrumentationScope
) -> ReadableSpan:
    """The span that a wide event of kind "span" tells of, with the event's own ids."""
    trace_id = int(event["trace_id"], 16)
    parent = event.get("parent_span_id")
    kind = _KINDS.get(event["event"], SpanKind.INTERNAL)
    end_ns = round(event["time"] * 1e9)
    return ReadableSpan(
        name=_name(event),
        context=SpanContext(trace_id, int(event["span_id"], 16), False, _SAMPLED),
        parent=None
        if parent is None
        else SpanContext(trace_id, int(parent, 16), kind is not SpanKind.INTERNAL, _SAMPLED),
        resource=resource,
        attributes={
            _NAMES.get(name, name): _attribute(value)
            for name, value in event.items()
            if name not in _TOLD_OTHERWISE and value is not None
        },
        kind=kind,
        status=_status(event, kind),
        start_time=end_ns - event.get("duration_us", 0) * 1000,
        end_time=end_ns,
        instrumentation_scope=scope,
    )


def _name(event: Mapping[str, Any]) -> str:
    """Few different ones, as viewers group by it: the method and the first word of the path."""
    if event["event"] not in _KINDS:
        return str(event["event"])
    first = str(event.get("path", "")).split("/")[1:2]
    return f"{event.get('method', '')} /{''.join(first)}"


def _status(event: Mapping[str, Any], kind: SpanKind) -> Status:
    """Of what a caller did wrong (4xx) its own span is an error, and the server's is not."""
    outcome = str(event.get("outcome", "ok"))
    status = event.get("status", 0)
    if outcome == "ok" or (kind is SpanKind.SERVER and 400 <= status < 500):
        return Status(StatusCode.UNSET)
    return Status(StatusCode.ERROR, outcome)


def _attribute(value: Any) -> str | bool | int | float:
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return text[:TEXT_MAX]
