"""The proxy itself: half-closing, dead targets, back-pressure, many connections, no leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from pathlib import Path
from random import Random

import pytest

from labs.harness.links import LinkFault, Links
from labs.harness.links import proxy as proxy_module
from labs.harness.links.server import raise_descriptor_limit
from tests.harness.links.helpers import C1_N1, Caller, Target, condition, one_link, proxies


async def open_now(links: Links) -> int:
    return (await links.stats())[C1_N1].open


async def none_open(links: Links, within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while await open_now(links):  # noqa: ASYNC110 - another party's condition
            await asyncio.sleep(0.005)


async def test_half_close_is_passed_on_and_the_answer_still_comes() -> None:
    """The end of the request stream ends that stream alone."""
    got: list[bytes] = []

    async def answer_at_the_end(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        got.append(await r.read())
        w.write(b"all of it")
        w.close()

    server = await asyncio.start_server(answer_at_the_end, "127.0.0.1", 0)
    async with proxies() as (links, _):
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        where = (await links.open({C1_N1: address}))[C1_N1]
        caller = await Caller.dial(where)
        caller.writer.write(b"question")
        caller.writer.write_eof()

        assert await asyncio.wait_for(caller.reader.read(), 2) == b"all of it"
        assert got == [b"question"]
        await none_open(links)
        caller.close()
    server.close()


async def test_a_dead_target_is_a_reset_at_once() -> None:
    """A dead target: connection refused becomes a reset for the caller, promptly."""
    async with one_link() as (links, target, where):
        target.close()
        began = time.monotonic()

        with pytest.raises(ConnectionResetError):
            await (await Caller.dial(where)).ask(b"x")

        assert time.monotonic() - began < 1
        assert (await links.stats())[C1_N1].target_refused == 1
        await none_open(links)


async def test_a_target_that_comes_back_is_reached_again() -> None:
    """A killed node that is started again answers over the same link."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"x")
        port = int(target.address.rsplit(":", 1)[1])
        target.close()
        with pytest.raises(ConnectionResetError):
            await caller.line()

        await target.start(port)

        again = await Caller.dial(where)
        assert await again.ask(b"y") == b"re:y"
        again.close()
        await none_open(links)


async def test_a_target_that_resets_resets_the_caller() -> None:
    """A reset passes through as a reset, not as an orderly end."""
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"x")

        target.abort()

        with pytest.raises(ConnectionResetError):
            await caller.line()
        await none_open(links)


