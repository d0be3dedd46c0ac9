"""lab-delivery and lab-queues on containers: the real Apache Kafka, RabbitMQ and Redis."""

from __future__ import annotations

import pytest

from tests.compose.engine import require_engine
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = [pytest.mark.compose, pytest.mark.slow]


@pytest.mark.parametrize("lab", ["delivery", "queues"])
def test_the_lab_passes_with_the_real_brokers(lab: str) -> None:
    """Every claim is decided, transactions across topics among them: nothing is needed here."""
    require_engine("redis", "kafka", *(["rabbitmq"] if lab == "queues" else []))
    answer = labs("run", lab, within_s=400, ON="compose", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)

    assert (verdict["substrate"], verdict["verdict"]) == ("compose", "pass")
    for variant in verdict["variants"]:
        assert not [claim["text"] for claim in variant["claims"] if claim["needs"]]
        assert variant["members"]["kafka"].startswith("apache kafka")
