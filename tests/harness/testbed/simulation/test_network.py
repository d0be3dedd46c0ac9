"""What each fault of a simulated link looks like from the caller's side: FAULTS.md's table.

The same observations as tests/harness/links/test_faults.py makes of the link proxies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from labs.harness.links.fault import LinkFault, StreamName
from labs.harness.testbed.simulation.loop import VirtualLoop
from labs.harness.testbed.simulation.network import SimulatedLinks
from tests.harness.links.helpers import C1_N1, Caller, Target
from tests.harness.testbed.simulation.test_loop import harness

CALLERS: list[Caller] = []
Setting = tuple[SimulatedLinks, Target, str]


@pytest.fixture
async def link() -> AsyncIterator[Setting]:
    """One link c1→n1 to a target; (control, target, where to dial)."""
    target = Target()
    await target.start()
    host, port = target.address.split(":")
    links = SimulatedLinks(harness().simulation.network, {C1_N1: (host, int(port))})
    yield links, target, links.address(C1_N1)
    for caller in CALLERS:
        caller.abort()
    CALLERS.clear()
    for writer in list(target._writers):
        writer.transport.abort()
    await asyncio.sleep(1)


async def dial(where: str) -> Caller:
    """A caller that is gone when its test is."""
    CALLERS.append(await Caller.dial(where))
    return CALLERS[-1]


async def silent(caller: Caller) -> bool:
    try:
        await caller.line(5)
    except TimeoutError:
        return True
    return False


async def test_without_a_fault_bytes_pass_both_ways(link: Setting) -> None:
    """A link without a fault changes nothing, and counts what passes."""
    links, target, where = link
    caller = await dial(where)

    assert await caller.ask(b"hello") == b"re:hello"
    stats = (await links.stats())[C1_N1]
    assert (stats.open, stats.accepted) == (1, 1)
    assert (stats.request.passed, stats.response.passed) == (6, 9)
    caller.close()
    await asyncio.sleep(0.01)
    assert target.ended == 1
    assert (await links.stats())[C1_N1].open == 0


async def test_refuse_is_a_refusal_at_once_and_resets_what_is_open(link: Setting) -> None:
    """`refuse`: new connections are refused (definite), open ones reset, until the heal."""
    links, target, where = link
    caller = await dial(where)
    await caller.ask(b"x")
    await links.set({C1_N1: LinkFault("refuse")})

    with pytest.raises(ConnectionResetError):
        await caller.line()
    with pytest.raises(ConnectionRefusedError):
        await dial(where)
    await links.set({C1_N1: None})
    assert await (await dial(where)).ask(b"x") == b"re:x"
    assert target.connections == 2


async def test_reset_strikes_new_connections_once_they_have_sent(link: Setting) -> None:
    """`reset`: accepted, then reset: no proof either way, indefinite."""
    links, target, where = link
    await links.set({C1_N1: LinkFault("reset")})
    caller = await dial(where)

    with pytest.raises(ConnectionResetError):
        await caller.ask(b"x")
    assert target.seen == []


@pytest.mark.parametrize("kind", ["blackhole", "clog", "drop"])
async def test_a_held_link_is_silent_and_delivers_after_the_heal(link: Setting, kind: str) -> None:
    """Old and new connections: silence, then all of it, in order."""
    links, _target, where = link
    old = await dial(where)
    await old.ask(b"before")
    await links.set({C1_N1: LinkFault(kind)})  # type: ignore[arg-type]
    new = await dial(where)
    for number in range(3):
        old.send(b"%d" % number)
        new.send(b"new %d" % number)

    assert await silent(old)
    assert await silent(new)
    stats = (await links.stats())[C1_N1]
    assert (stats.request.held, stats.request.passed_during_fault) == (6 + 18, 0)
    await links.set({C1_N1: None})
    assert [await old.line() for _ in range(3)] == [b"re:0", b"re:1", b"re:2"]
    assert [await new.line() for _ in range(3)] == [b"re:new 0", b"re:new 1", b"re:new 2"]


async def test_a_dropped_response_took_effect(link: Setting) -> None:
    """`drop` on `response`: the deadline expires, and the request took effect."""
    links, target, where = link
    caller = await dial(where)
    await links.set({C1_N1: LinkFault("drop", "response")})
    caller.send(b"x")

    assert await silent(caller)
    assert target.seen == [b"x"]


async def test_who_gives_up_before_the_heal_has_never_been(link: Setting) -> None:
    """Over a real cut its SYN would not have arrived either; its bytes count as abandoned."""
    links, target, where = link
    await links.set({C1_N1: LinkFault("blackhole")})
    caller = await dial(where)
    caller.send(b"x")
    await asyncio.sleep(0.1)
    caller.abort()
    await asyncio.sleep(0.1)
    await links.set({C1_N1: None})
    await asyncio.sleep(0.1)

    assert target.connections == 0
    assert (await links.stats())[C1_N1].request.abandoned == 2


@pytest.mark.parametrize(("stream", "round_trip_s"), [(None, 0.2), ("request", 0.1)])
async def test_delay(link: Setting, stream: StreamName | None, round_trip_s: float) -> None:
    """`delay`: on each stream; order is kept in spite of the jitter."""
    links, _target, where = link
    caller = await dial(where)
    await links.set({C1_N1: LinkFault("delay", stream, time_ms=100, jitter_ms=20)})
    began = harness().time()
    for number in range(20):
        caller.send(b"%d" % number)
        await asyncio.sleep(0.001)

    assert await caller.line() == b"re:0"
    assert harness().time() - began == pytest.approx(round_trip_s, abs=0.05)
    assert [await caller.line() for _ in range(19)] == [b"re:%d" % n for n in range(1, 20)]


async def test_rate_is_shared_by_the_connections_of_a_link(link: Setting) -> None:
    """`rate`: 80 kbit/s carry 10 kB a second, of all connections together."""
    links, _target, where = link
    callers = [await dial(where) for _ in range(2)]
    await links.set({C1_N1: LinkFault("rate", "request", rate_kbit=80)})
    began = harness().time()
    for caller in callers:
        caller.send(b"." * 9_999)
    for caller in callers:
        assert len(await caller.line(within_s=5)) == 9_999 + 3

    assert harness().time() - began == pytest.approx(2.0, rel=0.05)


async def test_a_sender_waits_when_nobody_takes_its_bytes(link: Setting) -> None:
    """Buffers are bounded: `drain` waits behind a cut, and goes on after it."""
    links, _target, where = link
    caller = await dial(where)
    await links.set({C1_N1: LinkFault("blackhole")})
    caller.send(b"." * 1_000_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await caller.writer.drain()

    await links.set({C1_N1: None})
    await caller.writer.drain()
    assert len(await caller.line()) == 1_000_003


async def test_what_a_killed_process_would_have_sent_later_is_never_sent(link: Setting) -> None:
    """Killed within a system call: what was written before it arrives, what was to come after
    it does not. So a crash can fall between a send and a write to disk."""
    _links, target, where = link
    process = VirtualLoop(harness().simulation, "process")

    async def talk() -> None:
        reader, writer = await asyncio.open_connection(*where.split(":"))
        writer.write(b"before\n")
        process.stall(50_000_000)
        writer.write(b"after\n")
        CALLERS.append(Caller(reader, writer))

    process.call_soon(lambda: process.create_task(talk()))
    await asyncio.sleep(0.02)
    process.die()
    await asyncio.sleep(1)
    assert target.seen == [b"before"]
    assert target.ended == 1
