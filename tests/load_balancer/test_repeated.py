"""What is kept of heads that repeat themselves: it saves time, and changes nothing that is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.chassis.errors import ServiceError
from services.load_balancer import downstream, repeated
from services.load_balancer.backends import Backend
from services.load_balancer.downstream import Downstream
from services.load_balancer.framing import RequestHead, ResponseHead
from services.load_balancer.request_body import NO_BODY, RequestBody
from services.load_balancer.upstream import Upstream

ONCE = b"GET /a HTTP/1.1\r\nHost: t\r\nAccept: */*\r\n\r\n"
TIMES = SimpleNamespace(keepalive_s=1.0, header_s=1.0, body_s=1.0, send_s=1.0, answer_s=1.0,
                        backend_keepalive_s=1.0, backend_idle_max=8)  # fmt: skip


class Loop:
    """No time passes, and what is to come soon comes when `run` is called."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        return SimpleNamespace(cancel=lambda: None)

    def run(self) -> None:
        while self.soon:
            self.soon.pop(0)()


def transport() -> asyncio.Transport:
    """That takes everything."""
    closed: list[bool] = []
    return cast(asyncio.Transport, SimpleNamespace(
        is_closing=lambda: bool(closed), close=lambda: closed.append(True),
        abort=lambda: closed.append(True), write=lambda data: None, can_write_eof=lambda: False,
        set_write_buffer_limits=lambda high: None, get_extra_info=lambda name: ("c", 1),
        get_write_buffer_size=lambda: 0, pause_reading=lambda: None, resume_reading=lambda: None,
    ))  # fmt: skip


# ---------------------------------------------------------------------------- requests


class Taken:
    """In place of an exchange: answered as soon as all of its body is here."""

    seen: list[Taken]
    deadline = upstream = None
    clogged = False

    def __init__(
        self, proxy: Any, client: Downstream, head: RequestHead | None, error: Any = None
    ) -> None:
        self.client, self.head, self.error = client, head, error
        self.body = RequestBody(head.framing, 1 << 20) if head and head.framing else NO_BODY
        self.seen.append(self)

    def start(self) -> None:
        if self.error is not None or self.head is None:
            self.client.exchange_done(False, 0.0)
        elif self.body.complete:
            self.body.sent = True
            self.client.exchange_done(self.head.keep_alive, 0.0)

    push = start

    def give_up(self, error: ServiceError) -> None:
        self.error = error
        self.client.exchange_done(False, 0.0)

    def told(self) -> tuple[object, ...]:
        """All that an exchange would know of it."""
        head = self.head and [getattr(self.head, name) for name in RequestHead.__slots__]
        body = b"".join(self.body._pieces), self.body.complete
        return head, body, type(self.error)


def requests(pieces: Sequence[bytes], *, kept: bool) -> list[tuple[object, ...]]:
    """What a connection makes of them."""
    loop, seen = Loop(), list[Taken]()
    admission = SimpleNamespace(connect=lambda address: None, disconnect=lambda address: None)
    proxy = SimpleNamespace(loop=loop, times=TIMES, clients={}, admission=admission)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downstream, "Exchange", type("Here", (Taken,), {"seen": seen}))
        connection = Downstream(cast(Any, proxy))
        connection.connection_made(transport())
        connection._repeated._sure = kept
        for piece in pieces:
            connection.data_received(piece)
            loop.run()
    return [each.told() for each in seen]


MESSAGES = (
    *[ONCE] * 4,
    ONCE.replace(b"/a", b"/other?b=c"),
    ONCE.replace(b"GET", b"DELETE"),
    ONCE.replace(b"/a", b"http://else/a"),
    ONCE.replace(b"/a", b"*"),
    ONCE.replace(b"GET", b"PURGE"),
    ONCE.replace(b"GET", b"POST"),
    ONCE.replace(b"1.1", b"1.0"),
    ONCE.replace(b"Accept: */*", b"Accept: x"),
    ONCE.replace(b"Accept: */*", b"Connection: close"),
    ONCE.replace(b"Accept: */*", b"Upgrade: h2c"),
    ONCE.replace(b"Accept: */*", b"X-Request-Id: r1\r\nX-Deadline-Ms: 70\r\nIdempotency-Key: k"),
    ONCE.replace(b"Accept: */*", b"Content-Length: 0"),
    ONCE.replace(b"Accept: */*", b"X: %b" % ONCE.partition(b"\r\n")[0]),
    b"\r\n" + ONCE,
    b"\r\n",
    b"G",
    *[ONCE + b"G"] * 2,
    b"GET /a HTTP/1.1\r\nX: ",
    # Bodies that look like what was kept.
    b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(ONCE), ONCE),
    *[b"GET /a HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(ONCE), ONCE)] * 2,
    b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (len(ONCE), ONCE),
)


@st.composite
def streams(draw: st.DrawFn, messages: Sequence[bytes]) -> list[bytes]:
    """Messages as they might come: one by one, several in one piece, cut where it hurts."""
    pieces = draw(st.lists(st.sampled_from(messages), min_size=1, max_size=8))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(pieces) - 1))
        if draw(st.booleans()) and at:
            pieces[at - 1 : at + 1] = [pieces[at - 1] + pieces[at]]
        else:
            cut = draw(st.integers(1, max(1, len(pieces[at]) - 1)))
            pieces[at : at + 1] = [part for part in (pieces[at][:cut], pieces[at][cut:]) if part]
    return pieces


@settings(max_examples=500)
@given(streams(MESSAGES))
def test_requests_are_read_as_without_it(pieces: list[bytes]) -> None:
    """Where the bytes are the same, so is what is made of them; elsewhere they are not taken for
    it: in a body, within a field, behind a byte of the next request."""
    assert requests(pieces, kept=True) == requests(pieces, kept=False)


