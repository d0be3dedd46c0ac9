"""One simulated connection: two ends, and a pipe (pipe.py) for each direction between them.

End ── write ──▶ Pipe: queue of (due, bytes) ──▶ inbox of the other End ── data_received
                   ▲
          not while its stream is held, nor before due
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from labs.harness.testbed.simulation.pipe import FIN, PIPE_BYTES, RST, Pipe, Segment
from labs.harness.testbed.simulation.scheduler import Handle

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs.harness.testbed.simulation.loop import VirtualLoop
    from labs.harness.testbed.simulation.network import Route

RESET_WITHIN_NS = 50_000_000  # as the link proxies do: see labs/harness/links/proxy.py


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
        # One for all times: it waits for its turn at most once.
        self._delivery = Handle(self._deliver, (), loop, loop.context)
        self._run_soon = loop.simulation.ready
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
        if not self._scheduled and self._reading and self._protocol is not None:
            self._scheduled = True
            self._run_soon(self._delivery)

    def _schedule(self) -> None:
        if self.inbox and self._reading and not self._scheduled and self._protocol is not None:
            self._scheduled = True
            self._run_soon(self._delivery)

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
