"""Messages between nodes: one persistent WebSocket per *directed* link, frames batched.

The connection that n1 dials to n2 carries n1's messages only, so that the link `n1 → n2` can be
cut alone. What a peer sends arrives at `GET /peer`.

Raft and its kin tolerate loss, repetition and reordering, and that decides everything here:

- **Nothing is retried and nothing is acknowledged.** The core repeats what still matters.
- **Queues are bounded, and when one is full the oldest message goes.** The newest carries the
  newest term and commit index; the core would answer an old one with "stale". A queue that dropped
  the newest would deliver, after a partition of a minute, a minute of history before the present.
- **Old messages are dropped, not delivered late**, for the same reason (`AGE_MAX_S`).

*A stalled link.* A partition at a proxy holds the bytes: no error, the connection just falls
silent, for seconds or minutes, and then goes on. Kernel and proxy buffers would swallow megabytes
of heartbeats first and deliver them all at the end. So each link pings (WebSocket ping, answered
by the peer's aiohttp); after `STALL_S` with no pong nothing more is written, what comes is queued
under the rules above, and the pong that ends the silence releases it at once: no back-off to wait
for, which is why a stalled connection is not simply closed. After `DEAD_S` it is: the other side
may have forgotten it (power cut, table of a NAT box), and then no pong would ever come.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import aiohttp
from aiohttp import WSMsgType, web

from services.chassis.codec import FRAME_BYTES_MAX, Codec, CodecError, Frame
from services.chassis.config import Address
from services.chassis.errors import BadRequest, Unavailable
from services.chassis.sending import hang_up, start
from services.chassis.telemetry import Telemetry

NODE_HEADER = "X-Faultline-Node"
QUEUE_MESSAGES_MAX = 4_096
QUEUE_BYTES_MAX = 8 << 20
BATCH_BYTES = 1 << 20  # a frame is closed when it has reached this; one larger message goes alone
AGE_MAX_S = 1.0
PING_S = 0.25  # while something is being sent
IDLE_PING_S = 5.0  # else; 25 nodes have 600 links, and most of them idle
STALL_S = 1.0  # well above the round trip of any delay a lab injects and still calls a network
DEAD_S = 15.0
CONNECT_S = 5.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.010, 0.200  # capped low: a lab waits for it after each heal
_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)
SEND_BUFFER_BYTES = 256 << 10  # the kernel's part of what a stalled link may hold


class _Queued(NamedTuple):
    at: float
    name: str
    body: bytes
    traceparents: Sequence[str]
    term: int | None


class Link:
    """The outgoing link to one peer: a bounded queue and the connection that empties it."""

    def __init__(
        self,
        node: str,
        peer: str,
        address: Address,
        codec: Codec,
        random: Random,
        counts: Counts,
        telemetry: Telemetry | None,
    ) -> None:
        self.peer = peer
        self.connected = False
        self.stalled = False
        self.queued_bytes = 0
        self._node = node
        self._url = f"http://{address}/peer"
        self._codec = codec
        self._random = random
        self._counts = counts
        self._telemetry = telemetry
        self._frames = 0
        self._queue: deque[_Queued] = deque()
        self._wake = asyncio.Event()
        self._ws: aiohttp.ClientWebSocketResponse | None = None  # when its writer has nothing to do
        self._unfinished: Awaitable[None] | None = None
        self._ping_sent_at: float | None = None
        self._sent_since_ping = False
        self._loop = asyncio.get_running_loop()

    def enqueue(self, message: Any, traceparents: Sequence[str]) -> None:
        """Queue a message for the next `flush`; never blocks, may drop (see the module)."""
        name = type(message).__name__
        body = self._codec.encode_body(message)
        if len(body) > FRAME_BYTES_MAX // 2:
            self._counts.dropped["too_large"] += 1
            return
        term = _term_of(message) if self._telemetry and self._telemetry.enabled else None
        self._queue.append(_Queued(self._loop.time(), name, body, traceparents, term))
        self.queued_bytes += len(body)
        while len(self._queue) > QUEUE_MESSAGES_MAX or (
            self.queued_bytes > QUEUE_BYTES_MAX and len(self._queue) > 1
        ):
            self._drop_oldest("queue_full")

    def flush(self) -> None:
        """Send what is queued: now, if the connection is idle; or else when its turn comes.

        To wake the writer would cost another iteration of the event loop, on every node that a
        write passes through.
        """
        if not self._queue or not self.connected or self.stalled:
            return
        ws = self._ws
        if ws is not None and (frame := self._next_frame()) is not None:
            self._sent_since_ping = True
            self._unfinished = start(ws.send_bytes(frame))
        if self._queue or self._unfinished is not None:
            self._ws = None
            self._wake.set()

    def _drop_oldest(self, reason: str) -> None:
        self.queued_bytes -= len(self._queue.popleft().body)
        self._counts.dropped[reason] += 1

    def _next_frame(self) -> bytes | None:
        """All that is queued and still fresh, up to `BATCH_BYTES`; None: nothing to send now."""
        if self.stalled:
            return None
        oldest = self._loop.time() - AGE_MAX_S
        while self._queue and self._queue[0].at < oldest:
            self._drop_oldest("too_old")
        bodies: list[tuple[str, bytes]] = []
        traceparents: dict[str, None] = {}
        size, term = 0, None
        while self._queue and (not bodies or size + len(self._queue[0].body) <= BATCH_BYTES):
            item = self._queue.popleft()
            size += len(item.body)
            bodies.append((item.name, item.body))
            term = item.term
            if item.traceparents:
                traceparents.update(dict.fromkeys(item.traceparents))
            self._counts.sent[item.name] += 1
        self.queued_bytes -= size
        if not bodies:
            return None
        self._frames += 1
        if self._telemetry is not None and self._telemetry.enabled:
            names = "+".join(dict.fromkeys([name for name, _ in bodies]))
            self._telemetry.frame_sent(self.peer, self._frames, names, len(bodies), term)
        return self._codec.encode_frame(self._node, list(traceparents)[:256], bodies, self._frames)

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Dial, send, dial again; until cancelled."""
        backoff = BACKOFF_MIN_S
        while True:
            started = self._loop.time()
            try:
                await self._connect_and_pump(session)
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass  # told by `connected`; a log line per attempt would flood a partition's log
            finally:
                self.connected = self.stalled = False
                self._ws = self._unfinished = None
            if self._loop.time() - started > 1.0:
                backoff = BACKOFF_MIN_S  # it had worked for a while
            await asyncio.sleep(backoff * self._random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, BACKOFF_MAX_S)

    async def _connect_and_pump(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(CONNECT_S):
            ws = await session.ws_connect(
                self._url,
                headers={NODE_HEADER: self._node},
                compress=0,
                autoping=False,  # pongs are looked at here
                max_msg_size=1 << 16,  # nothing but control frames comes this way
                timeout=aiohttp.ClientWSTimeout(ws_close=0.1),
            )
        sock = ws.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.connected, self.stalled, self._ping_sent_at = True, False, None
        self._wake.set()
        loops = [self._write(ws), self._read(ws), self._ping(ws)]
        tasks = [asyncio.create_task(coroutine) for coroutine in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if sock is not None:
                # A polite close would first wait to flush what the stalled link still holds.
                hang_up(sock.fileno())
            await ws.close()

    async def _write(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """What `flush` could not send at once. While this waits to be woken, `flush` may send."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._unfinished is not None:
                unfinished, self._unfinished = self._unfinished, None
                await unfinished
            while (frame := self._next_frame()) is not None:
                self._sent_since_ping = True
                await ws.send_bytes(frame)  # waits while the connection's buffer is full
            self._ws = ws

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await ws.receive()
            if message.type is WSMsgType.PONG:
                self._ping_sent_at = None
                if self.stalled:
                    self.stalled = False
                    self.flush()
            elif message.type is WSMsgType.PING:
                await ws.pong(message.data)
            elif message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
                return
            elif message.type is WSMsgType.ERROR:
                raise ConnectionError(str(message.data))

    async def _ping(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        pinged_at = float("-inf")
        while True:
            now = self._loop.time()
            due = self._sent_since_ping or now - pinged_at > IDLE_PING_S
            if self._ping_sent_at is None and due:
                self._sent_since_ping = False
                self._ping_sent_at = pinged_at = now
                # Not wait_for: on Python 3.11 it swallows a cancellation that comes just as the
                # ping is done, and this task would not end.
                async with asyncio.timeout(DEAD_S):
                    await ws.ping()
            await asyncio.sleep(PING_S)
            silent_s = self._loop.time() - (self._ping_sent_at or self._loop.time())
            if silent_s > DEAD_S:
                raise ConnectionError(f"no pong for {silent_s:.0f} s")
            self.stalled = silent_s > STALL_S

    def status(self) -> dict[str, Any]:
        """For `/status`."""
        return {
            "connected": self.connected,
            "stalled": self.stalled,
            "queued": len(self._queue),
            "queued_bytes": self.queued_bytes,
        }


def _term_of(message: Any) -> int | None:
    """The protocol's epoch in a message, whatever its paper calls it."""
    for name in ("term", "epoch", "view", "ballot"):
        if type(term := getattr(message, name, None)) is int:
            return term
    return None


class Counts:
    """Messages by type (`dropped`: by reason) since the start."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = defaultdict(int)
        self.received: dict[str, int] = defaultdict(int)
        self.dropped: dict[str, int] = defaultdict(int)


class Transport:
    """The links of one node. To be made inside a running event loop.

    Args:
        peers: where to dial each peer (perhaps a proxy in front of it).
        on_frame: called, in the event loop, with each frame that arrives.
        telemetry: told of every frame that is sent or arrives.
    """

    def __init__(
        self,
        node: str,
        peers: Mapping[str, Address],
        codec: Codec,
        on_frame: Callable[[Frame], None],
        *,
        random: Random,
        log: Any,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.node = node
        self.counts = Counts()
        self._telemetry = telemetry
        self.links = {
            peer: Link(node, peer, address, codec, random, self.counts, telemetry)
            for peer, address in peers.items()
        }
        self._codec = codec
        self._on_frame = on_frame
        self._log = log
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._incoming: dict[web.WebSocketResponse, None] = {}  # in the order they came
        self._newest: dict[str, web.WebSocketResponse] = {}

    def start(self) -> None:
        """Begin to dial the peers."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )
        self._tasks = [
            asyncio.create_task(link.run(self._session), name=f"link to {link.peer}")
            for link in self.links.values()
        ]
        for task in self._tasks:
            task.add_done_callback(self._link_ended)

    def _link_ended(self, task: asyncio.Task[None]) -> None:
        """A link that nobody ended is a bug: silent, it would pass for a partition."""
        if not task.cancelled() and (error := task.exception()):
            self._log.error("a link broke", link=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Hang up in both directions."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        closing = [ws.close(code=aiohttp.WSCloseCode.GOING_AWAY) for ws in self._incoming]
        await asyncio.gather(*closing, return_exceptions=True)

    def send(self, message: Any, traceparents: Sequence[str] = ()) -> None:
        """Queue a message to `message.dst`. It goes out at `flush`, or is lost."""
        link = self.links.get(message.dst)
        if link is None:
            self.counts.dropped["unknown_peer"] += 1
            return
        link.enqueue(message, traceparents)

    def flush(self) -> None:
        """All that was queued in this iteration of the loop goes out, a frame per peer."""
        for link in self.links.values():
            link.flush()

    async def accept(self, request: web.BaseRequest) -> web.StreamResponse:
        """`GET /peer`: the incoming half of a peer's link, until it ends."""
        src = request.headers.get(NODE_HEADER, "")
        if src not in self.links:
            raise BadRequest(f"{NODE_HEADER} must name a peer: {', '.join(self.links)}")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise BadRequest("peers talk over a WebSocket")
        if len(self._incoming) >= 4 * len(self.links) + 4:
            raise Unavailable("too many connections from peers")
        ws = web.WebSocketResponse(compress=False, max_msg_size=FRAME_BYTES_MAX, timeout=0.5)
        await ws.prepare(request)
        self._incoming[ws] = None
        try:
            previous, self._newest[src] = self._newest.get(src), ws
            if previous is not None:
                # The peer dials anew only when it has given the old one up: it may be half-open.
                await previous.close(code=aiohttp.WSCloseCode.GOING_AWAY)
            await self._receive(ws, src)
        finally:
            self._incoming.pop(ws, None)
            if self._newest.get(src) is ws:
                del self._newest[src]
        return ws

    async def _receive(self, ws: web.WebSocketResponse, src: str) -> None:
        while True:  # `async for` takes another call for each frame
            message = await ws.receive()
            if message.type is not WSMsgType.BINARY:
                if message.type in _ENDS:
                    return
                continue
            try:
                frame = self._codec.decode_frame(message.data)
                if frame.src != src:
                    raise CodecError(f"a frame from {frame.src[:50]!r} on the link of {src}")
            except CodecError as exc:
                self.counts.dropped["malformed"] += 1
                self._log.warning("malformed frame; link closed", peer=src, error=str(exc)[:300])
                await ws.close(code=aiohttp.WSCloseCode.INVALID_TEXT)
                return
            if self._telemetry is not None and self._telemetry.enabled:
                self._telemetry.frame_received(src, frame.number)
            self._on_frame(frame)

    def status(self) -> dict[str, dict[str, Any]]:
        """Per peer, for `/status`."""
        return {peer: link.status() for peer, link in self.links.items()}