async def test_back_pressure_bounds_what_the_proxy_holds() -> None:
    """A target that does not read stops the caller; the proxy does not grow."""
    stuck = asyncio.Event()

    async def never_reads(_: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        await stuck.wait()
        w.close()

    server = await asyncio.start_server(never_reads, "127.0.0.1", 0, limit=1024)
    async with proxies() as (links, links_server):
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        where = (await links.open({C1_N1: address}))[C1_N1]
        caller = await Caller.dial(where)
        caller.writer.write(b"x" * 64_000_000)

        async def settled() -> int:
            passed, same = -1, 0
            async with asyncio.timeout(10):
                while same < 5:
                    now = (await links.stats())[C1_N1].request.passed
                    same = same + 1 if now == passed else 0
                    passed = now
                    await asyncio.sleep(0.02)
            return passed

        assert await settled() < 40_000_000  # what kernel buffers take
        queued = (await links.stats())[C1_N1].request.held
        assert queued <= 256 * 1024 + 64 * 1024
        caller.abort()
        links_server.close()
        stuck.set()
    server.close()


async def test_clog_is_bounded_and_loses_nothing() -> None:
    """A clogged link stops taking in at its bound, and delivers every byte in order later."""
    body = Random(3).randbytes(3_000_000).replace(b"\n", b".")
    async with one_link() as (links, target, where):
        caller = await Caller.dial(where)
        await caller.ask(b"before")
        await links.set({C1_N1: LinkFault("clog")})
        caller.send(body)
        await asyncio.sleep(0.05)

        await links.set({C1_N1: None})

        assert await caller.line(5) == b"re:" + body
        assert target.seen[-1] == body
        caller.abort()


async def test_bytes_survive_any_sequence_of_faults() -> None:
    """Whatever holds, slows and heals a link: what arrives is what was sent, in order."""
    seed = int(os.environ.get("SEED") or 20)
    print(f"SEED={seed} pytest {__file__} -k any_sequence")
    random = Random(seed)
    sent = random.randbytes(2_000_000).replace(b"\n", b".")
    kinds = [
        None,
        LinkFault("blackhole"),
        LinkFault("drop", "request"),
        LinkFault("drop", "response"),
        LinkFault("clog", "response"),
        LinkFault("clog"),
        LinkFault("delay", time_ms=5, jitter_ms=5),
        LinkFault("rate", rate_kbit=400_000),
    ]
    async with one_link() as (links, _, where):
        caller = await Caller.dial(where)

        async def disturb() -> None:
            for _ in range(40):
                await links.set({C1_N1: random.choice(kinds)})
                await asyncio.sleep(random.uniform(0, 0.01))
            await links.set({C1_N1: None})

        caller.send(sent)
        disturbing = asyncio.create_task(disturb())
        assert await caller.line(10) == b"re:" + sent
        await disturbing
        caller.close()
        await none_open(links)


async def test_a_thousand_connections() -> None:
    """1,000 connections at a time over one link, cut and healed; all answer, none is left."""
    raise_descriptor_limit()
    async with one_link() as (links, target, where):

        async def dial() -> Caller:
            caller = await Caller.dial(where)
            await caller.ask(b"first", 20)
            return caller

        callers = [
            caller
            for _ in range(10)
            for caller in await asyncio.gather(*(dial() for _ in range(100)))
        ]
        assert await open_now(links) == 1000
        await links.set({C1_N1: LinkFault("blackhole")})
        for caller in callers:
            caller.send(b"second")
        await asyncio.sleep(0.05)
        assert len(target.seen) == 1000
        began = time.monotonic()
        await links.stats()
        assert time.monotonic() - began < 1

        await links.set({C1_N1: None})

        answers = await asyncio.gather(*(caller.line(20) for caller in callers))
        assert set(answers) == {b"re:second"}
        for caller in callers:
            caller.close()
        await none_open(links, 10)


async def test_held_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound a link stops accepting; after the heal it goes on."""
    monkeypatch.setattr(proxy_module, "MAX_CONNECTIONS", 5)
    async with one_link() as (links, _, where):
        await links.set({C1_N1: LinkFault("blackhole")})
        callers = [await Caller.dial(where) for _ in range(12)]
        for number, caller in enumerate(callers):
            caller.send(b"%d" % number)
        async with asyncio.timeout(2):
            while await open_now(links) < 5:  # noqa: ASYNC110 - another party's condition
                await asyncio.sleep(0.005)
        assert await open_now(links) == 5

        await links.set({C1_N1: None})

        for number, caller in enumerate(callers):
            assert await caller.line(5) == b"re:%d" % number
            caller.close()
        await none_open(links)


async def test_a_caller_that_has_gone_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """With answers held, callers that gave up do not use up the link's connections."""
    monkeypatch.setattr(proxy_module, "MAX_CONNECTIONS", 3)
    async with one_link() as (links, target, where):
        await links.set({C1_N1: LinkFault("drop", "response")})

        for number in range(10):
            caller = await Caller.dial(where)
            caller.send(b"%d" % number)
            await condition(lambda: len(target.seen) == number + 1)  # noqa: B023 - used at once
            caller.close()
            await caller.writer.wait_closed()

        assert len(target.seen) == 10
        assert await open_now(links) <= 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts /proc/self/fd")
async def test_no_descriptor_is_left() -> None:
    """After faults, deaths and heals every descriptor is closed."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    faults = [None, "blackhole", "reset", "refuse", "clog", "drop"]
    async with one_link() as (links, target, where):
        for kind in faults:
            for how in ("close", "abort"):
                await links.set({C1_N1: None})
                callers = [await Caller.dial(where) for _ in range(5)]
                await asyncio.gather(*(caller.ask(b"x") for caller in callers))
                await links.set({C1_N1: LinkFault(kind) if kind else None})  # type: ignore[arg-type]
                for caller in callers:
                    caller.send(b"y")
                    getattr(caller, how)()
                target.abort()
        await links.set({C1_N1: None})
        await none_open(links)
    del links, target

    def open_here() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    await condition(lambda: open_here() <= before + 1, 10)


async def test_a_target_that_speaks_first() -> None:
    """Nothing in the splice waits for a request."""

    async def speak(_: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        w.write(b"welcome\n")
        w.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with proxies() as (links, _):
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        where = (await links.open({C1_N1: address}))[C1_N1]
        caller = await Caller.dial(where)

        assert await caller.line() == b"welcome"
        caller.close()
    server.close()


async def test_small_answers_are_not_delayed_by_nagle() -> None:
    """Both halves set TCP_NODELAY: two small writes do not wait for an acknowledgement."""
    target = Target()
    await target.start()
    async with proxies() as (links, server):
        where = (await links.open({C1_N1: target.address}))[C1_N1]
        caller = await Caller.dial(where)
        await caller.ask(b"x")
        [connection] = server.proxy(C1_N1).connections()

        for half in (connection.client, connection.server):
            assert half is not None
            assert half.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        caller.close()
    target.close()
