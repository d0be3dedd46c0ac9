"""Ask a member, in its own protocol, whether it is there: Redis and Kafka have no `/health/ready`.

The questions change nothing and need no client library. They serve the testbed (is it ready?) and
the nemesis (does the link still lead there?), on every substrate.

- Redis: `PING` with a payload, which comes back. (An HTTP request would be taken for an attack:
  Redis closes the connection at the word `Host:`.)
- Kafka: `ApiVersions` version 0, the one request that every broker answers to every client
  (KIP-511), with a correlation id that comes back. Ready is a broker that also lists itself in
  `Metadata`: before that, clients that ask it for topics are told of no broker at all.
"""

from __future__ import annotations

import asyncio
import struct
from typing import NamedTuple

from labs.harness.testbed.description import MemberKind

PONG = b"faultline-pong"
CORRELATION_ID = 0x464C0001
API_VERSIONS, METADATA = (18, 0), (3, 4)
ANSWER_BYTES_MAX = 1 << 20


class Question(NamedTuple):
    """Bytes to send, and what shows once in each answer to them."""

    asked: bytes
    mark: bytes


def question(kind: MemberKind, padding: int = 0) -> Question:
    """A harmless question to a server of that kind, `padding` bytes longer than need be."""
    if kind == "redis":
        pong = b"." * padding + PONG
        asked = b"*2\r\n$4\r\nPING\r\n$%d\r\n%b\r\n" % (len(pong), pong)
        return Question(asked, PONG + b"\r\n")
    return Question(_kafka_request(API_VERSIONS, padding=padding), CORRELATION_ID.to_bytes(4))


async def unready(kind: MemberKind, address: str, within_s: float) -> str:
    """Why the server at `address` ("host:port") is not ready; empty when it is. Never raises."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                ask = _redis_unready if kind == "redis" else _kafka_unready
                return await ask(reader, writer)
            finally:
                writer.transport.abort()
    except asyncio.IncompleteReadError:
        return "it closed the connection"
    except (OSError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


async def _redis_unready(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(b"PING\r\n")
    answer = (await reader.readuntil(b"\n")).decode(errors="replace").strip()
    return "" if answer == "+PONG" else answer  # "-LOADING Redis is loading the dataset in memory"


async def _kafka_unready(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    no_topics = struct.pack(">ib", 0, 0)  # and none are to be created
    writer.write(_kafka_request(METADATA, no_topics))
    size, _, _, brokers = struct.unpack(">iiii", await reader.readexactly(16))
    if not 12 <= size <= ANSWER_BYTES_MAX:
        return f"answers {size} bytes, which is not Kafka's protocol"
    return "" if brokers > 0 else "knows no broker yet"


def _kafka_request(api: tuple[int, int], body: bytes = b"", *, padding: int = 0) -> bytes:
    """Request header version 1: key, version, correlation id, client id; then the body."""
    client = b"faultline" + b"." * padding
    head = struct.pack(">hhih", *api, CORRELATION_ID, len(client)) + client
    return struct.pack(">i", len(head) + len(body)) + head + body
