"""The process of the link proxies: all links of a cluster in one event loop, and their control.

Control is JSON lines over TCP on a port of its own: a request `{"id", "command", …}`, an answer
`{"id", "ok": true, …}` or `{"id", "error": "…"}`. Commands: `open`, `set`, `stats`, `close`. There
is no lock: a command is one step of the loop, and so is what a data connection does between two of
them, which is bounded (64 KiB). `set` checks everything first and then hits all links in one step.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from labs.harness.links.fault import Link, LinkFault
from labs.harness.links.proxy import CONNECT_WITHIN_S, LinkProxy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labs.harness.links.proxy import Address

MAX_LINE_BYTES = 1024 * 1024
MAX_LINKS = 1024
MAX_CONTROLS = 16
RESOLVE_WITHIN_S = 5.0
ANSWER_WITHIN_S = 10.0
WANTED_DESCRIPTORS = 16_384


class OpenLink(msgspec.Struct, forbid_unknown_fields=True):
    """A link to open: `target` is "host:port", `port` 0 lets the kernel choose."""

    src: str
    dst: str
    target: str
    port: int = 0


class SetLink(msgspec.Struct, forbid_unknown_fields=True):
    """The fault that a link is to have (None: heal)."""

    src: str
    dst: str
    fault: LinkFault | None = None


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """One line of control."""

    id: int
    command: str
    host: str = "127.0.0.1"
    seed: int = 0
    connect_within_s: float = CONNECT_WITHIN_S
    links: list[dict[str, Any]] = []


class LinkServer:
    """All link proxies of one process. Errors of the caller are ValueError or OSError."""

    def __init__(self) -> None:
        self._proxies: dict[Link, LinkProxy] = {}
        self._controls: set[asyncio.StreamWriter] = set()

    def proxy(self, link: Link) -> LinkProxy:
        """The proxy of one link. Raises KeyError."""
        return self._proxies[link]

    async def answer(self, request: Request) -> dict[str, Any]:
        """Carry out one command."""
        match request.command:
            case "open":
                return {"listen": await self._open(request)}
            case "set":
                self._set(msgspec.convert(request.links, list[SetLink]))
                return {}
            case "stats":
                return {"stats": [[*link, proxy.stats()] for link, proxy in self._proxies.items()]}
            case "close":
                self.close()
                return {}
        raise ValueError(f"unknown command {request.command!r}; one of open, set, stats, close")

    async def _open(self, request: Request) -> list[list[str]]:
        wanted = msgspec.convert(request.links, list[OpenLink])
        if len(self._proxies) + len(wanted) > MAX_LINKS:
            raise ValueError(f"more than {MAX_LINKS} links")
        named = {Link(each.src, each.dst): each for each in wanted}
        if len(named) < len(wanted):
            raise ValueError("a link is named twice")
        for link in named:
            if link in self._proxies:
                raise ValueError(f"{link} is open already")
        targets = {link: split_address(each.target) for link, each in named.items()}
        async with asyncio.timeout(RESOLVE_WITHIN_S):
            hosts = {request.host, *(host for host, _ in targets.values())}
            found = {host: await _resolve(host) for host in hosts}
        addresses = {
            link: (
                _at_port(found[targets[link][0]], targets[link][1]),
                _at_port(found[request.host], each.port),
            )
            for link, each in named.items()
        }
        opened: dict[Link, LinkProxy] = {}
        ports: dict[Link, int] = {}
        try:
            for link, (target, listen) in addresses.items():
                chance = random.Random(f"{request.seed} {link}")
                opened[link] = LinkProxy(link, target, listen, chance, request.connect_within_s)
                ports[link] = opened[link].open()
        except OSError:
            for proxy in opened.values():
                proxy.close()
            raise
        self._proxies |= opened
        host = f"[{request.host}]" if ":" in request.host else request.host
        return [[*link, f"{host}:{port}"] for link, port in ports.items()]

    def _set(self, wanted: list[SetLink]) -> None:
        faults = {Link(each.src, each.dst): each.fault for each in wanted}
        if unknown := [str(link) for link in faults if link not in self._proxies]:
            raise ValueError(f"no such link: {', '.join(unknown)}; nothing was set")
        failed = []
        for link, fault in faults.items():
            try:
                self._proxies[link].set(fault)
            except OSError as error:  # the others are set all the same: a heal must heal them
                failed.append(f"{link} ({error})")
        if failed:
            raise ValueError(f"cannot listen any more: {', '.join(failed)}")

    def close(self) -> None:
        """Close all links."""
        for proxy in self._proxies.values():
            proxy.close()
        self._proxies.clear()

    async def serve_control(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one control connection until it ends; one command after the other."""
        try:
            if len(self._controls) >= MAX_CONTROLS:
                await _answer(writer, {"id": None, "error": "too many control connections"})
                return
            self._controls.add(writer)
            while line := await self._line(reader, writer):
                await _answer(writer, await self._reply(line))
        except (OSError, TimeoutError, asyncio.CancelledError):
            # Cancelled only at the end of the process. Nobody awaits this task.
            pass
        finally:
            self._controls.discard(writer)
            writer.transport.abort()

    @staticmethod
    async def _line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            return await reader.readline()
        except ValueError:
            await _answer(writer, {"id": None, "error": f"a line over {MAX_LINE_BYTES} bytes"})
            return b""

    async def _reply(self, line: bytes) -> dict[str, Any]:
        number = None
        try:
            request = msgspec.json.decode(line, type=Request)
            number = request.id
            return {"id": number, "ok": True, **await self.answer(request)}
        except (msgspec.MsgspecError, ValueError, OSError, TimeoutError) as error:
            return {"id": number, "error": str(error) or type(error).__name__}


