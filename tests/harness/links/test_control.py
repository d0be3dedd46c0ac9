"""The control plane: checked input, deadlines, all links in one step, and a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labs.harness.links import Link, LinkFault, Links, LinksError, main
from labs.harness.links.server import MAX_LINE_BYTES, split_address
from tests.harness.links.helpers import C1_N1, Caller, Target, condition, one_link, proxies


async def test_all_links_are_set_in_one_step() -> None:
    """A partition is one step: at no time is one half of the links cut and the other not."""
    target = Target()
    await target.start()
    links_wanted = {Link(f"c{n}", "n1"): target.address for n in range(40)}
    async with proxies() as (links, _):
        where = await links.open(links_wanted)
        callers = {link: await Caller.dial(address) for link, address in where.items()}

        await links.set(dict.fromkeys(where, LinkFault("blackhole")))
        for caller in callers.values():
            caller.send(b"x")
        await asyncio.sleep(0.1)

        stats = await links.stats()
        assert {each.request.held for each in stats.values()} == {2}
        assert target.seen == []
        await links.set(dict.fromkeys(where))
        assert {await caller.line() for caller in callers.values()} == {b"re:x"}
        for caller in callers.values():
            caller.abort()
    target.close()


async def test_a_wrong_command_changes_nothing_and_says_what_is_wrong() -> None:
    """All or none: an unknown link in a command leaves the known ones as they are."""
    async with one_link() as (links, _, where):
        unknown = Link("c9", "n1")

        with pytest.raises(LinksError, match="no such link: c9→n1"):
            await links.set({C1_N1: LinkFault("refuse"), unknown: None})
        with pytest.raises(LinksError, match="open already"):
            await links.open({C1_N1: "127.0.0.1:1"})
        with pytest.raises(LinksError, match="not host:port"):
            await links.open({unknown: "localhost"})

        assert list(await links.stats()) == [C1_N1]
        caller = await Caller.dial(where)
        assert await caller.ask(b"x") == b"re:x"
        caller.abort()


async def test_open_is_all_or_none() -> None:
    """A port that is taken leaves no link half open."""
    target = Target()
    await target.start()
    taken = int(target.address.rsplit(":", 1)[1])
    other = Link("c2", "n1")
    async with proxies() as (links, _):
        targets = {C1_N1: target.address, other: target.address}
        with pytest.raises(LinksError, match="in use"):
            await links.open(targets, ports={other: taken})

        assert await links.stats() == {}
    target.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"hello", "malformed"),
        (b"[]", "Expected `object`"),
        (b'{"id": 1}', "missing required field"),
        (b'{"id": 1, "command": "explode"}', "unknown command"),
        (b'{"id": 1, "command": "stats", "x": 1}', "unknown field"),
        (b'{"id": 1, "command": "set", "links": [{"src": "a"}]}', "missing required field"),
        (b'{"id":1,"command":"set","links":[{"src":"c","dst":"n","fault":{"kind":"?"}}]}', "enum"),
    ],
)
async def test_bad_lines_get_an_error_and_the_connection_lives(line: bytes, says: str) -> None:
    """Input is checked; an error is an answer, not the end of the control connection."""
    async with one_link() as (links, _, _where):
        peer = links.control_address()
        reader, writer = await asyncio.open_connection(*peer)
        for _ in range(2):
            writer.write(line + b"\n")
            answer = json.loads(await asyncio.wait_for(reader.readline(), 2))
            assert says in answer["error"]
        writer.close()


async def test_an_endless_line_is_cut_off() -> None:
    """Lines are bounded: one that is too long gets an error and the end."""
    async with one_link() as (links, _, _where):
        reader, writer = await asyncio.open_connection(*links.control_address())
        writer.write(b"x" * (2 * MAX_LINE_BYTES))

        answer = json.loads(await asyncio.wait_for(reader.readline(), 5))

        assert "line over" in answer["error"]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 2)
        writer.transport.abort()
        assert len(await links.stats()) == 1


async def test_every_command_has_a_deadline() -> None:
    """Proxies that do not answer: LinksError within the deadline, not a hang."""

    ended = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.transport.abort()
        ended.set()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    links = await Links.connect("127.0.0.1", port, within_s=0.5)

    with pytest.raises(LinksError, match=r"no answer within 0\.5 s"):
        await links.stats()

    await links.close()
    with pytest.raises(LinksError, match="has ended"):
        await links.stats()
    server.close()
    await asyncio.wait_for(ended.wait(), 2)


async def test_lost_control_fails_what_waits() -> None:
    """When the proxies end, a waiting command fails at once."""
    async with proxies() as (links, _):

        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        other = await Links.connect("127.0.0.1", server.sockets[0].getsockname()[1])
        began = time.monotonic()
        with pytest.raises(LinksError):
            await other.stats()
        assert time.monotonic() - began < 2
        await other.close()
        server.close()
        assert await links.stats() == {}


async def test_control_is_responsive_under_load() -> None:
    """The control plane shares no lock with the data: a command is quick while bytes rush by."""
    async with one_link() as (links, _, where):
        body = b"x" * 200_000
        callers = [await Caller.dial(where) for _ in range(20)]
        rushing = True

        async def rush(caller: Caller) -> None:
            while rushing:
                await caller.ask(body, 10)

        tasks = [asyncio.create_task(rush(caller)) for caller in callers]
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            await links.stats()
            slowest = max(slowest, time.monotonic() - began)
        rushing = False
        await asyncio.gather(*tasks)
        for caller in callers:
            caller.abort()

        # Callers, target and proxies share one loop here, far worse than in a run.
        assert slowest < 1


def environment(**settings: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.getcwd(), **settings}


async def start(tmp_path: Path) -> tuple[asyncio.subprocess.Process, tuple[str, int]]:
    """The proxies as a process; (process, where its control listens)."""
    port_file = tmp_path / "links.port"
    settings = environment(LINKS_CONTROL="127.0.0.1:0", LINKS_PORT_FILE=str(port_file))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "labs.harness.links", env=settings
    )
    await condition(port_file.exists, 10)
    return process, split_address(port_file.read_text().strip())


async def test_as_a_process(tmp_path: Path) -> None:
    """`python -m labs.harness.links`: listens, serves, ends on SIGTERM with 0."""
    process, control = await start(tmp_path)
    target = Target()
    await target.start()
    async with await Links.connect(*control) as links:
        where = (await links.open({C1_N1: target.address}))[C1_N1]
        caller = await Caller.dial(where)
        assert await caller.ask(b"x") == b"re:x"
        caller.abort()

        process.send_signal(signal.SIGTERM)

        assert await asyncio.wait_for(process.wait(), 5) == 0
    target.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"LINKS_CONTROL": "nowhere"}, "LINKS_CONTROL: 'nowhere' is not host:port"),
        ({"LINKS_CONTROL": "127.0.0.1:99999"}, "is not host:port"),
        ({}, "needs LINKS_PORT_FILE"),
    ],
)
def test_bad_configuration(
    settings: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value: one clear line, exit code 2."""
    assert main(settings) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
