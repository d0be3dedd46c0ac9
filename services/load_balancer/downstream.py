"""A client's connection: reads requests, answers them one after the other and in order.

Pipelined requests (RFC 9112, 9.3.2) wait in a queue, a short one; nothing more is read meanwhile.
Every wait for the client is bounded: for the end of a head from its *first* byte on (a slowloris
sends one byte every few seconds, each of which would start the time anew), for the next piece of a
body, for it to take what we send, for its next request. One timer does for all of them.

After an error in the middle of a request the connection cannot be used any more, but closing it
with unread bytes in the socket makes TCP reset it, and the client may lose the answer that says
what was wrong. So it is closed for writing first, and read to its end for a while (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from services.chassis.errors import BadRequest, InternalError, RequestTimeout, ServiceError
from services.load_balancer import heads
from services.load_balancer.errors import HeadersTooLarge, TooManyRequests, UriTooLong
from services.load_balancer.exchange import Exchange
from services.load_balancer.framing import HEAD_BYTES_MAX, Fields, read_request
from services.load_balancer.repeated import RepeatedRequest
from services.load_balancer.request_body import NO_BODY
from services.load_balancer.timer import EARLY_S, Timer

if TYPE_CHECKING:
    from services.load_balancer.proxy import Proxy

PIPELINED_MAX = 32
LINGER_S = 2.0
WRITE_BUFFER_BYTES = 64 << 10


class Downstream(asyncio.Protocol):
    """One connection of one client."""

    __slots__ = (
        "_body_of",
        "_closing",
        "_current",
        "_fields",
        "_head_since",
        "_lingering",
        "_parser",
        "_proxy",
        "_queue",
        "_reading_paused",
        "_repeated",
        "_send_until",
        "_silent",
        "_target",
        "_timer",
        "address",
        "address_bytes",
        "on_url",
        "transport",
    )

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._timer = Timer(proxy.loop, self._timed_out)
        self._parser: HttpRequestParser | None = None
        self._repeated = RepeatedRequest()
        self._target: list[bytes] = []  # pieces
        self.on_url = self._target.append  # of the parser's callbacks; see `Upstream`
        self._fields: Fields = []
        self._silent = 0  # bytes since anything came of them: an endless head, or trailer
        self._head_since: float | None = None  # when the first byte of an unfinished head came
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None  # the first of the queue, once it is its turn
        self._body_of: Exchange | None = None  # whose body is being read
        self._reading_paused = False
        self._send_until: float | None = None  # it takes no more of what we send
        self._closing = False  # what comes is thrown away
        self._lingering = False
        self.address = ""
        self.address_bytes = b""
        self.transport: asyncio.Transport

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self.address_bytes = self.address.encode()
        self._proxy.clients[self] = None
        refused = self._proxy.admission.connect(self.address)
        if refused is None:
            self._timer.set(self._proxy.loop.time() + self._proxy.times.keepalive_s)
        else:
            self._closing = True
            self.write(heads.problem(refused))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._timer.stop()
        self._proxy.gone(self)
        self._proxy.admission.disconnect(self.address)
        current, self._current = self._current, None
        self._queue.clear()
        if current is not None:
            current.client_gone()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        head = None if self._queue else self._repeated.read(data)
        if head is None:
            self._parse(data)
        else:
            self._queue.append(Exchange(self._proxy, self, head))
        current = self._current
        if current is None:
            if self._queue:
                self._next()
            elif self._head_since is None:
                self._head_since = self._proxy.loop.time()
        elif not current.body.sent:
            current.push()
        current = self._current
        if (
            current is not None
            and current.body.sent
            and (current.body is NO_BODY or not current.clogged)
            and len(self._queue) == 1
            and not self._reading_paused
            and self._send_until is None
        ):
            # What `reading_changed` comes to for most requests: only their deadline is watched.
            if current.deadline is None:
                self._timer.when = None
            else:
                self._timer.set(current.deadline)
        elif not self._closing or self._lingering:
            self.reading_changed()

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = HttpRequestParser(self)
        self._silent += len(data)
        queued, head = len(self._queue), None
        try:
            self._parser.feed_data(data)
        except HttpParserError as exc:
            self._trouble(data, exc)
        except HttpParserUpgrade as exc:
            self._trouble(data, exc)
        else:
            if len(self._queue) == queued + 1 and self._body_of is None:
                head = self._queue[-1].head
        self._repeated.parsed(data, head)
        if self._silent > HEAD_BYTES_MAX and not self._closing:
            self._broken(
                HeadersTooLarge(f"a head may have {HEAD_BYTES_MAX} bytes")
                if self._fields or not self._target
                else UriTooLong("the target is too long")
            )

    def _trouble(self, data: bytes, exc: Exception) -> None:
        """The parser has stopped somewhere in `data`."""
        while isinstance(exc, HttpParserUpgrade):
            # The upgrade is declined by not being answered: on with HTTP/1.1.
            data = data[exc.args[0] :]
            if not data:
                return
            assert self._parser is not None
            try:
                self._parser.feed_data(data)
            except (HttpParserError, HttpParserUpgrade) as next_exc:
                exc = next_exc
            else:
                return
        if isinstance(exc, HttpParserCallbackError):
            reason = exc.__context__
            if not isinstance(reason, ServiceError):
                self._proxy.log.error("a bug while a request was read", exc_info=reason)
                reason = InternalError("a bug in the balancer; its log has it")
            self._broken(reason)
            return
        last = self._queue[-1] if self._queue else None
        if last is not None and last.body.complete and not (last.head and last.head.keep_alive):
            self._closing = True  # bytes after a request that closes: nobody's
        else:
            self._broken(BadRequest(f"not HTTP/1.1: {exc}"))

    def pause_writing(self) -> None:
        self._send_until = self._proxy.loop.time() + self._proxy.times.send_s
        if self._current is not None and self._current.upstream is not None:
            self._current.upstream.pause()
        self._watch()

    def resume_writing(self) -> None:
        self._send_until = None
        if self._current is not None and self._current.upstream is not None:
            self._current.upstream.resume()
        elif self._current is None and self._queue:
            self._next()
        self._watch()

    # ------------------------------------------------------------------ httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))  # trailers come here, too, and are dropped

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        self._silent = 0
        self._head_since = None
        if len(self._queue) >= PIPELINED_MAX:
            raise TooManyRequests(f"{PIPELINED_MAX} pipelined requests wait already")
        version = parser.get_http_version()
        target = self._target[0] if len(self._target) == 1 else b"".join(self._target)
        head = read_request(parser.get_method(), target, version, self._fields)
        self._fields = []
        self._target.clear()
        exchange = Exchange(self._proxy, self, head)
        self._queue.append(exchange)
        self._body_of = None if exchange.body.complete else exchange

    def on_body(self, data: bytes) -> None:
        self._silent = 0
        if self._body_of is not None:
            self._body_of.body.add(data)

    def on_message_complete(self) -> None:
        self._silent = 0
        if self._fields:
            self._fields = []  # trailers
        if self._body_of is not None:
            self._body_of.body.complete = True
            self._body_of = None

    # ------------------------------------------------------------------ requests in turn

    def _broken(self, error: ServiceError) -> None:
        """Nothing that comes now can be understood."""
        self._closing = True
        self._head_since = None
        victim, self._body_of = self._body_of, None
        if victim is None:
            self._queue.append(Exchange(self._proxy, self, None, error))
        elif victim is self._current:
            victim.give_up(error)
        else:
            victim.error = error

    def _next(self) -> None:
        """The first of the queue, unless the client has yet to take what is there for it."""
        if self._current is None and self._queue and self._send_until is None:
            self._current = self._queue[0]
            self._current.start()

    def _next_in_turn(self) -> None:
        self._next()
        self.reading_changed()

    def exchange_done(self, keep: bool, now: float) -> None:
        """The current request is answered; `keep`: the connection may be used for another."""
        if self._current is None:
            return  # the connection is gone already
        self._queue.popleft()
        done, self._current = self._current, None
        if self._body_of is done:
            self._body_of = None
        if not keep or (self._closing and not self._queue):
            self._close(linger=not done.body.complete or done.head is None)
        elif self._queue:
            # Not here: a row of requests that are refused at once would be a deep recursion.
            self._proxy.loop.call_soon(self._next_in_turn)
        elif self._fields or self._target or self._silent:
            self._head_since = now  # a part of the next one is here already
            self.reading_changed()
        else:
            timer, when = self._timer, now + self._proxy.times.keepalive_s
            timer.when = when
            if when < timer.armed_for:
                timer.set(when)
            if self._reading_paused:
                self.reading_changed()

    def reading_changed(self) -> None:
        """Read on, or stop: what waits for somebody else is not to pile up here."""
        if self._closing and not self._lingering:
            return
        current = self._current
        waiting = not self._lingering and (
            len(self._queue) > 1 or (current is not None and current.clogged)
        )
        if waiting is not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = waiting
            if waiting:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()
        self._watch()

    # ------------------------------------------------------------------ time

    def _watch(self) -> None:
        """Set the timer for what is being waited for."""
        times, current = self._proxy.times, self._current
        now = self._proxy.loop.time()
        if self._lingering:
            return
        if current is not None:
            when = current.deadline
            client = self._send_until
            if client is None and not current.body.complete and not self._reading_paused:
                client = now + times.body_s
            if client is not None and (when is None or client < when):
                when = client
            if when is None:
                self._timer.clear()
            else:
                self._timer.set(when)
        elif self._head_since is not None:
            self._timer.set(self._head_since + times.header_s)
        elif not self._queue:
            self._timer.set(now + times.keepalive_s)

    def _timed_out(self) -> None:
        # A hair too early is in time: it was the deadline all the same, and not the body's fault.
        current, now = self._current, self._proxy.loop.time() + EARLY_S
        if self._lingering or self.transport.is_closing():
            self.transport.abort()
        elif current is not None and current.deadline is not None and now >= current.deadline:
            current.deadline_over()
        elif self._send_until is not None:
            self.transport.abort()  # it takes nothing, so there is no telling it either
        elif current is not None:
            self._closing = True
            current.give_up(RequestTimeout("the rest of the body did not come in time"))
        elif self._head_since is not None:
            self._broken(RequestTimeout("the head did not come in time"))
            self._next()
        else:
            self._close(linger=False)

    # ------------------------------------------------------------------ writing, closing

    def write(self, data: bytes) -> None:
        """Send; nothing happens on a connection that is going down (uvloop would raise)."""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """Cut off: the client must see that its answer is not whole."""
        self._closing = True
        self.transport.abort()

    def close_if_idle(self) -> None:
        """Drain: a connection without a request is not waited for."""
        if not self._queue and self._head_since is None:
            self._close(linger=False)

    def _close(self, *, linger: bool) -> None:
        self._closing = True
        self._queue.clear()  # what is behind is not answered, so it must not be carried out
        if self.transport.is_closing():
            # The client has hung up halfway; what it has not taken yet does not stay for ever.
            self._timer.set(self._proxy.loop.time() + self._proxy.times.send_s)
            return
        if linger and self.transport.can_write_eof():
            self._lingering = True
            self.transport.write_eof()
            self.reading_changed()
            self._timer.set(self._proxy.loop.time() + LINGER_S)
        else:
            self.transport.close()
            # What we still have for it goes out; but not for ever.
            self._timer.set(self._proxy.loop.time() + self._proxy.times.send_s)
