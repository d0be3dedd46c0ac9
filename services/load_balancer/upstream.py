"""A connection to a backend: sends one request at a time, reads its answer, waits in the pool.

The answer is parsed by llhttp and judged by `framing.read_response`; what cannot be read in one way
only is a broken backend. A connection is used again only if the answer was read to its end, the
request was sent to its end, and not one byte came after it: whatever follows would be taken for
the answer to somebody else's request.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from services.load_balancer.framing import (
    HEAD_BYTES_MAX,
    BadResponse,
    Fields,
    Framing,
    ResponseHead,
    read_response,
)
from services.load_balancer.repeated import RepeatedAnswer
from services.load_balancer.timer import Timer

if TYPE_CHECKING:
    from services.load_balancer.backends import Backend
    from services.load_balancer.exchange import Exchange
    from services.load_balancer.settings import Times

WRITE_BUFFER_BYTES = 64 << 10
ANSWER_HEAD_BYTES_MAX = 4 * HEAD_BYTES_MAX  # of a backend, which is trusted a little more


class Upstream(asyncio.Protocol):
    """One connection. `exchange` is whom it works for; None: it is idle, or gone.

    Two of the parser's callbacks only write down that they were called, into `pieces` and `_begun`:
    they are methods of lists, for a function of ours would take ten times as long.
    """

    __slots__ = (
        "_backend",
        "_begun",
        "_counted",
        "_fields",
        "_loop",
        "_parser",
        "_paused",
        "_repeated",
        "_silent",
        "_timer",
        "_times",
        "_whole",
        "complete",
        "exchange",
        "head",
        "interims",
        "on_body",
        "on_message_begin",
        "pieces",
        "sent",
        "transport",
        "unexpected",
        "writing_paused",
    )

    def __init__(self, backend: Backend, times: Times, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self._counted = False  # among the backend's connections
        self._times = times
        self._loop = loop
        self._timer = Timer(loop, self._timed_out)
        self._parser: HttpResponseParser | None = None
        self._repeated = RepeatedAnswer()
        self._fields: Fields = []
        self._silent = 0  # bytes since anything came of them: an endless head
        self._paused = False
        self.exchange: Exchange | None = None
        self.head: ResponseHead | None = None
        self.interims: list[ResponseHead] = []
        self.pieces: list[bytes] = []  # of the body, to be passed on
        self.on_body = self.pieces.append
        self._begun: list[None] = []  # messages that are not complete
        self.on_message_begin = partial(self._begun.append, None)
        self._whole = 0  # how many of `pieces` are the answer's, once it is complete
        self.complete = False
        self.sent = False  # the whole request
        self.unexpected = False
        self.writing_paused = False
        self.transport: asyncio.Transport

    # ------------------------------------------------------------------ use

    def begin(self, exchange: Exchange, data: bytes, now: float, whole: bool) -> None:
        """Work for `exchange`: send `data`, its head and what there is of its body."""
        self.exchange = exchange
        self.head = None
        self.complete = self.unexpected = False
        self.sent = whole
        if self.interims or self.pieces:
            self.interims.clear()
            self.pieces.clear()
        if whole:
            timer, when = self._timer, now + self._times.answer_s
            timer.when = when
            if when < timer.armed_for:
                timer.set(when)
        else:
            self._timer.clear()
        if not self.transport.is_closing():
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        """Send; nothing happens on a connection that is going down (uvloop would raise)."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def request_sent(self) -> None:
        """All of the request is on its way: now the backend's time runs."""
        self.sent = True
        if not self._paused:
            self._timer.set(self._loop.time() + self._times.answer_s)

    def pause(self) -> None:
        """The client is slow: read no more, and do not blame the backend for it."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()
            self._timer.clear()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
            self._watch()

    def release(self, now: float) -> None:
        """The answer is read: back into the pool, or hang up."""
        head, backend, times = self.head, self._backend, self._times
        idle = backend.idle
        self.exchange = self.head = None
        if (
            head is None
            or not head.reusable
            or not self.complete
            or not self.sent
            or self.unexpected
            or backend.draining
            or backend.removed
            or len(idle) >= times.backend_idle_max
            or self.transport.is_closing()
        ):
            self.close()
            return
        if self._paused:
            self.resume()
        idle.append(self)
        timer, when = self._timer, now + times.backend_keepalive_s
        timer.when = when
        if when < timer.armed_for:
            timer.set(when)

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._forget()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # answered before it was taken; nobody waits until it is
        else:
            self.transport.close()

    def abort(self) -> None:
        """Hang up at once. Idempotent."""
        self._forget()
        self.transport.abort()

    def uncount(self) -> None:
        """It is no connection any more. Idempotent."""
        if self._counted:
            self._counted = False
            self._backend.connections -= 1

    def _forget(self) -> None:
        self.exchange = None
        self._timer.stop()
        if self in self._backend.idle:
            self._backend.idle.remove(self)

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._backend.connections += 1
        self._counted = True

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()  # an answer that nobody asked for
            return
        now = self._loop.time()
        starts = self.head is None and not self._silent and not self._begun
        if starts and exchange.method != b"HEAD":
            body = self._repeated.body(data)
            if body is not None:
                self.head, self.complete, self._whole = self._repeated.head, True, 1
                self.pieces.append(body)
                exchange.answered(self, now)
                return
        parser = self._parser
        if parser is None:
            parser = self._parser = HttpResponseParser(self)
        self._silent += len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            exchange.backend_broke("it switches protocols, which nobody asked for")
            return
        except HttpParserError as exc:
            if not self.complete:  # else: something after the answer, as `unexpected` would be
                reason = exc.__context__ if isinstance(exc.__context__, BadResponse) else exc
                exchange.backend_broke(f"its answer is not HTTP: {reason}")
                return
            self.unexpected = True
        if self.complete:
            if self._begun or len(self.pieces) != self._whole:
                self.unexpected = True
                del self.pieces[self._whole :]
            elif starts and self.head is not None:
                self._repeated.parsed(data, self.head, sum(map(len, self.pieces)))
        else:
            if self.pieces:
                self._silent = 0
            elif self._silent > ANSWER_HEAD_BYTES_MAX:
                exchange.backend_broke("its answer has an endless head")
                return
            if self.sent and not self._paused:
                self._timer.set(now + self._times.answer_s)
        exchange.answered(self, now)

    def eof_received(self) -> None:
        head = self.head
        if self.exchange is None or head is None or self.complete:
            return
        if head.framing is Framing.UNTIL_CLOSE:
            self.complete = True
            self.exchange.answered(self, self._loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        self.uncount()
        exchange = self.exchange
        self._forget()
        if exchange is not None:
            exchange.backend_broke("the connection was lost")

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._watch()
        if self.exchange is not None:
            self.exchange.client.reading_changed()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.exchange is not None:
            self._watch()
            self.exchange.client.reading_changed()

    def _watch(self) -> None:
        """The backend's time runs while it has all of the request, or does not take more of it."""
        if (self.sent and not self._paused) or self.writing_paused:
            self._timer.set(self._loop.time() + self._times.answer_s)
        else:
            self._timer.clear()

    def _timed_out(self) -> None:
        if self.exchange is None:
            self.close()
        else:
            self.exchange.backend_timed_out()

    # ------------------------------------------------------------------ httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self.complete or self.exchange is None:
            return
        self._silent = 0
        parser, exchange = self._parser, self.exchange
        assert parser is not None
        status = parser.get_status_code()
        method = exchange.method
        fields, self._fields = self._fields, []
        head = read_response(status, parser.should_keep_alive(), fields, method)
        if status < 200:
            if status == 101:
                raise BadResponse("101, and nobody asked for it")
            self.interims.append(head)
            return
        self.head = head
        if method == b"HEAD":
            # llhttp waits for the body that the head speaks of: this parser is of no use any more.
            self._parser = None
            self.on_message_complete()

    def on_message_complete(self) -> None:
        self._silent = 0
        if self.complete:
            return  # of something that nobody asked for
        self._begun.clear()
        if self._fields:
            self._fields = []  # trailers
        if self.head is not None:  # else it was an interim answer
            self.complete = True  # whatever comes after this is unexpected
            self._whole = len(self.pieces)