async def _answer(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(msgspec.json.encode(answer) + b"\n")
    async with asyncio.timeout(ANSWER_WITHIN_S):  # of a caller that does not read
        await writer.drain()


def split_address(address: str) -> tuple[str, int]:
    """("host", port) of "host:port" or "[v6]:port". Raises ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def _resolve(host: str) -> Address:
    found = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    family, _, _, _, address = found[0]
    return family, address


def _at_port(resolved: Address, port: int) -> Address:
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
    family, (host, _, *rest) = resolved
    return family, (host, port, *rest)


def raise_descriptor_limit() -> None:
    """Two descriptors a connection, and macOS starts with 256 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(10_240, wanted), hard))


async def serve(
    host: str, port: int, port_file: Path | None = None, opened: list[dict[str, Any]] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; writes "host:port" of the control to `port_file`.

    `opened`: links that are open from the start, on the control's host.
    """
    links = LinkServer()
    if opened:
        await links.answer(Request(id=0, command="open", host=host, links=opened))
    control = await asyncio.start_server(links.serve_control, host, port, limit=MAX_LINE_BYTES)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    chosen = control.sockets[0].getsockname()[1]
    if port_file is not None:
        # Whoever polls the file sees all of it or nothing.
        fresh = port_file.with_name(port_file.name + ".new")
        fresh.write_text(f"{host}:{chosen}\n")
        os.replace(fresh, port_file)
    try:
        await stop.wait()
    finally:
        control.close()
        links.close()


def _read_links(path: str) -> list[dict[str, Any]]:
    """The links of a file. Raises OSError, ValueError."""
    if not path:
        return []
    return msgspec.json.decode(Path(path).read_bytes(), type=list[dict[str, Any]])


def main(environ: Mapping[str, str]) -> int:
    """Run the proxies: `LINKS_CONTROL`=host:port, `LINKS_PORT_FILE`=path (optional).

    `LINKS_OPEN`=path (optional) is a JSON list of links that are open from the start, each as
    `{"src", "dst", "target", "port"}`.

    Returns the exit code: 0, 2 for a bad configuration, 1 when it cannot listen.
    """
    try:
        host, port = split_address(environ.get("LINKS_CONTROL", "127.0.0.1:0"))
    except ValueError as error:
        print(f"links: LINKS_CONTROL: {error}", file=sys.stderr)  # noqa: T201 - no log is up yet
        return 2
    port_file = Path(environ["LINKS_PORT_FILE"]) if environ.get("LINKS_PORT_FILE") else None
    if port == 0 and port_file is None:
        print("links: port 0 needs LINKS_PORT_FILE", file=sys.stderr)  # noqa: T201 - as above
        return 2
    raise_descriptor_limit()
    try:
        opened = _read_links(environ.get("LINKS_OPEN", ""))
        asyncio.run(serve(host, port, port_file, opened))
    except (OSError, ValueError) as error:
        print(f"links: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 1
    return 0
