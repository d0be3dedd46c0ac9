"""One simulated connection: two ends, and a pipe for each direction between them.

    End ── write ──▶ Pipe: queue of (due, bytes) ──▶ inbox of the other End ── data_received
                       ▲
              not while its stream is held, nor before due

A pipe is what kernel buffers, wire and link proxy are together: bytes wait in it for their latency
or for the heal. It delivers in order, and all that is due at an instant at once. What an end's
process wrote before it was killed still arrives; what it would have written after does not.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs.harness.links.stream import Shape
    from labs.harness.testbed.simulation.loop import VirtualLoop
    from labs.harness.testbed.simulation.network import Route

# Of one direction: what kernels and the link proxy take in before the sender has to wait.
PIPE_BYTES = 512 << 10
INBOX_BYTES = 256 << 10
RESET_WITHIN_NS = 50_000_000  # as the link proxies do: see labs/harness/links/proxy.py

FIN: Literal["FIN"] = "FIN"
RST: Literal["RST"] = "RST"
Segment = bytes | Literal["FIN", "RST"]


class Pipe:
    """One direction. `queued`: bytes that were written and have not arrived."""

    __slots__ = (
        "_armed_ns",
        "_last_due",
        "_piece",
        "_queue",
        "_route",
        "_shape",
        "_simulation",
        "choked",
        "queued",
        "sink",
        "source",
    )

    def __init__(self, route: Route, shape: Shape, source: End | None, sink: End | None) -> None:
        self.source = source
        self.sink = sink
        self.queued = 0
        self.choked = False  # the inbox is full
        self._route = route
        self._shape = shape
        self._simulation = route.simulation
        self._queue: deque[tuple[int, Segment, int]] = deque()  # due, what, when it was written
        self._last_due = 0
        self._armed_ns = 0  # when `_arrive` will look (0: it will not)
        self._piece = 0  # of the head: bytes that a paced link carries now

    def send(self, segment: Segment, written_ns: int) -> None:
        """Take in what was written at `written_ns`, which may be after a stall, in the future."""
        queue = self._queue
        if type(segment) is bytes:
            self.queued += len(segment)
            if self.sink is None and self.source is not None:
                self.source.connection.wrote()
            if queue:
                due, last, before_ns = queue[-1]
                if before_ns == written_ns and type(last) is bytes and not self._piece:
                    queue[-1] = (due, last + segment, before_ns)  # one segment, as Nagle would
                    return
        due = self._due(written_ns)
        queue.append((due, segment, written_ns))
        if len(queue) == 1:
            self._arm()

    def _due(self, written_ns: int) -> int:
        # Never before what was written earlier: jitter may not reorder a byte stream.
        shape = self._shape
        due = written_ns + self._route.latency_ns()
        if shape.delay_s:
            jitter_s = shape.random.uniform(-shape.jitter_s, shape.jitter_s)
            due += round((shape.delay_s + jitter_s) * 1e9)
        self._last_due = due = max(due, self._last_due)
        return due

    def refresh(self) -> None:
        """The fault has changed, or there is a sink now: what waits goes on, in order."""
        self._last_due = self._piece = 0
        now_ns = self._simulation.now_ns
        self._queue = deque(
            (self._settled_due(max(now_ns, written_ns)), segment, written_ns)
            for _, segment, written_ns in self._queue
        )
        self._arm()

    def _settled_due(self, from_ns: int) -> int:
        due = max(self._last_due, from_ns + self._route.latency_ns())
        self._last_due = due
        return due

    def _arm(self) -> None:
        if not self._queue or self._shape.held or self.sink is None:
            return
        due, segment, _ = self._queue[0]
        if self._shape.bytes_per_s and type(segment) is bytes and not self._piece:
            self._piece = min(len(segment), self._shape.read_bytes())
            carried_s = self._shape.due(self._piece, self._simulation.now_ns / 1e9)
            due = max(due, round(carried_s * 1e9))
            self._queue[0] = (due, segment, self._queue[0][2])
        if not self._armed_ns or due < self._armed_ns:
            self._armed_ns = due = max(due, self._simulation.now_ns)
            self._simulation.at(due, self._arrive)

    def _arrive(self) -> None:
        """Hand on what is due."""
        simulation, shape, sink = self._simulation, self._shape, self.sink
        now_ns = simulation.now_ns
        if now_ns < self._armed_ns:
            return  # armed anew meanwhile, for later
        self._armed_ns = 0
        if shape.held or sink is None:
            return
        queue = self._queue
        while queue and queue[0][0] <= now_ns:
            if sink.inbox_bytes >= INBOX_BYTES:
                self.choked = True
                return
            due, segment, written_ns = queue.popleft()
            if type(segment) is bytes:
                if self._piece:
                    segment, rest = segment[: self._piece], segment[self._piece :]
                    self._piece = 0
                    if rest:
                        queue.appendleft((due, rest, written_ns))
                        self._pass(segment, sink)
                        break
                self._pass(segment, sink)
            else:
                sink.receive(segment)
        self._arm()
        if self.source is not None and self.source.writing_paused and self.queued < PIPE_BYTES:
            self.source.may_write()

    def _pass(self, segment: bytes, sink: End) -> None:
        self.queued -= len(segment)
        self._shape.passed += len(segment)
        sink.receive(segment)

    def unchoke(self) -> None:
        """There is room in the inbox again."""
        self.choked = False
        self._arm()

    def forget_after(self, now_ns: int) -> None:
        """The sender was killed at `now_ns`: what it would have written later was never written."""
        while self._queue and self._queue[-1][2] > now_ns:
            _, segment, _ = self._queue.pop()
            if type(segment) is bytes:
                self.queued -= len(segment)

    def clear(self) -> None:
        """Nobody will read it."""
        self._queue.clear()
        self.queued = 0


class End(asyncio.Transport):
    """One end of a connection: the transport that its process sees."""

    def __init__(
        self, loop: VirtualLoop, connection: Connection, here: tuple[str, int], there: Any
    ) -> None:
        super().__init__({"sockname": here, "peername": there})
        self.loop = loop
        self.connection = connection
        self.out: Pipe  # set by the connection, as `incoming`
        self.incoming: Pipe
        self.inbox: list[Segment] = []
        self.inbox_bytes = 0
        self.writing_paused = False
        self._protocol: Any = None
        self._scheduled = False  # a `_deliver` is on its way
        self._reading = True
        self._closing = self._ended = self._wrote_end = False
        loop.ends[self] = None

    # ------------------------------------------------------------------ as the network sees it

    def begin(self, protocol: Any) -> None:
        """The connection is there; `protocol` is who talks over it."""
        self._protocol = protocol
        try:
            protocol.connection_made(self)
        except Exception as error:
            self._fatal(error)
            return
        self._schedule()

    def receive(self, segment: Segment) -> None:
        """Something has arrived. To whom has closed: then the sender is told so, by a reset."""
        if self._closing:
            peer = self.incoming.source
            if type(segment) is bytes and peer is not None and not peer.is_closing():
                self.out.send(RST, self.loop.simulation.now_ns)
            return
        self.inbox.append(segment)
        if type(segment) is bytes:
            self.inbox_bytes += len(segment)
        self._schedule()

    def _schedule(self) -> None:
        if self.inbox and self._reading and not self._scheduled and self._protocol is not None:
            self._scheduled = True
            self.loop.call_soon(self._deliver, context=self.loop.context)

    def _deliver(self) -> None:
        self._scheduled = False
        if self._closing or not self._reading:
            return
        inbox, self.inbox, self.inbox_bytes = self.inbox, [], 0
        if len(inbox) == 1 and type(inbox[0]) is bytes:
            data, last = inbox[0], None
        else:
            data = b"".join([each for each in inbox if type(each) is bytes])
            last = RST if RST in inbox else FIN if FIN in inbox else None
        try:
            if last == RST:  # which throws away what was not read
                self._lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
                return
            if data:
                self._protocol.data_received(data)
            if last == FIN and not self._closing:
                if not self._reading:
                    self.inbox.insert(0, FIN)
                elif not self._protocol.eof_received():
                    self.close()
        except Exception as error:
            self._fatal(error)
        if self.incoming.choked:
            self.incoming.unchoke()

    def may_write(self) -> None:
        """There is room again."""
        if self.writing_paused and not self.loop.dead:
            self.writing_paused = False
            self.loop.call_soon(self._protocol.resume_writing, context=self.loop.context)

    def die(self) -> None:
        """The process was killed; its kernel ends the connection. The protocol learns nothing."""
        if self._closing:
            return
        self._closing = self._ended = True
        now_ns = self.loop.simulation.now_ns
        self.out.forget_after(now_ns)
        unread = bool(self.inbox) or self._protocol is None
        self.out.send(RST if unread else FIN, now_ns)
        self._forget()

    @property
    def ended(self) -> bool:
        return self._ended

    def _lose(self, error: Exception | None) -> None:
        """The connection is gone; the protocol is told when this callback has ended."""
        self._closing = True
        self.loop.call_soon(self._tell_lost, error, context=self.loop.context)

    def _tell_lost(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            if self._protocol is not None:
                self._protocol.connection_lost(error)
        finally:
            self._forget()

    def _forget(self) -> None:
        self.loop.ends.pop(self, None)
        self.inbox.clear()
        self.inbox_bytes = 0
        if self.incoming.choked:
            self.incoming.unchoke()
        self.connection.settle()

    def _fatal(self, error: Exception) -> None:
        self.loop.call_exception_handler(
            {"message": "a protocol raised", "exception": error, "protocol": self._protocol}
        )
        self.abort()

    # ------------------------------------------------------------------ as its process sees it

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._wrote_end or not data:
            return
        pipe = self.out
        pipe.send(data if type(data) is bytes else bytes(data), self.loop.now_ns())
        if pipe.queued > PIPE_BYTES and not self.writing_paused:
            self.writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if not self._closing and not self._wrote_end:
            self._wrote_end = True
            self.out.send(FIN, self.loop.now_ns())

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._end(FIN)

    def abort(self) -> None:
        self._end(RST if self.inbox else FIN)

    def _end(self, how: Segment) -> None:
        if self._closing:
            return
        if how == RST or not self._wrote_end:
            self.out.send(how, self.loop.now_ns())
        self._lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return max(0, self.out.queued - PIPE_BYTES)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The pipe's own limit is what holds a sender back."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._closing and not self._reading:
            self._reading = True
            self._schedule()


class Connection:
    """From a dial to the end of both halves."""

    def __init__(self, route: Route, loop: VirtualLoop) -> None:
        self.route = route
        self.waiting = False  # taken in by the link, which does not connect it further
        self._dialling: asyncio.Future[None] | None = loop.create_future()
        self._refused = False
        here = ("127.0.0.1", route.network.next_port())
        self.client = End(loop, self, here, route.address)
        self.server: End | None = None
        self.request = Pipe(route, route.request, self.client, None)
        self.response = Pipe(route, route.response, None, self.client)
        self.client.out, self.client.incoming = self.request, self.response

    async def established(self) -> End:
        """Dial; returns the caller's end. Raises ConnectionRefusedError."""
        assert self._dialling is not None
        simulation = self.route.simulation
        simulation.at(simulation.now_ns + self.route.latency_ns(), self._arrives)
        try:
            await self._dialling
        except BaseException:
            self.client.abort()
            raise
        finally:
            self._dialling = None
        return self.client

    def _arrives(self) -> None:
        """The caller's first packet is where it is decided what becomes of it."""
        route = self.route
        if self.client.is_closing():
            return
        if route.refuses():
            self._answer(refused=True)
            return
        route.take(self)
        if route.resets_new():
            self.waiting = True
            self._later(RESET_WITHIN_NS, self._reset_if_still)
        elif route.request.held and not route.request.absorbs:
            self.waiting = True
        elif not self._connect():
            self._answer(refused=True)
            return
        self._answer(refused=False)

    def _answer(self, *, refused: bool) -> None:
        self._refused = refused
        self._later(self.route.latency_ns(), self._answered)

    def _later(self, after_ns: int, event: Callable[[], None]) -> None:
        self.route.simulation.at(self.route.simulation.now_ns + after_ns, event)

    def _answered(self) -> None:
        future = self._dialling
        if future is None or self.client.loop.dead:
            return
        self.client.loop.call_soon(self._wake, future, context=self.client.loop.context)

    def _wake(self, future: asyncio.Future[None]) -> None:
        if future.done():
            return
        if self._refused:
            self.route.forget(self)
            future.set_exception(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
        else:
            future.set_result(None)

    def _connect(self) -> bool:
        """The target's kernel accepts; its process learns of it in its own time."""
        listener = self.route.listener()
        if listener is None:
            self.route.target_refused += 1
            return False
        there = self.client.get_extra_info("sockname")
        server = self.server = End(listener.loop, self, listener.address, there)
        server.out, server.incoming = self.response, self.request
        self.request.sink, self.response.source = server, server
        self.request.refresh()
        listener.loop.call_soon(listener.accept, server, context=listener.loop.context)
        return True

    def refresh(self) -> None:
        """The link's fault has changed."""
        route = self.route
        if self.waiting:
            if route.resets_new():
                self._later(RESET_WITHIN_NS, self._reset_if_still)
                return
            if route.request.held and not route.request.absorbs:
                return
            self.waiting = False
            if not self._connect():
                self.reset()
                return
        else:
            self.request.refresh()
        self.response.refresh()

    def wrote(self) -> None:
        """The caller has sent something though it is not connected further: a link may reset it."""
        if self.waiting and self.route.resets_new():
            self._later(self.route.latency_ns(), self._reset_if_still)

    def _reset_if_still(self) -> None:
        if self.waiting and self.route.resets_new():
            self.route.resets += 1
            self.reset()

    def reset(self) -> None:
        """Both ends are told that it is over, now."""
        self.waiting = False
        for end in (self.client, self.server):
            if end is not None and not end.is_closing():
                end.inbox.clear()
                end.inbox_bytes = 0
                end.receive(RST)
        self.request.clear()
        self.response.clear()
        self.route.forget(self)

    def settle(self) -> None:
        """An end has gone: is anything left of the connection?"""
        if self.server is None:
            if self.waiting:  # as if it had never been: over a real cut its SYN would be lost, too
                self.route.request.abandoned += self.request.queued
            self.waiting = False
        elif not (self.client.ended and self.server.ended):
            return
        self.request.clear()
        self.response.clear()
        self.route.forget(self)
