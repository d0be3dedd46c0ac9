"""Ask through a link, as a client does, and see what a caller there sees.

A probe is one question on a connection of its own: `GET /health/live` over HTTP to a node, and to
members what their kind asks in their own protocol (`Kind.question`). What it saw is named by
observation: `answered`, `refused`, `reset`, `closed` (ended without an answer), `silent` (nothing
yet), or `failed` (this machine could not even ask).

Silence needs care: on a busy machine an intact link may take a second to answer. So nobody here
waits for a fixed time and calls the rest cut. A link counts as silent only if its probes are still
unanswered after *later* probes on intact ways, to the same node above all, have been answered, and
some multiple of what those needed has passed besides.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, NamedTuple

from labs.harness.links.server import split_address
from labs.harness.testbed.members import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Speaks = str  # "http", or a kind of member
Saw = Literal["silent", "answered", "refused", "reset", "closed", "failed"]

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: probe\r\nAccept: */*\r\nUser-Agent: nemesis\r\n"
CLOSE = b"Connection: close\r\n\r\n"
HTTP_MARK = b"HTTP/1.1 "  # begins each answer
PADDING_BYTES = 4096  # of one request's header; servers allow 8190 in one field
MAX_PROBES = 400  # at a time
LEAST_SILENCE_S = 0.03
SILENCE_FACTOR = 3.0
RETRY_S = 0.01


class Way(NamedTuple):
    """A way to a server: the "host:port" to dial (a link's, or its own), and what it speaks."""

    address: str
    speaks: Speaks = "http"

    def request(self, count: int = 1, padding: int = 0) -> tuple[bytes, bytes]:
        """`count` requests, each with `padding` bytes more, and what shows once in each answer."""
        if self.speaks == "http":
            pad = b"X-Padding: " + b"." * padding + b"\r\n" if padding else b""
            return (REQUEST + pad + b"\r\n") * (count - 1) + REQUEST + pad + CLOSE, HTTP_MARK
        one = KINDS[self.speaks].question(padding)
        return one.opening + one.asked * count, one.mark

    @property
    def probe_bytes(self) -> int:
        """What one probe sends."""
        return len(self.request()[0])


class Seen(NamedTuple):
    """What one probe saw. Times in seconds of the event loop; `latency_s` of those that ended."""

    saw: Saw
    sent_at: float
    ended_at: float | None
    received: int

    @property
    def latency_s(self) -> float:
        return (self.ended_at or self.sent_at) - self.sent_at


class Probe(asyncio.Protocol):
    """One probe under way. `close()` it, whatever it saw."""

    def __init__(self, way: Way, *, requests: int = 1, padding: int = 0) -> None:
        self.way = way
        self._loop = asyncio.get_running_loop()
        self._answers_wanted = requests
        self.sent = 0
        self._bytes, self._mark = way.request(requests, padding)
        self._received = b""
        self._size = 0
        self._saw: Saw = "silent"
        self._transport: asyncio.Transport | None = None
        self.sent_at = self._loop.time()
        self._ended_at: float | None = None
        self.ended = asyncio.Event()
        self._dialling = asyncio.create_task(self._dial())

    def seen(self) -> Seen:
        """What it has seen until now."""
        return Seen(self._saw, self.sent_at, self._ended_at, self._size)

    def close(self) -> None:
        """Give up at once; no more is seen."""
        self._dialling.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _dial(self) -> None:
        host, port = split_address(self.way.address)
        try:
            await self._loop.create_connection(lambda: self, host, port)
        except ConnectionRefusedError:
            self._end("refused")
        except OSError as error:
            self._end(_ending(error))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._bytes)
        self.sent = len(self._bytes)

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        # Only the marks of answers are counted: any answer proves the way there and back.
        joined = self._received + data
        self._answers_wanted -= joined.count(self._mark)
        self._received = joined[1 - len(self._mark) :]  # less than a mark: counted once
        if self._answers_wanted <= 0:
            self._end("answered")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("closed" if exc is None else _ending(exc))

    def _end(self, saw: Saw) -> None:
        if self._ended_at is None:
            self._saw = saw
            self._ended_at = self._loop.time()
            self.ended.set()


def _ending(error: Exception) -> Saw:
    if isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
        return "reset"
    return "failed"


async def answer(way: Way, within_s: float) -> Seen:
    """Probe until an answer comes: the patience for an intact way on a busy machine.

    A refusal or a reset is tried again too (a node may be about to listen). Returns the last one
    seen after `within_s`.
    """
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        probe = Probe(way)
        try:
            async with asyncio.timeout_at(deadline):
                await probe.ended.wait()
        except TimeoutError:
            return probe.seen()
        finally:
            probe.close()
        if probe.seen().saw == "answered" or asyncio.get_running_loop().time() >= deadline:
            return probe.seen()
        await asyncio.sleep(RETRY_S)


async def answers(ways: Iterable[Way], within_s: float) -> dict[Way, Seen]:
    """`answer` of each way, all at the same time."""
    named = list(dict.fromkeys(ways))[:MAX_PROBES]
    seen = await asyncio.gather(*(answer(way, within_s) for way in named))
    return dict(zip(named, seen, strict=True))


class Round(NamedTuple):
    """What a round of probes found.

    `suspects`: per suspect way what its probes saw. `intact`: what those on intact ways saw.
    """

    began_at: float
    ended_at: float
    suspects: dict[Way, list[Seen]]
    intact: dict[Way, Seen]


async def silence_round(
    suspects: Sequence[Way], intact: Mapping[Way, object], within_s: float, *, waves: int = 2
) -> Round:
    """Probe `suspects` and see whether they stay silent while `intact` ones, sent later, answer.

    Takes as long as the intact ones need, at most `within_s` each wave, and ends at once when a
    suspect saw anything.
    """
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    probes: list[Probe] = []
    answered: dict[Way, Seen] = {}
    try:
        for _ in range(waves):
            probes += [Probe(way) for way in suspects]
            # One turn of the loop, so that the suspects' connections are under way first.
            await asyncio.sleep(0)
            answered |= await answers(intact, within_s)
            if _anything(probes) or any(seen.saw != "answered" for seen in answered.values()):
                break
        else:
            slowest_s = max((seen.latency_s for seen in answered.values()), default=0.0)
            patience_s = max(LEAST_SILENCE_S, min(within_s, SILENCE_FACTOR * slowest_s))
            youngest = max((probe.sent_at for probe in probes), default=began_at)
            await _wait_for_anything(probes, youngest + patience_s - loop.time())
        seen: dict[Way, list[Seen]] = {way: [] for way in suspects}
        for probe in probes:
            seen[probe.way].append(probe.seen())
        return Round(began_at, loop.time(), seen, answered)
    finally:
        for probe in probes:
            probe.close()


async def ended_round(suspects: Sequence[Way], within_s: float) -> Round:
    """One probe of each suspect, until all have ended or `within_s` has passed."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    probes = [Probe(way) for way in suspects]
    try:
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(probe.ended.wait() for probe in probes))
    except TimeoutError:
        pass
    finally:
        for probe in probes:
            probe.close()
    seen = {probe.way: [probe.seen()] for probe in probes}
    return Round(began_at, loop.time(), seen, {})


def _anything(probes: Iterable[Probe]) -> bool:
    return any(probe.ended.is_set() for probe in probes)


async def _wait_for_anything(probes: Sequence[Probe], within_s: float) -> None:
    if within_s <= 0 or not probes or _anything(probes):
        return
    waiting = [asyncio.ensure_future(probe.ended.wait()) for probe in probes]
    try:
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
