"""A small, fast HTTP/1.1 load generator, closed or open loop, on raw asyncio protocols.

Run in a process of its own, so that its CPU time is not the server's or the runner's:

    python -m labs.harness.workloads.http_load < load.json

The input is a `Load`, the output a `Result`, both as JSON. Requests are given ready-made (raw
HTTP), and every client goes round them from a place of its own: no templates, no work per request
but to write bytes, find the end of the answer and look at the clock. aiohttp's client takes 72 µs
of CPU per request, this 15 to 20 (with uvloop, when it is installed, 5): with it, one would measure
the client.

*Closed loop*: each client sends its next request when it has its answer. That measures what the
server can do with `clients` callers; it is blind to what callers who do not wait would suffer
(coordinated omission), so its p99 must not be sold as a service level.

*Open loop* (`rate_per_s`): requests come at that rate whatever happens to earlier ones, and wait
for a free connection if they must; that wait counts. It is how to compare latencies: at a rate that
all can bear, for a saturated server's p99 is but the inverse of its throughput.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import cast

import msgspec

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop
except ImportError:  # Windows has none
    new_event_loop = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

ENDS_WITHIN_S = 10.0
EXAMPLE_BYTES = 300
WAITING_MAX = 10_000  # requests of an open loop without a connection: that server is saturated


@dataclass(slots=True)
class Load:
    """What to do: `clients` connections to `address` ("host:port"), first `warm_up_s` seconds that
    are not counted, then `duration_s` that are. `requests`: raw HTTP/1.1, keep-alive. `rate_per_s`:
    of an open loop; 0: a closed one."""

    address: str
    clients: int
    warm_up_s: float
    duration_s: float
    requests: list[str]
    rate_per_s: float = 0.0


@dataclass(slots=True)
class Result:
    """What came of it. Latencies in ms, of the answers that were good (2xx) and in time.

    `answers` counts all of them, the warm-up's too; `failures` those that were not 2xx, by status,
    with one of them as `example`; `cpu_s` is this process's own; `late_p99_ms`: an open loop's own
    fault, which no latency contains.
    """

    throughput: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    measured: int = 0
    answers: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    example: str = ""
    cpu_s: float = 0.0
    late_p99_ms: float = 0.0


class _Run:
    """What the connections of one run share."""

    def __init__(self, load: Load) -> None:
        self.requests = [request.encode() for request in load.requests]
        self.latencies: list[float] = []
        self.answers = 0
        self.failures: Counter[str] = Counter()
        self.example = ""
        self.measuring = False
        self.stopping = False
        self.open_loop = load.rate_per_s > 0
        self.idle: list[_Client] = []  # of an open loop
        self.waiting: deque[float] = deque()  # since when, of an open loop's requests
        self.late_s: list[float] = []

    def arrive(self, late_s: float) -> None:
        """A request of an open loop has come."""
        now = time.perf_counter()
        if self.measuring:
            self.late_s.append(late_s)
        if self.idle:
            self.idle.pop().send(now)
        elif len(self.waiting) < WAITING_MAX:
            self.waiting.append(now)
        else:
            self.fail("not sent", "no connection was free: the rate is more than it can bear")

    def fail(self, what: str, example: bytes | str) -> None:
        self.failures[what] += 1
        if not self.example:
            text = example if isinstance(example, str) else example.decode(errors="replace")
            self.example = text[:EXAMPLE_BYTES]


def response_end(data: bytes) -> int | None:
    """How long the response at the start of `data` is; None while some of it is missing."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = data[:head_end].lower()
    body = head_end + 4
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        end_of_line = head.find(b"\r\n", at + 2)
        length = head[at + 17 : end_of_line if end_of_line >= 0 else None]
        end = body + int(length)
        return end if len(data) >= end else None
    if b"\r\ntransfer-encoding: chunked" in head:
        last = data.find(b"\r\n0\r\n\r\n", head_end + 2)
        return last + 7 if last >= 0 else None
    return body


class _Client(asyncio.Protocol):
    """One connection with one request in flight."""

    def __init__(self, run: _Run, first: int, done: asyncio.Future[None]) -> None:
        self._run = run
        self._next = first
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._go_on()

    def _go_on(self) -> None:
        run = self._run
        if not run.open_loop:
            self.send(time.perf_counter())
        elif run.waiting:
            self.send(run.waiting.popleft())
        else:
            run.idle.append(self)

    def send(self, since: float) -> None:
        """Send the next request; its latency counts from `since` on."""
        requests = self._run.requests
        self._next = (self._next + 1) % len(requests)
        self._sent_at = since
        self._transport.write(requests[self._next])

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if response_end(data) is None:
            self._buffer = data
            return
        self._buffer = b""
        run = self._run
        run.answers += 1
        if data[9:10] != b"2":
            run.fail(data[9:12].decode(errors="replace"), data)
        elif run.measuring:
            run.latencies.append(time.perf_counter() - self._sent_at)
        if run.stopping:
            self.close()
        else:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.stopping:
            self._run.fail("connection lost", str(exc))
        if not self._done.done():
            self._done.set_result(None)


async def run_load(load: Load) -> Result:
    """Carry out `load` in this event loop. Raises OSError when the server is not there."""
    if not load.requests or load.clients < 1:
        raise ValueError("a load needs at least one client and one request")
    loop = asyncio.get_running_loop()
    run = _Run(load)
    host, _, port = load.address.rpartition(":")
    done = [loop.create_future() for _ in range(load.clients)]
    for number, future in enumerate(done):
        # Spread over the requests, so that the clients do not all write the same key at once.
        first = number * len(run.requests) // load.clients
        await loop.create_connection(lambda f=first, d=future: _Client(run, f, d), host, int(port))  # type: ignore[misc]
    everyone = asyncio.gather(*done)
    offering = loop.create_task(_offer(run, load.rate_per_s)) if run.open_loop else None
    await asyncio.wait([everyone], timeout=load.warm_up_s)
    run.measuring = True
    started = time.perf_counter()
    await asyncio.wait([everyone], timeout=load.duration_s)
    run.measuring = False
    seconds = time.perf_counter() - started
    run.stopping = True
    if offering is not None:
        offering.cancel()
        for client in run.idle:
            client.close()
    await asyncio.wait_for(everyone, ENDS_WITHIN_S)
    return _result(run, seconds)


async def _offer(run: _Run, rate_per_s: float) -> None:
    # Only now: a closed loop has no use for what that brings along.
    from labs.harness.workloads.open_loop import arrivals

    async for late_s in arrivals(lambda: rate_per_s, Random(0)):
        run.arrive(late_s)


def _result(run: _Run, seconds: float) -> Result:
    result = Result(
        answers=run.answers,
        measured=len(run.latencies),
        failures=dict(run.failures),
        example=run.example,
        cpu_s=time.process_time(),
    )
    if run.latencies:
        ordered = sorted(run.latencies)
        result.throughput = len(ordered) / seconds
        result.p50_ms = ordered[len(ordered) // 2] * 1000
        result.p99_ms = ordered[len(ordered) * 99 // 100] * 1000
        result.max_ms = ordered[-1] * 1000
    if run.late_s:
        result.late_p99_ms = sorted(run.late_s)[len(run.late_s) * 99 // 100] * 1000
    return result


def main() -> int:
    """A `Load` on standard input, a `Result` on standard output."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        result = runner.run(run_load(load))
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
