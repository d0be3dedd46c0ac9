"""What a consumer needs to know: CONSUMER_* in the environment, and where the members are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.chassis.config import (
    Address,
    ConfigError,
    Invalid,
    Parser,
    ServiceConfig,
    choice,
    integer,
    load,
    parse_address,
    switch,
)
from services.protocols.delivery import GUARANTEES, Guarantee

PREFIX = "CONSUMER_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig(ServiceConfig):
    """`sink`: where effects go; "none" makes it a producer only.

    `peers` are the nodes of the store (`sink` "store"). `broker_address` and `redis_address` are
    MEMBER_<BROKER> and MEMBER_REDIS unless given.
    """

    broker: str = "kafka"
    broker_address: Address | None = None
    redis_address: Address | None = None
    sink: str = "redis"
    guarantee: Guarantee = "effectively_once"
    topic: str = "messages"
    results: str = "results"  # the topic that `sink` "topic" writes to
    group: str = "workers"
    namespace: str = ""  # what the sink's keys begin with; default: the group's name
    partitions: int = 4
    publish: str = "direct"
    binding: str = "#"  # which keys this group wants, as a RabbitMQ topic pattern
    ordered: bool = True  # RabbitMQ: one consumer of the queue is active at a time
    idempotent: bool = False  # Kafka's idempotent producer; the embedded broker has none
    in_flight: int = 1_000
    batch: int = 100
    attempts: int = 5
    backoff_ms: int = 50
    backoff_max_ms: int = 2_000
    commit_interval_ms: int = 100
    session_timeout_ms: int = 6_000
    request_timeout_ms: int = 2_000
    service_time_ms: int = 0  # of work for a record, `concurrency` of them at a time
    concurrency: int = 16

    def check(self, prefix: str) -> None:
        # Not super(): a dataclass with slots is another class than the one this was defined in.
        ServiceConfig.check(self, prefix)
        if self.guarantee == "transactional" and (self.broker, self.sink) != ("kafka", "topic"):
            raise ConfigError(
                f"{prefix}GUARANTEE=transactional: allowed only with {prefix}BROKER=kafka and "
                f"{prefix}SINK=topic: a transaction spans Kafka's own topics and nothing else"
            )
        if self.sink == "topic" and self.broker != "kafka":
            raise ConfigError(f"{prefix}SINK=topic: allowed only with {prefix}BROKER=kafka")
        if self.sink == "store" and not self.peers:
            raise ConfigError(f"{prefix}SINK=store: the store's nodes are missing: {prefix}PEERS")
        if self.sink == "topic" and self.guarantee == "effectively_once":
            raise ConfigError(
                f"{prefix}GUARANTEE=effectively_once: a topic knows no ids; with {prefix}SINK=topic"
                " say transactional"
            )
        if self.broker_address is None:
            raise ConfigError(
                f"{prefix}BROKER_ADDRESS is missing, and so is MEMBER_{self.broker.upper()}"
            )
        if self.redis_address is None and (self.sink == "redis" or self.publish != "direct"):
            raise ConfigError(f"{prefix}REDIS_ADDRESS is missing, and so is MEMBER_REDIS")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Invalid("a name such as orders: A-Z, a-z, 0-9, '.', '_' and '-', at most 100")
    return text


def _binding(text: str) -> str:
    if not re.fullmatch(r"(#|\*|[^.#*\s]+)(\.(#|\*|[^.#*\s]+))*", text) or len(text) > 200:
        raise Invalid("words joined by dots; '*' stands for one word, '#' for any number of them")
    return text


PARSERS: dict[str, Parser] = {
    "broker": choice("kafka", "rabbitmq"),
    "broker_address": parse_address,
    "redis_address": parse_address,
    "sink": choice("none", "redis", "store", "topic"),
    "guarantee": choice(*GUARANTEES),
    "topic": _name,
    "results": _name,
    "group": _name,
    "namespace": _name,
    "partitions": integer(1, 64),
    "publish": choice("direct", "outbox", "dual_write"),
    "binding": _binding,
    "ordered": switch,
    "idempotent": switch,
    "in_flight": integer(1, 100_000, "records"),
    "batch": integer(1, 10_000, "records"),
    "attempts": integer(1, 1_000),
    "backoff_ms": integer(1, 60_000, "ms"),
    "backoff_max_ms": integer(1, 600_000, "ms"),
    "commit_interval_ms": integer(0, 60_000, "ms"),
    "session_timeout_ms": integer(500, 300_000, "ms"),
    "request_timeout_ms": integer(100, 60_000, "ms"),
    "service_time_ms": integer(0, 60_000, "ms"),
    "concurrency": integer(1, 1_000, "records"),
}


def load_consumer(environ: Mapping[str, str]) -> ConsumerConfig:
    """The checked configuration. Raises ConfigError with one line for a human."""
    given = dict(environ)
    broker = given.get(PREFIX + "BROKER", "kafka")
    for key, member in (("BROKER_ADDRESS", broker.upper()), ("REDIS_ADDRESS", "REDIS")):
        address = environ.get(f"MEMBER_{member}")
        if address is not None:
            given.setdefault(PREFIX + key, address)
    return load(ConsumerConfig, given, PREFIX, PARSERS)
