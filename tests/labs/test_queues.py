"""lab-delivery and lab-queues end to end, as a user starts them: `python -m labs run delivery`.

delivery runs on the embedded broker, which knows no transactions: what needs Apache Kafka is named
and not counted. With the real brokers both run under Compose (tests/compose/test_queues.py), and
queues here, where RabbitMQ and Apache Kafka are installed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labs.harness.testbed.errors import TestbedError
from labs.harness.testbed.members import kafka_install, rabbitmq
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow

ACROSS = "Across topics, each record has one result"
BY_BROKER = ("loses no acknowledged message", "keeps a key's order", "puts poison aside")


def broken(variant: dict) -> set[str]:  # type: ignore[type-arg]
    return {claim["text"] for claim in variant["claims"] if claim["holds"] is False}


def test_delivery_without_apache_kafka_names_what_it_needs(tmp_path: Path) -> None:
    """Effectively once holds; committing before or after the effect, and writing twice, break.

    Kafka's transactions are not shown by a broker that has none: needs Apache Kafka, and the
    verdict says so.
    """
    answer = labs(
        "run", "delivery", within_s=400, ON="local", SEED="7", XDG_CACHE_HOME=str(tmp_path)
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)
    careful, naive = verdict["variants"]

    assert verdict["verdict"] == "pass"
    assert "embedded tansu broker" in careful["members"]["kafka"]
    assert verdict["reason"].endswith("1 claim needs Apache Kafka")
    (needing,) = [claim for claim in careful["claims"] if claim["needs"]]
    assert (needing["text"], needing["holds"]) == (ACROSS, None)
    assert not broken(careful)
    assert broken(naive) >= {
        "No message that the broker has is lost",
        "No message takes effect twice",
        "Every order is heard of",
    }
    assert naive["figures"]["lost"] > 0
    assert naive["figures"]["twice"] > 0
    assert {fault["name"] for fault in verdict["faults"]} == {"blackhole", "kill", "pause"}
    assert all(fault["felt"] and fault["recovered"] for fault in verdict["faults"])


def require_brokers() -> None:
    """Left out where a broker is missing; in CI that is an error."""
    missing = kafka_install.missing()
    try:
        rabbitmq.find()
    except TestbedError as error:
        missing = str(error)
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def test_queues_on_both_brokers() -> None:
    """Acknowledged after the work, both lose nothing; before it, both lose; Kafka can be read
    again, RabbitMQ routes."""
    require_brokers()
    answer = labs("run", "queues", within_s=400, ON="local", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)
    after, before = verdict["variants"]

    assert not broken(after)
    assert {claim["text"] for claim in after["claims"]} == {
        *(f"{broker} {text}" for broker in ("Kafka", "RabbitMQ") for text in BY_BROKER),
        "Kafka can be read again, a queue can't",
        "RabbitMQ routes by key",
    }
    lost = {f"{broker} loses no acknowledged message" for broker in ("Kafka", "RabbitMQ")}
    assert broken(before) >= lost
    killed = [fault["target"] for fault in verdict["faults"] if fault["name"] == "kill"]
    assert {"kafka rabbitmq"} < set(killed), "a consumer of each, and then both brokers"
    for broker in ("kafka", "rabbitmq"):
        rates = [
            int(rate.replace(",", "")) for rate in after["figures"][f"{broker}_rate"].split(" / ")
        ]
        assert all(100 < rate < 10_000_000 for rate in rates), "messages a second, in and out"
