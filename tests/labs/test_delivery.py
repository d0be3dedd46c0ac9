"""What lab-delivery decides, from a log of the broker and effects that are made up here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from labs.harness.workloads.messages import Ledger
from labs.scenarios import delivery

LOST, TWICE = "No message that the broker has is lost", "No message takes effect twice"
HEARD, ORDER = "Every order is heard of", "Messages of a key take effect in order"
ALL = {LOST, TWICE, HEARD, ORDER}
SENT = ["k.p1-0/0", "k.p1-0/1"]


class Stage:
    """The careful variant: one producer with an outbox, one group."""

    def __init__(self) -> None:
        settings = {"CONSUMER_SINK": "none", "CONSUMER_TOPIC": "outbox"}
        nodes = [SimpleNamespace(name="p1", environment=settings)]
        self.cluster: Any = SimpleNamespace(spec=SimpleNamespace(nodes=nodes))
        self.result = SimpleNamespace(nodes=["p1"])
        self.held: dict[str, bool] = {}

    def figures(self, **_: Any) -> None: ...

    def needs(self, _: str, __: str) -> None: ...

    def claim(self, text: str, holds: bool, _: str, **__: Any) -> None:
        self.held[text] = holds


@pytest.mark.parametrize(
    ("orders", "log", "applied", "broken"),
    [
        (SENT, SENT, SENT, set()),
        (SENT, SENT, SENT[:1], {LOST}),  # the broker has it, and nobody did it
        (SENT, SENT[:1], SENT[:1], {HEARD}),  # the broker never had it
        (SENT[:1], SENT[:1], SENT[:1], {HEARD}),  # accepted, and not even kept
        (SENT, SENT, [*SENT, SENT[1]], {TWICE}),
        (SENT, SENT, SENT[::-1], {ORDER}),
    ],
)
async def test_each_claim_can_fail(
    monkeypatch: pytest.MonkeyPatch,
    orders: list[str],
    log: list[str],
    applied: list[str],
    broken: set[str],
) -> None:
    """Also where nothing is meant to: a loss is not taken for an order that nobody sent."""

    async def read_orders(*_: Any) -> set[str]:
        return set(orders)

    async def read_ledger(*_: Any) -> Ledger:
        return Ledger({"k.p1-0": applied})

    async def records(_: Any, topic: str) -> list[dict[str, str]]:
        assert topic == "outbox"
        return [{"id": name} for name in log]

    monkeypatch.setattr(delivery, "read_orders", read_orders)
    monkeypatch.setattr(delivery, "read_ledger", read_ledger)
    monkeypatch.setattr(delivery.kafka_log, "records", records)
    stage: Any = Stage()
    load: Any = SimpleNamespace(of=lambda _: [SimpleNamespace(id=name) for name in SENT])
    await delivery.judge(stage, load, {"ledger": ["ledger-1", "ledger-2"]})

    assert stage.held == {text: text not in broken for text in ALL}
