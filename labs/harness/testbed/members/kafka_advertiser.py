"""Gives a Kafka broker that advertises one address a listener for each link.

    c1 ── link c1→kafka ──▶ listener of c1 ──┐
    n1 ── link n1→kafka ──▶ listener of n1 ──┴──▶ the broker

A broker of Apache Kafka has such listeners itself (`kafka_broker.py`); the embedded one has not,
and its clients would all leave their links for the one address that it tells them. What passes
here is handed on as it is, but for three answers that hold addresses: Metadata, FindCoordinator and
DescribeCluster. In them the broker's address is replaced by the link's. Both are a loopback
address and a port of four bytes, so nothing changes its length, and no schema need be known.
"""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

BROKER = "ADVERTISER_BROKER"
LISTENERS = "ADVERTISER_LISTENERS"
READY_FILE = "ADVERTISER_READY_FILE"
FRAME_BYTES_MAX = 64 << 20
WITH_ADDRESSES = frozenset({3, 10, 60})  # Metadata, FindCoordinator, DescribeCluster

Address = tuple[str, int]


class Connection:
    """One client's connection, and the one to the broker behind it."""

    def __init__(self, broker: Address, advertised: Address) -> None:
        self._told = _on_the_wire(broker)
        self._true = _on_the_wire(advertised)
        self._broker = broker
        self._rewrite: set[int] = set()  # correlation ids of requests under way

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either side hangs up; then both are."""
        streams = [writer]
        try:
            there, back = await asyncio.open_connection(*self._broker)
            streams.append(back)
            pumps = {
                asyncio.ensure_future(self._requests(reader, back)),
                asyncio.ensure_future(self._responses(there, writer)),
            }
            _, going = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in going:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # the broker is down: the client sees its connection end
        finally:
            for stream in streams:
                stream.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await _frame(reader, least=8)
            api, _, correlation_id = struct.unpack(">hhi", frame[4:12])
            if api in WITH_ADDRESSES:
                self._rewrite.add(correlation_id)
            writer.write(frame)
            await writer.drain()

    async def _responses(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await _frame(reader, least=4)
            (correlation_id,) = struct.unpack(">i", frame[4:8])
            if correlation_id in self._rewrite:
                self._rewrite.discard(correlation_id)
                frame = frame.replace(self._told, self._true)
            writer.write(frame)
            await writer.drain()


async def _frame(reader: asyncio.StreamReader, *, least: int) -> bytes:
    """One request or response with its size before it. Raises ConnectionError at the end."""
    try:
        size = await reader.readexactly(4)
        (length,) = struct.unpack(">i", size)
        if not least <= length <= FRAME_BYTES_MAX:
            raise ConnectionError(f"a frame of {length} bytes")
        return size + await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("hung up") from error


def _on_the_wire(address: Address) -> bytes:
    """A host (its length before it differs by version) and a port, as Kafka's answers hold them."""
    host, port = address
    return host.encode() + struct.pack(">i", port)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def serve(broker: Address, listeners: Mapping[Address, Address], ready: Path) -> None:
    """Serve until SIGTERM. `listeners`: where to listen, and what is advertised to who comes.

    The file `ready` appears once all of them listen.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    servers = []
    for listen, advertised in listeners.items():
        assert len(advertised[0]) == len(broker[0]), "an answer must not change its length"

        async def accept(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            advertised: Address = advertised,
        ) -> None:
            await Connection(broker, advertised).serve(reader, writer)

        servers.append(await asyncio.start_server(accept, *listen, reuse_port=True))
    ready.touch()
    await stop.wait()
    for server in servers:
        server.close()


def main(environ: Mapping[str, str]) -> int:
    """Run it: `ADVERTISER_BROKER` is host:port, `ADVERTISER_LISTENERS` is JSON, an object of what
    to advertise ("host:port") by where to listen, and `ADVERTISER_READY_FILE` a path."""
    listeners = json.loads(environ[LISTENERS])
    try:
        asyncio.run(
            serve(
                _address(environ[BROKER]),
                {_address(listen): _address(link) for listen, link in listeners.items()},
                Path(environ[READY_FILE]),
            )
        )
    except OSError as error:
        print(f"advertiser: {error}", file=sys.stderr)  # noqa: T201 - to its log
        return 1
    return 0
