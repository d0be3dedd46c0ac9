"""What each fault of a link looks like from the caller's side, as FAULTS.md's table names it."""

from __future__ import annotations

import asyncio
import time

import pytest

from labs.harness.links import LinkFault
from tests.harness.links.helpers import C1_N1, Caller, condition, one_link

SILENT_S = 0.15


async def silent(caller: Caller) -> bool:
    """Nothing comes until the caller's deadline."""
    try:
        await caller.line(SILENT_S)
    except TimeoutError:
        return True
    return False


async def test_without_a_fault_bytes_pass_both_ways() -> None:
    """A link without a fault changes nothing, and counts what passes."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)

        assert await caller.ask(b"hello") == b"re:hello"
        stats = (await links.stats())[C1_N1]
        assert (stats.open, stats.accepted) == (1, 1)
        assert (stats.request.passed, stats.response.passed) == (6, 9)
        assert target.seen == [b"hello"]
        caller.close()
        await condition(lambda: target.ended == 1)


async def test_refuse_is_a_refusal_at_once_and_heals() -> None:
    """`refuse`: immediate refusal, did not take effect, definite."""
    async with one_link() as (links, target, where):
        await links.set({C1_N1: LinkFault("refuse")})

        with pytest.raises(ConnectionRefusedError):
            await Caller.dial(where)

        assert target.connections == 0
        await links.set({C1_N1: None})
        caller = await Caller.dial(where)
        assert await caller.ask(b"x") == b"re:x"
        caller.abort()


async def test_refuse_resets_open_connections() -> None:
    """Open connections under `refuse`: reset at once, on both sides."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"x")

        await links.set({C1_N1: LinkFault("refuse")})

        with pytest.raises(ConnectionResetError):
            await caller.line()
        await condition(lambda: target.ended == 1)
        assert (await links.stats())[C1_N1].reset == 1


async def test_refuse_keeps_the_port() -> None:
    """While refused, the port stays ours: nobody else can take it."""
    async with one_link() as (links, _, where):
        await links.set({C1_N1: LinkFault("refuse")})

        with pytest.raises(OSError, match="in use"):
            await asyncio.start_server(
                lambda _r, _w: None, "127.0.0.1", int(where.rsplit(":", 1)[1]), reuse_address=True
            )


async def test_reset_of_open_connections_is_at_once() -> None:
    """`reset`: TCP RST, error at once; also for a request that is waiting for its answer."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"x")
        began = time.monotonic()

        await links.set({C1_N1: LinkFault("reset")})

        with pytest.raises(ConnectionResetError):
            await caller.line()
        assert time.monotonic() - began < 1
        await condition(lambda: target.ended == 1)


async def test_reset_of_new_connections_comes_after_connecting() -> None:
    """`reset` before the request was read: no proof either way (indefinite), no effect."""
    async with one_link() as (links, target, where):
        await links.set({C1_N1: LinkFault("reset")})
        talker = await Caller.dial(where)  # not refused: that would be definite
        mute = await Caller.dial(where)

        with pytest.raises(ConnectionResetError):
            await talker.ask(b"x")

        with pytest.raises(ConnectionResetError):
            await mute.line()
        assert target.seen == []
        assert (await links.stats())[C1_N1].reset == 2


async def test_blackhole_on_an_open_connection() -> None:
    """`blackhole`: deadline expires, no effect; what was on its way arrives after the heal."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("blackhole")})

        caller.send(b"during")

        assert await silent(caller)
        assert target.seen == [b"before"]
        stats = (await links.stats())[C1_N1]
        assert (stats.request.held, stats.request.passed_during_fault) == (7, 0)
        await links.set({C1_N1: None})
        assert await caller.line() == b"re:during"
        caller.abort()


async def test_blackhole_on_a_new_connection() -> None:
    """`blackhole`: accepted, then silence; the target hears nothing until the heal."""
    async with one_link() as (links, target, where):
        await links.set({C1_N1: LinkFault("blackhole")})
        caller = await Caller.dial(where)
        caller.send(b"during")

        assert await silent(caller)
        assert target.connections == 0
        assert (await links.stats())[C1_N1].request.held == 7
        await links.set({C1_N1: None})
        assert await caller.line() == b"re:during"
        caller.abort()


async def test_a_new_connection_given_up_before_the_heal_never_was() -> None:
    """Over a real cut its SYN would not have arrived: no effect after the heal, nothing leaks."""
    async with one_link() as (links, target, where):
        await links.set({C1_N1: LinkFault("blackhole")})
        caller = await Caller.dial(where)
        caller.send(b"during")
        assert await silent(caller)

        caller.close()
        await asyncio.wait_for(caller.writer.wait_closed(), 2)

        async def stats() -> tuple[int, int, int]:
            now = (await links.stats())[C1_N1]
            return now.open, now.request.held, now.request.abandoned

        deadline = time.monotonic() + 2
        while (found := await stats())[0] and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert found == (0, 0, 7)
        await links.set({C1_N1: None})
        other = await Caller.dial(where)
        assert await other.ask(b"after") == b"re:after"
        assert target.seen == [b"after"]
        other.abort()


async def test_an_open_connection_given_up_delivers_after_the_heal_and_ends() -> None:
    """What an open connection accepted is delivered after the heal, then the end."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("blackhole")})
        caller.send(b"late")
        assert await silent(caller)
        caller.close()
        assert target.seen == [b"before"]

        await links.set({C1_N1: None})

        await condition(lambda: target.seen == [b"before", b"late"])
        await condition(lambda: target.ended == 1)


async def test_drop_on_response_takes_effect() -> None:
    """`drop` on `response`: deadline expires, **took effect** (indefinite for the caller)."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("drop", "response")})
        new = await Caller.dial(where)

        caller.send(b"open")
        new.send(b"new")

        assert await silent(caller)
        assert await silent(new)
        assert sorted(target.seen) == [b"before", b"new", b"open"]
        stats = (await links.stats())[C1_N1]
        assert stats.response.passed_during_fault == 0
        assert stats.response.held == len(b"re:open\nre:new\n")
        await links.set({C1_N1: None})
        assert await caller.line() == b"re:open"
        assert await new.line() == b"re:new"
        caller.abort()
        new.abort()


