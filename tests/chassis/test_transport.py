"""Peer links over real sockets: batching, stalls, bounded queues, reconnecting, bad frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp
import pytest

from services.chassis import transport as transport_module
from services.chassis.app import App
from services.chassis.clock import Clock
from services.chassis.codec import Codec, Frame
from services.chassis.config import Address
from services.chassis.metrics import Metrics
from services.chassis.telemetry import Telemetry, process_log
from services.chassis.transport import NODE_HEADER, Transport
from services.protocols.core import Entry
from tests.chassis.fakes import Replicate, until
from tests.chassis.proxy import HoldingProxy


class Side:
    """n2: listens and keeps what arrives. n1: dials n2 through the proxy."""

    def __init__(self, node: str, peers: dict[str, Address]) -> None:
        clock = Clock()
        log = process_log(node, clock)
        self.frames: list[Frame] = []
        self.codec = Codec([Replicate])
        self.transport = Transport(
            node, peers, self.codec, self.frames.append, random=Random(1), log=log
        )
        telemetry = Telemetry(node, clock, None, log)
        self.app = App(telemetry, Metrics(), clock, log)
        self.app.add_stream("/peer", lambda request, _: self.transport.accept(request))

    @property
    def messages(self) -> list[Any]:
        return [message for frame in self.frames for message in frame.messages]


def message(number: int, size: int = 1) -> Replicate:
    return Replicate("n1", "n2", [Entry(number, 1, b"x" * size)])


def numbers(side: Side) -> list[int]:
    return [m.entries[0].index for m in side.messages]


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Side, Side, HoldingProxy]]:
    receiver = Side("n2", {"n1": Address("127.0.0.1", 1)})
    await receiver.app.start("127.0.0.1", 0)
    proxy = HoldingProxy(receiver.app.port)
    await proxy.start()
    sender = Side("n1", {"n2": Address("127.0.0.1", proxy.port)})
    sender.transport.start()
    try:
        await until(lambda: sender.transport.links["n2"].connected)
        yield sender, receiver, proxy
    finally:
        proxy.heal()
        await sender.transport.close()
        await receiver.transport.close()
        await receiver.app.close()
        await proxy.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stalls are noticed sooner than in earnest."""
    monkeypatch.setattr(transport_module, "PING_S", 0.02)
    monkeypatch.setattr(transport_module, "IDLE_PING_S", 0.02)
    monkeypatch.setattr(transport_module, "STALL_S", 0.08)
    monkeypatch.setattr(transport_module, "AGE_MAX_S", 0.3)


async def test_batch() -> None:
    """What is sent in one iteration of the loop goes out as one frame, in order, with traces."""
    async with pair() as (sender, receiver, _):
        for number in range(10):
            sender.transport.send(message(number), [f"00-{number}"])
        sender.transport.flush()
        await until(lambda: len(receiver.messages) == 10)

        assert len(receiver.frames) == 1
        assert receiver.frames[0].src == "n1"
        assert receiver.frames[0].traceparents == [f"00-{n}" for n in range(10)]
        assert numbers(receiver) == list(range(10))
        assert sender.transport.counts.sent["Replicate"] == 10


async def test_large_messages() -> None:
    """Frames are closed at a megabyte; a larger message goes alone and arrives."""
    async with pair() as (sender, receiver, _):
        for number in range(4):
            sender.transport.send(message(number, size=700_000))
        sender.transport.send(message(4, size=5_000_000))
        sender.transport.flush()
        await until(lambda: len(receiver.messages) == 5)

        assert len(receiver.frames) == 5


@pytest.mark.usefixtures("quick")
async def test_stalled_link_stays_bounded_and_resumes_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A link whose bytes are held stops writing, drops the oldest, and goes on when healed."""
    # Not for their age: a busy machine takes longer than a second for what follows.
    monkeypatch.setattr(transport_module, "AGE_MAX_S", 60.0)
    async with pair() as (sender, receiver, proxy):
        link = sender.transport.links["n2"]
        proxy.hold()
        await until(lambda: link.stalled)
        for number in range(20_000):
            sender.transport.send(message(number, size=2_000))
            sender.transport.flush()
        assert link.queued_bytes <= transport_module.QUEUE_BYTES_MAX
        assert link.status()["queued"] <= transport_module.QUEUE_MESSAGES_MAX
        assert sender.transport.counts.dropped["queue_full"] >= 15_000

        proxy.heal()
        await until(lambda: not link.stalled, within_s=10.0)
        await until(lambda: 19_999 in numbers(receiver), within_s=10.0)
        arrived = numbers(receiver)
        assert arrived == sorted(arrived)
        assert arrived[0] >= 15_000, "the newest are kept, the oldest dropped"
        assert proxy.connections == 1, "the same connection goes on"


@pytest.mark.usefixtures("quick")
async def test_late_messages_are_dropped() -> None:
    """What has waited too long is dropped: after a partition the present comes first."""
    async with pair() as (sender, receiver, proxy):
        link = sender.transport.links["n2"]
        proxy.hold()
        await until(lambda: link.stalled)
        sender.transport.send(message(1))
        sent = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > sent + 0.35)
        sender.transport.send(message(2))
        proxy.heal()
        await until(lambda: receiver.messages)

        assert numbers(receiver) == [2]
        assert sender.transport.counts.dropped["too_old"] == 1


async def test_a_full_pipe_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a stall is noticed, buffers fill and no more than the queue's limit waits behind."""
    monkeypatch.setattr(transport_module, "QUEUE_BYTES_MAX", 1 << 20)
    async with pair() as (sender, _, proxy):
        link = sender.transport.links["n2"]
        proxy.hold()
        for number in range(200):
            sender.transport.send(message(number, size=100_000))
            sender.transport.flush()
            await asyncio.sleep(0)
        assert link.queued_bytes <= 1 << 20
        assert sender.transport.counts.dropped["queue_full"] > 0


