"""A consumer, a producer, or both in one process: the HTTP face and what runs behind it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
import tenacity
from aiohttp import web

from services.chassis.app import (
    Context,
    deadline_of,
    json_response,
    read_json_body,
    single_header,
)
from services.chassis.errors import BadRequest, DeadlineExceeded, TooLarge, Unavailable
from services.chassis.machine import Machine
from services.chassis.service import GRACE_S, Service
from services.chassis.telemetry import parse_traceparent
from services.consumer.broker import BrokerDown, Publisher, Source
from services.consumer.config import ConsumerConfig
from services.consumer.effects import Effects, RedisEffects, StoreEffects
from services.consumer.kafka import KafkaPublisher, KafkaSource
from services.consumer.messages import (
    KEY_MAX,
    SENT_AT,
    TRACEPARENT,
    VALUE_BYTES_MAX,
    Message,
    encode,
    header,
    valid_key,
)
from services.consumer.metrics import ConsumerCollector, Latencies
from services.consumer.outbox import Outbox
from services.consumer.rabbitmq import RabbitPublisher, RabbitSource
from services.consumer.topic_effects import TopicEffects, TransactionalEffects
from services.consumer.worker import Worker
from services.protocols.delivery import Outcome, Record

ID_MAX = 128
LAG_EVERY_S = 0.5


class MessageBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /messages`."""

    value: Any
    key: str | None = None


