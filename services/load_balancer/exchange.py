"""One request and its answer: which backend, how often, until when, and what the client is told.

    start ─▶ attempt ─▶ (connect) ─▶ send ─▶ answered … ─▶ finish
                ▲                       │
                └── wait ◀── failed ◀───┘   while it may be made again

**An attempt may be made again** only while nothing of an answer was passed on (a client cannot be
given a second beginning), while all of the body that was sent is still here, and if either the
request is idempotent or nothing of it was sent (the connection was refused): a POST whose answer
was lost may have been carried out. The policy (attempts, budget) then decides whether it is.

**Who is to blame** decides what a backend's breaker and outlier detector learn: a lost connection,
an answer that is no HTTP or none in time are the backend's. That the client went away, stalled in
its body, or gave too short a deadline says nothing of the backend; a probe that ended so is given
back to the breaker.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.chassis.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InternalError,
    ServiceError,
    TooLarge,
    Unavailable,
)
from services.load_balancer import heads
from services.load_balancer.errors import NoBackend, Overloaded
from services.load_balancer.framing import LAST_CHUNK, Framing, RequestHead, ResponseHead, chunk
from services.load_balancer.request_body import NO_BODY, RequestBody
from services.load_balancer.retries import MISDIRECTED, RETRIED_STATUSES
from services.load_balancer.upstream import Upstream

if TYPE_CHECKING:
    from services.load_balancer.backends import Backend
    from services.load_balancer.downstream import Downstream
    from services.load_balancer.proxy import Proxy

# A backend that had this long before its client's deadline passed has failed, too. With less
# nothing is known: a client could have every backend thrown out by asking with X-Deadline-Ms: 1.
FAIR_CHANCE_S = 1.0
CLIENT_GONE = "client-gone"
_CHUNKED = Framing.CHUNKED
CLIENT_GONE_STATUS = 499  # nginx's


class Exchange:
    """What is known of one request. `head` is None if its head could not be read: `error` says why.

    Times: `began` on the clock of telemetry, `deadline` on the event loop's, seconds.
    """

    continued = False  # the client has been told to go on with its body
    _connecting: asyncio.Task[None] | None = None
    _retry: asyncio.TimerHandle | None = None
    _attempt_at = 0.0  # event loop's clock
    _chunked: bool  # is the answer passed on in chunks? Known once there is one, as is the next
    _keep: bool  # may the client send another request after it?

    def __init__(
        self,
        proxy: Proxy,
        client: Downstream,
        head: RequestHead | None,
        error: ServiceError | None = None,
    ) -> None:
        # Assigned: 4 ns each. A default of the class costs 18 ns at every reading of it: above are
        # those that few requests read.
        self.proxy, self.client = proxy, client
        self.head, self.error = head, error
        self.method = head.method if head is not None else b""
        self.began = proxy.now()
        self.identity = proxy.identify(head)
        self.tried: list[str] = []
        self.attempts = self.answer_bytes = 0
        self.deadline: float | None = None
        self.admitted = self.finished = False
        self.backend: Backend | None = None
        self.upstream: Upstream | None = None
        self.answer: ResponseHead | None = None  # once there is one, it is being passed on
        self._key = ""
        self._began_attempt = self.began  # telemetry's clock
        self.body = NO_BODY
        if head is not None and head.framing:
            self.body = RequestBody(head.framing, proxy.config.retry_body_bytes)

    # ------------------------------------------------------------------ the request

    def start(self) -> None:
        """It is this request's turn on its connection."""
        proxy, head = self.proxy, self.head
        if self.error is not None or head is None:
            self.refuse(self.error or InternalError("a request without a head"))
            return
        most = proxy.config.body_bytes_max
        if head.framing and (head.length > most or self.body.received > most):
            self.refuse(self._too_large())
            return
        now = proxy.loop.time()
        if proxy.is_own(head):
            self.connect_to(proxy.own, now)
            return
        refused = proxy.admission.begin(self.client.address, now)
        if refused is not None:
            self.refuse(refused)
            return
        self.admitted = True
        proxy.retries.budget.record_request()
        budget_ms = head.deadline_ms or proxy.config.deadline_ms
        if budget_ms:
            self.deadline = now + budget_ms / 1000
        if proxy.hashes:
            self._key = proxy.hash_key(head, self.client)
        if proxy.line.waiting:
            proxy.line.advance()  # what has changed may have made room: for those before it first
        self._attempt(now)

    def push(self) -> None:
        """Send what has come of the body."""
        if self.body.received > self.proxy.config.body_bytes_max:
            self.give_up(self._too_large())
        elif self.upstream is not None and not self.upstream.sent:
            data = self.body.take()
            if data:
                self.upstream.write(data)
            if self.body.sent:
                self.upstream.request_sent()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"a body may have {self.proxy.config.body_bytes_max} bytes")

    @property
    def clogged(self) -> bool:
        """Is what has come of the body waiting for the backend? Then no more is to be read."""
        return self.body.full if self.upstream is None else self.upstream.writing_paused

    # ------------------------------------------------------------------ attempts

    def _attempt_again(self) -> None:
        self._retry = None
        self._attempt(self.proxy.loop.time())

    def _attempt(self, now: float) -> None:
        try:
            backend = self.proxy.backends.choose(self._key, now, self.tried)
        except ServiceError as exc:
            self._began_attempt = 0.0  # it begins after a wait in line, which is not the backend's
            if not (isinstance(exc, Overloaded) and self.proxy.line.join(self)):
                self.refuse(exc)
            return
        self.connect_to(backend, now)

    def choose(self, now: float) -> Backend:
        """Whom to ask; to be followed by `connect_to`. Raises NoBackend, Overloaded."""
        return self.proxy.backends.choose(self._key, now, self.tried)

    def connect_to(self, backend: Backend, now: float) -> None:
        """Ask it."""
        self.attempts += 1
        self.tried.append(backend.name)
        self.backend = backend
        backend.in_flight += 1
        backend.requests += 1
        self._attempt_at = now
        if self.attempts > 1 or not self._began_attempt:
            self._began_attempt = self.proxy.now()
        while backend.idle:
            upstream = backend.idle.pop()
            if not upstream.transport.is_closing():
                self._send(upstream, now)
                return
        self._connecting = self.proxy.loop.create_task(self._connect(backend))

    async def _connect(self, backend: Backend) -> None:
        try:
            upstream = await self.proxy.connect(backend)
        except OSError as exc:  # TimeoutError is one
            self._connecting = None
            why = str(exc) or "no connection in time"
            self._failed(NoBackend(f"{backend.name} takes no connection: {why}"), sent=False)
        else:
            self._connecting = None
            self._send(upstream, self.proxy.loop.time())

    def _send(self, upstream: Upstream, now: float) -> None:
        head, backend = self.head, self.backend
        assert head is not None
        assert backend is not None
        self.upstream = upstream
        left_ms = None
        if self.deadline is not None:
            left_ms = max(1, int((self.deadline - now) * 1000))
        first = heads.request_head(
            head,
            backend.host,
            self.client.address_bytes,
            self.proxy.via,
            self.identity.lines,
            left_ms,
            head.expects_continue and not self.continued and not self.body.received,
        )
        if head.framing:
            self.body.rewind()
            first += self.body.take()
        whole = self.body.sent
        upstream.begin(self, first, now, whole)
        if not whole:
            self.client.reading_changed()

    # ------------------------------------------------------------------ the answer

    def answered(self, upstream: Upstream, now: float) -> None:
        """Something of the answer has come: pass it on."""
        out: list[bytes] = []
        if upstream.interims:
            assert self.head is not None
            self.continued = heads.pass_interims(upstream.interims, self.head, self.continued, out)
        head, complete = upstream.head, upstream.complete
        if head is not None:
            if self.answer is None:
                status = head.status
                if status in RETRIED_STATUSES and self._try_again(sent=status != MISDIRECTED):
                    return
                out += self._begin_answer(head, now)
            pieces = upstream.pieces
            if pieces:
                data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                self.answer_bytes += len(data)
                out.append(chunk(data) if self._chunked else data)
            if self._chunked and complete:
                out.append(LAST_CHUNK)
        self.client.write(b"".join(out))
        if complete:
            assert head is not None
            self._complete(upstream, head.status, now)

    def _begin_answer(self, answer: ResponseHead, now: float) -> tuple[bytes, ...]:
        head, backend = self.head, self.backend
        assert head is not None
        assert backend is not None
        self.answer = answer
        old, unframed = head.old, answer.framing >= _CHUNKED
        # HTTP/1.0 knows no chunks: there the connection's end is the body's.
        self._chunked = unframed and not old
        self._keep = keep = head.keep_alive and not self.proxy.draining and not (old and unframed)
        backend.latency.observe(self.proxy.now() - self._began_attempt, now)
        return heads.answer_head(answer, old, keep, backend.served_by, self.identity.lines)

    def _complete(self, upstream: Upstream, status: int, now: float) -> None:
        backend, proxy = self.backend, self.proxy
        assert backend is not None
        backend.in_flight -= 1
        if proxy.line.waiting:
            proxy.line.place_freed()
        if self.admitted:
            if backend.clean and status < 500:
                backend.answers[status // 100] += 1  # nothing to be judged: most answers
            else:
                proxy.backends.answered(backend, status, now)
        self.upstream = None
        upstream.release(now)
        self._finish(status, "ok" if status < 500 else "backend-error")
        self.client.exchange_done(self._keep and self.body.complete and not proxy.draining, now)

    # ------------------------------------------------------------------ what goes wrong

    def backend_broke(self, what: str) -> None:
        """The backend's connection is lost, or what it sends is no answer."""
        name = self.backend.name if self.backend else "?"
        self._failed(ConnectionLost(f"{name}: {what}", backend=name), sent=True)

    def backend_timed_out(self) -> None:
        """No answer, or no more of it, or it takes no more of the request."""
        name = self.backend.name if self.backend else "?"
        self._failed(DeadlineExceeded(f"{name} did not answer in time", backend=name), sent=True)

    def _failed(self, error: ServiceError, *, sent: bool) -> None:
        self._remember(error)
        if self.answer is not None:
            self._drop(blame=True)
            self._finish(error.status, error.slug)
            self.client.abort()  # a cut-off answer must not look like a whole one
        elif not self._try_again(sent=sent, blame=True):
            self._drop(blame=True)
            self.refuse(error)

    def _remember(self, error: ServiceError) -> None:
        """For the end: the first error, but one that leaves open whether it happened before all."""
        if self.error is None or (self.error.definite and not error.definite):
            self.error = error

    def _try_again(self, *, sent: bool, blame: bool = False) -> bool:
        """Drop this attempt and make another, if that is allowed and can be paid for."""
        head, backend = self.head, self.backend
        assert head is not None
        assert backend is not None
        if not self.admitted or not self.body.replayable or not (head.idempotent or not sent):
            return False
        if head.expects_continue and not self.continued and sent and not self.body.complete:
            return False  # the client has not been told to send its body: the answer decides
        wait_s = self.proxy.retries.wait_s(self.attempts)
        if wait_s is None:
            return False
        status = self.upstream.head.status if self.upstream and self.upstream.head else 0
        if status in (502, 504):  # it may have been carried out
            self._remember(ConnectionLost(f"it answered {status}", backend=backend.name))
        self._drop(blame=blame, status=status)
        backend.retries += 1
        self._retry = self.proxy.loop.call_later(wait_s, self._attempt_again)
        return True

    def _drop(self, *, blame: bool, status: int = 0) -> None:
        """End the attempt without its answer. `status`: what the backend answered, if it did."""
        backend, upstream, line = self.backend, self.upstream, self.proxy.line
        line.leave(self)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.upstream = None
        if upstream is not None and upstream.complete:
            upstream.release(self.proxy.loop.time())
        elif upstream is not None:
            upstream.abort()
        if backend is None:
            return
        self.backend = None
        backend.in_flight -= 1
        line.place_freed()
        if not self.admitted:
            return  # our own face: nobody judges it
        now = self.proxy.loop.time()
        if status:
            self.proxy.backends.answered(backend, status, now)
        elif blame:
            self.proxy.backends.lost(backend, now)
        else:
            self.proxy.backends.abandoned(backend)

    def deadline_over(self) -> None:
        """The client waits no longer."""
        had_s = self.proxy.loop.time() - self._attempt_at
        waiting = self.upstream is not None and self.upstream.sent
        self.give_up(
            DeadlineExceeded("the deadline passed"), blame=waiting and had_s >= FAIR_CHANCE_S
        )

    def give_up(self, error: ServiceError, *, blame: bool = False) -> None:
        """End it: the client stalled in its body, or what came as its body is none."""
        if self.finished:
            return
        self._drop(blame=blame)
        if self.answer is not None:
            self._finish(error.status, error.slug)
            self.client.abort()
        else:
            self.refuse(error)

    def client_gone(self) -> None:
        """Nobody waits for the answer any more."""
        if not self.finished:
            self._drop(blame=False)
            self._finish(CLIENT_GONE_STATUS, CLIENT_GONE)

    def refuse(self, error: ServiceError) -> None:
        """Answer with an error of our own."""
        assert self.answer is None
        if isinstance(error, Unavailable):
            error = self.error or error  # what went wrong first says more; it may have happened
        self._drop(blame=False)
        keep = self.body.complete and not self.proxy.draining
        keep = keep and self.head is not None and self.head.keep_alive
        with_body = self.method != b"HEAD"
        data = heads.problem(error, self.identity.lines, keep=keep, with_body=with_body)
        self._finish(error.status, error.slug)
        self.client.write(data)
        self.client.exchange_done(keep, self.proxy.loop.time())

    def _finish(self, status: int, outcome: str) -> None:
        assert not self.finished
        self.finished = True
        proxy = self.proxy
        if self.admitted:
            proxy.admission.end()
        proxy.tell(self, status, outcome, proxy.now())