async def test_reconnect() -> None:
    """After a hang-up the link dials again within its capped back-off."""
    async with pair() as (sender, receiver, proxy):
        for round_ in range(3):
            proxy.hang_up()
            await until(lambda: not sender.transport.links["n2"].connected)
            await until(lambda: sender.transport.links["n2"].connected, within_s=10.0)
            sender.transport.send(message(round_))
            sender.transport.flush()
            await until(lambda n=round_: n in numbers(receiver), within_s=10.0)  # type: ignore[misc]
        await until(lambda: len(receiver.transport._incoming) == 1, within_s=10.0)


@pytest.mark.usefixtures("quick")
async def test_dead_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that stays silent for good is given up and dialled anew."""
    monkeypatch.setattr(transport_module, "DEAD_S", 0.3)
    monkeypatch.setattr(transport_module, "CONNECT_S", 0.3)
    async with pair() as (sender, receiver, proxy):
        proxy.hold()
        await until(lambda: proxy.connections >= 2, within_s=10.0)
        proxy.heal()
        await until(lambda: sender.transport.links["n2"].connected, within_s=10.0)
        sender.transport.send(message(7))
        sender.transport.flush()
        await until(lambda: 7 in numbers(receiver), within_s=10.0)


async def test_peer_not_there_yet() -> None:
    """Sending to a peer that does not listen neither blocks nor grows without bound."""
    sender = Side("n1", {"n2": Address("127.0.0.1", 1)})
    sender.transport.start()
    for number in range(10_000):
        sender.transport.send(message(number))
    sender.transport.flush()

    assert sender.transport.links["n2"].status()["queued"] <= transport_module.QUEUE_MESSAGES_MAX
    await sender.transport.close()


@pytest.mark.parametrize("data", [b"", b"\xc1rubbish", b"\x93\xa2n9\xc0\x90"])
async def test_malformed_frame(data: bytes) -> None:
    """A malformed frame, or one in another's name, costs the sender its connection, no more."""
    async with pair() as (sender, receiver, _):
        url = f"http://127.0.0.1:{receiver.app.port}/peer"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, headers={NODE_HEADER: "n1"}) as ws,
        ):
            await ws.send_bytes(data)
            answer = await ws.receive(timeout=5)
            assert answer.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert receiver.transport.counts.dropped["malformed"] == 1
        await until(lambda: sender.transport.links["n2"].connected)
        # The link proper was replaced by the impostor's connection; it comes back by itself.
        deadline = asyncio.get_running_loop().time() + 5
        while not receiver.messages:
            assert asyncio.get_running_loop().time() < deadline
            sender.transport.send(message(1))
            sender.transport.flush()
            await asyncio.sleep(0.02)


async def test_strangers() -> None:
    """Who is no peer, or speaks no WebSocket, gets problem+json."""
    async with pair() as (_, receiver, _), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{receiver.app.port}/peer"
        for headers in ({}, {NODE_HEADER: "n9"}, {NODE_HEADER: "n1"}):
            async with session.get(url, headers=headers) as response:
                assert response.status == 400
                assert (await response.json(content_type=None))["definite"] is True


async def test_idle_links_hardly_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle link pings now and then only: a stall matters where bytes flow."""
    monkeypatch.setattr(transport_module, "PING_S", 0.01)
    async with pair() as (sender, _, _):
        link = sender.transport.links["n2"]
        await until(lambda: link._ping_sent_at is None)
        pings = 0
        ends = asyncio.get_running_loop().time() + 0.3
        while asyncio.get_running_loop().time() < ends:
            pings += link._ping_sent_at is not None
            await asyncio.sleep(0.002)
        assert pings <= 3, "the first ping of the connection at most"