class ConsumerService(Service):
    """See the module. To be made inside a running event loop."""

    def __init__(self, config: ConsumerConfig, machine: Machine | None = None) -> None:
        super().__init__(config, machine)
        self.config = config
        self.latencies = Latencies()
        self.publisher = make_publisher(config)
        self.worker: Worker | None = None
        if config.sink != "none":
            self.worker = Worker(
                config, make_source(config), make_effects(config), self.clock, self.log, self._tell
            )
        self.outbox: Outbox | None = None
        if config.publish != "direct":
            self.outbox = Outbox(config, self.publisher, self.log)
        self._lag: dict[str, int] = {}
        self._sent: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self.app.add("POST", "/messages", self.send)
        self.metrics.registry.register(ConsumerCollector(self.details, self.latencies))

    # ------------------------------------------------------------------ life

    async def begin(self) -> None:
        self._start(self._connect_publisher())
        if self.worker is not None:
            self._start(self.worker.run())
            self._start(self._watch_lag(self.worker))
        if self.config.publish == "outbox" and self.outbox is not None:
            self._start(self.outbox.run())

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def end(self) -> None:
        if self.worker is not None:
            # First of all what is under way, while everything it needs still runs.
            await self.worker.stop(GRACE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.publisher.stop()
        if self.outbox is not None:
            await self.outbox.stop()

    async def _connect_publisher(self) -> None:
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(BrokerDown),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
        )
        await attempts(self.publisher.start)

    async def _watch_lag(self, worker: Worker) -> None:
        while True:
            with suppress(Exception):  # a broker that is away now has no lag to tell
                self._lag = await worker.source.lag()
            await asyncio.sleep(LAG_EVERY_S)

    # ------------------------------------------------------------------ producing

    async def send(self, request: web.BaseRequest, context: Context) -> web.Response:
        """`POST /messages`: 201 once the broker has confirmed, 202 once it is in the outbox."""
        if context.query:
            raise BadRequest(f"no query parameters are taken: {context.query[:100]!r}")
        deadline = deadline_of(request, context)
        name = single_header(request, "Idempotency-Key")
        if name is not None and not (1 <= len(name) <= ID_MAX and name.isascii()
                                     and name.isprintable() and " " not in name):  # fmt: skip
            raise BadRequest(f"Idempotency-Key has 1 to {ID_MAX} visible ASCII characters")
        body: MessageBody = await read_json_body(request, MessageBody, deadline=deadline)
        message = self._message(body, name, context)
        context.fields["message"] = message.id
        try:
            async with asyncio.timeout_at(deadline):
                return await self._accept(message)
        except TimeoutError:
            raise DeadlineExceeded("the message was not confirmed in time") from None

    def _message(self, body: MessageBody, name: str | None, context: Context) -> Message:
        if body.key is not None and not valid_key(body.key):
            raise BadRequest(
                f"a key is 1 to {KEY_MAX} letters, digits, '_', ':' and '-', with dots between "
                "words"
            )
        value = encode(body.value)
        if len(value) > VALUE_BYTES_MAX:
            raise TooLarge(f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
        headers = ((TRACEPARENT, context.traceparent), (SENT_AT, f"{self.clock.wall():.6f}"))
        name = name or f"{self.machine.random.getrandbits(96):024x}"
        return Message(name, body.key, value, headers)

    async def _accept(self, message: Message) -> web.Response:
        if self.outbox is not None:
            outbox = self.config.publish == "outbox"
            new = await self.outbox.order(message, outbox=outbox)
            if outbox:
                self._sent["outbox" if new else "repeated"] += 1
                return json_response({"id": message.id, "outbox": True}, status=202)
        if not self.publisher.connected and self.config.broker == "kafka":
            raise Unavailable("the broker is not connected yet")
        receipt = await self.publisher.publish(message)
        self._sent["sent"] += 1
        return json_response({"id": message.id, **receipt._asdict()}, status=201)

    # ------------------------------------------------------------------ consuming

    def _tell(self, record: Record, outcome: Outcome, now: float) -> None:
        sent_at = header(record.headers, SENT_AT)
        latency_s = None
        if sent_at is not None and outcome == "applied":
            with suppress(ValueError):
                latency_s = self.clock.wall() - float(sent_at)
                self.latencies.add(latency_s)
        if self.telemetry.enabled:
            parent = parse_traceparent(header(record.headers, TRACEPARENT))
            self.telemetry.emit(
                {
                    "event": "consume",
                    "kind": "span",
                    "trace_id": parent.trace_id if parent else self.telemetry.new_trace_id(),
                    "span_id": self.telemetry.new_span_id(),
                    "parent_span_id": parent.span_id if parent else None,
                    "request_id": record.id,
                    "peer": record.partition,
                    "offset": record.offset,
                    "key": record.key,
                    "outcome": "ok" if outcome == "applied" else outcome,
                    "duration_us": round((latency_s or 0.0) * 1e6),
                }
            )

    # ------------------------------------------------------------------ health

    def not_ready(self) -> str | None:
        if self.worker is not None and not self.worker.joined:
            return f"{self.config.broker} is not joined yet"
        if not self.publisher.connected and self.config.broker == "kafka":
            return "the publisher is not connected yet"
        return None

    def story(self) -> dict[str, Any]:
        config = self.config
        return {"broker": config.broker, "sink": config.sink, "guarantee": config.guarantee}

    def details(self) -> dict[str, Any]:
        counts: Counter[str] = Counter(self._sent)
        if self.outbox is not None:
            counts["relayed"] = self.outbox.relayed
        found: dict[str, Any] = {
            "role": "producer" if self.worker is None else "consumer",
            **self.story(),
            "joined": self.publisher.connected if self.worker is None else self.worker.joined,
            "partitions": [],
            "in_flight": 0,
            "outbox": self.outbox.waiting if self.outbox and self.config.publish == "outbox" else 0,
            "paused": False,
            "lag": self._lag,
        }
        if self.worker is not None:
            core = self.worker.core
            counts += core.counts + self.worker.counts
            found |= {
                "partitions": sorted(core.partitions),
                "in_flight": core.in_flight,
                "paused": core.paused,
            }
        return {**found, "counts": dict(counts)}


def make_publisher(config: ConsumerConfig) -> Publisher:
    """The producing side of the broker."""
    if config.broker == "kafka":
        return KafkaPublisher(config, config.topic)
    return RabbitPublisher(config)


def make_source(config: ConsumerConfig) -> Source:
    """The consuming side of the broker."""
    if config.broker == "kafka":
        return KafkaSource(config, KafkaPublisher(config, config.topic))
    return RabbitSource(config)


def make_effects(config: ConsumerConfig) -> Effects:
    """Where messages take effect."""
    if config.sink == "redis":
        return RedisEffects(config)
    if config.sink == "store":
        return StoreEffects(config)
    return (TransactionalEffects if config.guarantee == "transactional" else TopicEffects)(config)
