"""The producer face: bad input is a problem document and loses nothing; fuzzing finds no 5xx."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.config import ConfigError
from services.consumer.config import load_consumer
from services.consumer.messages import amount_of, matches, valid_key
from tests.services.consumer.bed import Bed, a_bed
from tests.services.faces import JSON, VALUES, anything, fuzz, refuses, standing

BAD: list[tuple[str, str, Any, dict[str, str], int]] = [
    ("POST", "/messages", "", JSON, 400),
    ("POST", "/messages", "[]", JSON, 400),
    ("POST", "/messages", "{}", JSON, 400),
    ("POST", "/messages", '{"value": 1, "colour": 2}', JSON, 400),
    ("POST", "/messages", '{"value": NaN}', JSON, 400),
    ("POST", "/messages", b'{"value": "\xff"}', JSON, 400),
    ("POST", "/messages", "[" * 100_000, JSON, 400),
    ("POST", "/messages", '{"value": 1, "key": ""}', JSON, 400),
    ("POST", "/messages", '{"value": 1, "key": "a..b"}', JSON, 400),
    ("POST", "/messages", '{"value": 1, "key": "#"}', JSON, 400),
    ("POST", "/messages", '{"value": 1, "key": "' + "x" * 129 + '"}', JSON, 400),
    ("POST", "/messages", '{"value": 1, "key": 7}', JSON, 400),
    ("POST", "/messages?a=b", '{"value": 1}', JSON, 400),
    ("POST", "/messages", '{"value": 1}', JSON | {"Idempotency-Key": "a b"}, 400),
    ("POST", "/messages", '{"value": 1}', JSON | {"Idempotency-Key": "x" * 129}, 400),
    ("POST", "/messages", '{"value": 1}', JSON | {"X-Deadline-Ms": "soon"}, 400),
    ("POST", "/messages", '{"value": 1}', {"Content-Type": "text/plain"}, 415),
    ("POST", "/messages", '{"value": "' + "x" * 70_000 + '"}', JSON, 413),
    ("POST", "/messages", '{"value": "' + "x" * 300_000 + '"}', JSON, 413),
    ("GET", "/messages", None, {}, 405),
    ("POST", "/", "{}", JSON, 404),
    ("POST", "/messages/1", "{}", JSON, 404),
]


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with a_bed(tmp_path) as made:
        yield made


async def test_bad_input_is_a_problem_document_and_sends_nothing(bed: Bed) -> None:
    """Errors are RFC 9457 problem documents; a refused message is in no topic."""
    await bed.start("c1")
    await refuses(bed.request, BAD)
    assert await bed.send(1, name="good") == 201

    assert await bed.logged(1) == ["good"]


ASKED = anything(
    st.sampled_from(["/messages", "/messages", "/messages", "/messages?x", "/", "/status",
                     "/metrics", "/health/ready", "/admin/clock"]),
    st.fixed_dictionaries({"value": VALUES}, optional={"key": st.none() | st.text(max_size=9)}),
    ["Idempotency-Key", "X-Other"],
)  # fmt: skip


def test_fuzzing_finds_no_5xx(tmp_path: Path) -> None:
    """The consumer behind it takes what was accepted: it is there and works on at the end."""
    with standing(a_bed(tmp_path)) as (runner, bed):
        runner.run(bed.start("c1"))
        fuzz(runner, bed.request, ASKED)
        runner.run(bed.send(1, key="last", name="last"))
        assert runner.run(bed.logged(1, "last")) == ["last"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"GUARANTEE": "exactly_once"}, "at_most_once or at_least_once or effectively_once or"),
        ({"GUARANTEE": "transactional"}, "spans Kafka's own topics"),
        ({"SINK": "store"}, "CONSUMER_PEERS"),
        ({"SINK": "topic"}, "say transactional"),
        ({"SINK": "topic", "BROKER": "rabbitmq"}, "only with CONSUMER_BROKER=kafka"),
        ({"BROKER": "rabbitmq"}, "MEMBER_RABBITMQ"),
        ({"BINDING": "a.##"}, "words joined by dots"),
        ({"TOPIC": "no spaces"}, "a name such as orders"),
        ({"GROPU": "x"}, "the nearest is CONSUMER_GROUP"),
    ],
)
def test_configuration_is_checked_before_anything_starts(
    changed: dict[str, str], said: str
) -> None:
    """One line: the key, the value, what is allowed."""
    environ = {"CONSUMER_NODE": "c1", "CONSUMER_LISTEN": "127.0.0.1:0",
               "MEMBER_KAFKA": "127.0.0.1:9092", "MEMBER_REDIS": "127.0.0.1:6379"}  # fmt: skip
    assert load_consumer(environ).guarantee == "effectively_once"
    with pytest.raises(ConfigError) as refused:
        load_consumer({**environ, **{f"CONSUMER_{key}": text for key, text in changed.items()}})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("binding", "key", "expected"),
    [
        ("#", None, True),
        ("order.*", "order.7", True),
        ("order.*", "order.7.paid", False),
        ("order.#", "order", True),
        ("order.#", "order.7.paid", True),
        ("#.paid", "order.7.paid", True),
        ("*.7", "7", False),
        ("audit.#", "order.7", False),
        ("*", None, False),
    ],
)
def test_bindings_match_as_rabbitmqs_do(binding: str, key: str | None, expected: bool) -> None:
    """'*' (star) can substitute for exactly one word, '#' (hash) for zero or more words."""
    assert matches(binding, key) is expected


@given(st.binary(max_size=30))
def test_any_bytes_are_an_amount_or_poison(value: bytes) -> None:
    """What other producers send is nobody's choice: it is a number in bounds, or poison."""
    amount = amount_of(value)
    assert amount is None or abs(amount) < 2**31


@given(st.text(max_size=140))
def test_a_valid_key_is_a_routing_key_without_wildcards(key: str) -> None:
    """A key that holds what patterns mean would bind to what it does not say."""
    if valid_key(key):
        assert 1 <= len(key) <= 128
        assert not {"*", "#", " "} & set(key)
        assert all(key.split("."))