def test_a_head_that_comes_again_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    parse = Downstream._parse

    def noted(self: Downstream, data: bytes) -> None:
        parsed.append(data)
        parse(self, data)

    monkeypatch.setattr(Downstream, "_parse", noted)
    other = ONCE.replace(b"/a", b"/b")
    found = requests([ONCE, other, ONCE, ONCE.replace(b": t", b": u"), ONCE], kept=True)

    assert parsed == [ONCE, ONCE.replace(b": t", b": u"), ONCE]
    assert [cast(list[bytes], head)[RequestHead.__slots__.index("target")]
            for head, _, _ in found] == [b"/a", b"/b", b"/a", b"/a", b"/a"]  # fmt: skip


def test_what_begins_within_a_field_is_kept_by_nobody() -> None:
    """The history of `repeated.py`: X would be added to the third request."""
    found = requests([b"GET /a HTTP/1.1\r\nX: ", ONCE, ONCE], kept=True)

    fields = RequestHead.__slots__.index("fields")
    heads = [cast(list[bytes], head) for head, _, _ in found]
    assert heads[0][fields] == b"X: GET /a HTTP/1.1\r\nAccept: */*\r\n"
    assert [head[fields] for head in heads[1:]] == [b"Accept: */*\r\n"]


def test_who_never_repeats_a_head_is_left_alone() -> None:
    kept = repeated.RepeatedRequest()
    for number in range(repeated.PATIENCE + 1):
        data = ONCE.replace(b"*/*", b"%d" % number)
        assert kept.read(data) is None
        kept.parsed(data, RequestHead(b"GET", b"/a"))

    kept.parsed(ONCE, RequestHead(b"GET", b"/a"))
    assert kept.read(ONCE) is None


# ---------------------------------------------------------------------------- answers

FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: s\r\n\r\nab"
HALF = b"HTTP/1.1 100 Continue\r\n\r\nH"  # an answer, and a byte of the next one
ANSWERS = (
    *[FOUND] * 4,
    *[FOUND[:-2]] * 3,  # to HEAD
    FOUND.replace(b"ab", b"cd"),
    FOUND.replace(b"200 OK", b"503 No"),
    FOUND.replace(b"Server: s", b"Connection: close"),
    FOUND.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").replace(
        b"ab", b"2\r\nab\r\n0\r\n\r\n"
    ),
    FOUND.replace(b": 2", b": %d" % len(FOUND)).replace(b"ab", FOUND),
    FOUND.replace(b"Content-Length: 2\r\n", b""),
    FOUND.replace(b": 2", b": 0").replace(b"ab", b""),
    FOUND + b"H",
    FOUND + FOUND,
    *[b"HTTP/1.1 100 Continue\r\n\r\n"] * 2,
    *[b"HTTP/1.1 100 Continue\r\n\r\n" + FOUND] * 3,
    HALF,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: ",
    b"\r\n" + FOUND,
    b"no HTTP",
)


class Asked:
    """In place of an exchange: writes down what it is given."""

    def __init__(self, method: bytes, told: list[object]) -> None:
        self.method, self.told = method, told

    def answered(self, upstream: Upstream, now: float) -> None:
        head = upstream.head
        told = head and [getattr(head, name) for name in ResponseHead.__slots__]
        interims = [each.status for each in upstream.interims]
        upstream.interims.clear()
        self.told.append((told, interims, b"".join(upstream.pieces), upstream.complete,
                          upstream.unexpected))  # fmt: skip
        upstream.pieces.clear()
        if upstream.complete:
            upstream.release(now)

    def backend_broke(self, what: str) -> None:
        self.told.append(what)


def answers(pieces: Sequence[bytes], methods: list[bytes], *, kept: bool) -> list[object]:
    """What a connection makes of them; whenever it is idle, it is asked again."""
    told: list[object] = []
    backend = SimpleNamespace(idle=[], connections=0, draining=False, removed=False)
    upstream = Upstream(cast(Backend, backend), cast(Any, TIMES), cast(Any, Loop()))
    upstream.connection_made(transport())
    if not kept:
        upstream._repeated._patience = 0
    asked = iter(methods * len(pieces))
    for piece in pieces:
        if upstream.exchange is None and not upstream.transport.is_closing():
            backend.idle.clear()
            upstream.begin(cast(Any, Asked(next(asked), told)), b"", 0.0, whole=True)
        if not upstream.transport.is_closing() and told[-1:] != ["broke"]:
            upstream.data_received(piece)
        told.append(upstream.transport.is_closing())
    return told


@settings(max_examples=500)
@example([FOUND, HALF, FOUND], [b"GET"] * 3)
@given(streams(ANSWERS), st.lists(st.sampled_from([b"GET", b"HEAD"]), min_size=8, max_size=8))
def test_answers_are_read_as_without_it(pieces: list[bytes], methods: list[bytes]) -> None:
    assert answers(pieces, methods, kept=True) == answers(pieces, methods, kept=False)


def test_an_answer_whose_head_comes_again_is_not_parsed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[bytes | None] = []
    body = repeated.RepeatedAnswer.body

    def noted(self: repeated.RepeatedAnswer, data: bytes) -> bytes | None:
        used.append(body(self, data))
        return used[-1]

    monkeypatch.setattr(repeated.RepeatedAnswer, "body", noted)
    answers([FOUND, FOUND, FOUND.replace(b"ab", b"cd"), FOUND + b"e", FOUND], [b"GET"], kept=True)

    assert used == [None, b"ab", b"cd", None]  # and then it was closed: a byte too many