async def test_drop_on_request_does_not_take_effect() -> None:
    """`blackhole` on `request`: deadline expires, no effect."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("drop", "request")})

        caller.send(b"x")

        assert await silent(caller)
        assert target.seen == [b"before"]
        await links.set({C1_N1: None})
        assert await caller.line() == b"re:x"
        caller.abort()


async def test_a_reset_of_the_target_does_not_cross_a_cut() -> None:
    """Nothing crosses a cut: neither the end nor the reset of a node that dies behind it."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("drop", "response")})

        target.abort()
        caller.send(b"x")
        caller.send(b"y")

        assert await silent(caller)
        await links.set({C1_N1: None})
        with pytest.raises(ConnectionResetError):
            await caller.line()


async def test_clog_takes_bytes_in_and_delivers_them_in_order() -> None:
    """`clog`: held messages are delivered later, in order."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("clog")})

        for number in range(100):
            caller.send(b"%d" % number)
            await asyncio.sleep(0)

        assert await silent(caller)
        assert target.seen == [b"before"]
        await links.set({C1_N1: None})
        assert [await caller.line() for _ in range(100)] == [b"re:%d" % n for n in range(100)]
        caller.abort()


@pytest.mark.parametrize("stream", [None, "request", "response"])
async def test_delay_adds_at_least_its_time_on_each_stream(stream: str | None) -> None:
    """`delay`: `time_ms` on each stream it is for; effects come later, not never."""
    async with one_link() as (links, _, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        fault = LinkFault("delay", stream, time_ms=40)  # type: ignore[arg-type]
        await links.set({C1_N1: fault})
        began = time.monotonic()

        assert await caller.ask(b"x") == b"re:x"

        assert time.monotonic() - began >= (0.04 if stream else 0.08) - 0.002
        await links.set({C1_N1: None})
        best = 1.0
        for _ in range(5):
            began = time.monotonic()
            await caller.ask(b"y")
            best = min(best, time.monotonic() - began)
        assert best < 0.04
        caller.abort()


async def test_jitter_keeps_the_order() -> None:
    """Jitter may not reorder a byte stream."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await links.set({C1_N1: LinkFault("delay", time_ms=10, jitter_ms=10)})

        for number in range(50):
            caller.send(b"%d" % number)
            await asyncio.sleep(0.001)

        assert [await caller.line() for _ in range(50)] == [b"re:%d" % n for n in range(50)]
        assert target.seen == [b"%d" % n for n in range(50)]
        caller.abort()


async def test_a_heal_lets_go_what_a_delay_holds() -> None:
    """A heal is felt at once: bytes that a delay had queued are due then, in order."""
    async with one_link() as (links, _, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("delay", time_ms=60_000)})
        caller.send(b"x")
        assert await silent(caller)

        await links.set({C1_N1: None})

        assert await caller.line() == b"re:x"
        caller.abort()


async def test_rate_makes_a_body_take_its_time() -> None:
    """`rate`: a body of 10 kB takes 100 ms at 800 kbit/s."""
    async with one_link() as (links, _, where):
        caller = await Caller.dial(where)
        await links.set({C1_N1: LinkFault("rate", "request", rate_kbit=800)})
        began = time.monotonic()

        await caller.ask(b"x" * 10_000)

        assert 0.095 <= time.monotonic() - began < 1
        caller.abort()


async def test_rate_is_shared_by_the_connections_of_a_link() -> None:
    """A slow link is slow for all together, not for each."""
    async with one_link() as (links, _, where):
        callers = [await Caller.dial(where) for _ in range(4)]
        await links.set({C1_N1: LinkFault("rate", "request", rate_kbit=800)})
        began = time.monotonic()

        await asyncio.gather(*(caller.ask(b"x" * 2_500) for caller in callers))

        assert 0.095 <= time.monotonic() - began < 1
        for caller in callers:
            caller.abort()


async def test_a_fault_replaces_the_one_before() -> None:
    """From cut to slow to nothing: each `set` is the link's whole fault."""
    async with one_link() as (links, _, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("blackhole")})
        caller.send(b"x")
        assert await silent(caller)

        await links.set({C1_N1: LinkFault("delay", time_ms=20)})

        assert await caller.line() == b"re:x"
        assert (await links.stats())[C1_N1].fault == LinkFault("delay", time_ms=20)
        await links.set({C1_N1: None})
        assert (await links.stats())[C1_N1].fault is None
        caller.abort()


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("partition", {}),
        ("delay", {}),
        ("delay", {"time_ms": -1}),
        ("delay", {"time_ms": float("nan")}),
        ("delay", {"time_ms": 5, "jitter_ms": 6}),
        ("delay", {"time_ms": 60_001}),
        ("rate", {}),
        ("rate", {"rate_kbit": 0.5}),
        ("refuse", {"stream": "request"}),
        ("reset", {"stream": "response"}),
        ("drop", {"stream": "upstream"}),
        ("blackhole", {"time_ms": 5}),
        ("clog", {"rate_kbit": 5}),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(kind: str, parameters: dict[str, object]) -> None:
    """Parameters are checked when a fault is made."""
    with pytest.raises(ValueError, match=r"."):
        LinkFault(kind, **parameters)  # type: ignore[arg-type]
