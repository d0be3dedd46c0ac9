"""What RabbitMQ must do as a member: the same tests on every substrate (see `members.py`)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from labs.harness.links.control import Link, LinkFault
from labs.harness.testbed.cluster import Cluster
from labs.harness.testbed.description import MemberSpec
from tests.harness.testbed.contract import refuses
from tests.harness.testbed.members import every_fault_is_felt, member_cluster

READY_WITHIN_S = 90.0
QUEUE = "events"


@contextlib.asynccontextmanager
async def a_channel(cluster: Cluster, source: str) -> AsyncIterator[Any]:
    host, _, port = cluster.address(source, "rabbitmq").rpartition(":")
    connection = await aio_pika.connect(host=host, port=int(port), timeout=10)
    try:
        yield await connection.channel()
    finally:
        with contextlib.suppress(Exception):  # it may be the broker that has gone
            await connection.close()


async def publish(channel: Any, *bodies: bytes) -> None:
    """Persistent, to a durable queue, each confirmed.

    Only the second declaration puts the first on disk (see the member's module): of eight brokers
    killed 0.1 s after a single one, one came back without the queue.
    """
    for queue in (QUEUE, f"after {QUEUE}"):
        await channel.declare_queue(queue, durable=True)
    for body in bodies:
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, QUEUE, timeout=10)


class RabbitMQContract:
    """Subclass with a `testbed` fixture."""

    @pytest.fixture
    async def cluster(self, testbed: Any) -> AsyncIterator[Cluster]:
        spec = member_cluster(MemberSpec("rabbitmq", "rabbitmq"))
        async with testbed.cluster(spec) as made:
            await made.ready(READY_WITHIN_S)
            yield made

    async def test_killed_it_refuses_and_returns_with_what_it_confirmed(
        self, cluster: Cluster
    ) -> None:
        """FAULTS.md: kill: "SIGKILL; disk survives": a confirmed persistent message with it."""
        bodies = [b"%d" % number for number in range(20)]
        async with a_channel(cluster, "c1") as channel:
            await publish(channel, *bodies)
            await cluster.kill("rabbitmq")
            assert await refuses(cluster.direct_address("rabbitmq"))
        await cluster.start("rabbitmq")
        await cluster.ready(READY_WITHIN_S)

        async with a_channel(cluster, "c2") as channel:
            queue = await channel.declare_queue(QUEUE, durable=True)
            kept = [each.body for _ in bodies
                    if (each := await queue.get(timeout=10, no_ack=True, fail=False))]  # fmt: skip
        # Empty, or a new one? What the broker found when it started is in its log.
        log = cluster.logs("rabbitmq").read_text(errors="replace")
        assert kept == bodies, f"{queue.declaration_result}\n{log[-6_000:]}"
        assert any(char.isdigit() for char in cluster.member_flavour("rabbitmq"))

    async def test_every_fault_is_felt(self, cluster: Cluster, tmp_path: Path) -> None:
        """The nemesis asks RabbitMQ in AMQP, over each link."""
        await every_fault_is_felt(cluster, tmp_path, "rabbitmq")

    async def test_a_cut_link_holds_up_who_dials_it_and_nobody_else(self, cluster: Cluster) -> None:
        """Links to a member are cut one by one."""
        async with a_channel(cluster, "c1") as cut_off, a_channel(cluster, "c2") as other:
            await publish(other, b"before")
            await cluster.link_control.set({Link("c1", "rabbitmq"): LinkFault("blackhole")})
            with pytest.raises(TimeoutError):
                await cut_off.default_exchange.publish(
                    aio_pika.Message(b"during"), QUEUE, timeout=0.5
                )
            await publish(other, b"beside")
            await cluster.link_control.set({Link("c1", "rabbitmq"): None})
