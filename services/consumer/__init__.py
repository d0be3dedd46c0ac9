"""A queue consumer with a producer face: Kafka or RabbitMQ in, effects in Redis, store or topic.

    POST /messages {"key": "orders.7", "value": 3}      Idempotency-Key: names the message

A message adds its value, a whole number, to the total of its key. What becomes of each record is
decided by `services.protocols.delivery`; `worker` drives it, `kafka` and `rabbitmq` are the brokers
behind the face in `broker`, `effects` and `topic_effects` are where messages take effect.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.chassis.machine import Machine
from services.chassis.service import run_process
from services.consumer.config import load_consumer
from services.consumer.service import ConsumerService


def make(environ: Mapping[str, str], machine: Machine) -> ConsumerService:
    """A service that is configured by the environment. Raises ConfigError."""
    return ConsumerService(load_consumer(environ), machine)


def main(environ: Mapping[str, str]) -> int:
    """Run it as a process of its own; returns the exit code."""
    return run_process(make, environ)
