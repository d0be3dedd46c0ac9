"""Request smuggling: whatever can be read in two ways is refused, and nothing of it is passed on.

Each case names the section of RFC 9112 (or 9110) that forbids it. Behind every one of them comes a
request that would be the smuggled one: it must not reach the backend.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import BadRequest
from services.load_balancer.framing import (
    _RESPONSE_SPECIAL,
    _SPECIAL,
    _USUAL,
    FIELDS_MAX,
    HEAD_BYTES_MAX,
    Framing,
    chunk,
    read_request,
    read_response,
)
from services.load_balancer.request_body import RequestBody
from tests.load_balancer.rig import answer, read_answer, rig, until

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"Host: t", *lines))
    return b"POST / HTTP/" + version + b"\r\n" + head + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"

REFUSED = {
    # 6.3: "If a message is received without Transfer-Encoding and with an invalid Content-Length
    # header field, then the message framing is invalid … MUST respond with a 400".
    "6.3 CL.CL, different": post(b"Content-Length: 0", b"Content-Length: 35"),
    "6.3 CL.CL, alike": post(b"Content-Length: 35", b"Content-Length: 35"),
    "6.3 CL list": post(b"Content-Length: 0, 35"),
    "6.3 CL negative": post(b"Content-Length: -1"),
    "6.3 CL plus": post(b"Content-Length: +0"),
    "6.3 CL hexadecimal": post(b"Content-Length: 0x0"),
    "6.3 CL empty": post(b"Content-Length:"),
    "6.3 CL with underscore": post(b"Content-Length: 0_0"),
    "6.3 CL beyond 64 bits": post(b"Content-Length: 18446744073709551616"),
    "6.3 CL, a space inside": post(b"Content-Length: 3 5"),
    # 6.1: "A server MAY reject a request that contains both"; 6.3: "handled as an error".
    "6.1 CL.TE": post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "6.1 TE.CL": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"),
    # 6.1: "A server … MUST treat a Transfer-Encoding in an HTTP/1.0 message as if the framing is
    # faulty".
    "6.1 TE in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n", version=b"1.0"),
    # 6.3: chunked is not the final coding: "the server MUST respond with the 400".
    "6.3 TE gzip": post(b"Transfer-Encoding: gzip"),
    "6.3 TE chunked, gzip": post(b"Transfer-Encoding: chunked, gzip"),
    "6.1 TE chunked twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "6.1 TE chunked, chunked": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "6.3 TE identity": post(b"Transfer-Encoding: identity"),
    "6.3 TE xchunked": post(b"Transfer-Encoding: xchunked"),
    "6.3 TE, a tab": post(b"Transfer-Encoding: chunked\x0b", body=b"0\r\n\r\n"),
    "6.3 TE in quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "5.1 TE with a space before the colon": post(b"Transfer-Encoding : chunked"),
    # 5.1: "No whitespace is allowed between the field name and colon … MUST reject … with 400".
    "5.1 space before colon": post(b"Content-Length : 0"),
    "5.1 tab before colon": post(b"X\t: y"),
    "5.1 empty name": post(b": y"),
    "5.1 no colon": post(b"X"),
    "5.1 name with a control character": post(b"X\x00: y"),
    # 5.2: "A server that receives an obs-fold … MUST either reject … or replace".
    "5.2 obs-fold": post(b"X: y\r\n folded", b"Content-Length: 0"),
    "5.2 obs-fold of TE": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "5.2 space before the first field": b"POST / HTTP/1.1\r\n Host: t\r\n\r\n",
    # 2.2: a recipient of a bare CR "MUST consider that element to be invalid".
    "2.2 bare CR in a value": post(b"X: y\rContent-Length: 35"),
    "2.2 bare LF": b"POST / HTTP/1.1\nHost: t\nContent-Length: 35\n\n",
    "2.2 bare LF after a field": post(b"X: y\nContent-Length: 35"),
    "5.5 NUL in a value": post(b"X: a\x00b"),
    # 7.1: chunk-size = 1*HEXDIG, then chunk-ext, CRLF; chunk-data, CRLF.
    "7.1 chunk size 0x": post(CHUNKED, body=b"0x0\r\n\r\n"),
    "7.1 chunk size +": post(CHUNKED, body=b"+0\r\n\r\n"),
    "7.1 chunk size -": post(CHUNKED, body=b"-1\r\n\r\n"),
    "7.1 chunk size empty": post(CHUNKED, body=b"\r\n\r\n"),
    "7.1 chunk size, no digit": post(CHUNKED, body=b"g\r\n\r\n"),
    "7.1 chunk size beyond 64 bits": post(CHUNKED, body=b"10000000000000000\r\n"),
    "7.1 chunk size ends in LF": post(CHUNKED, body=b"1\na\r\n0\r\n\r\n"),
    "7.1 space after chunk size": post(CHUNKED, body=b"1 \r\na\r\n0\r\n\r\n"),
    "7.1 chunk longer than its size": post(CHUNKED, body=b"1\r\nabc\r\n0\r\n\r\n"),
    "7.1 chunk ends in LF": post(CHUNKED, body=b"1\r\na\n0\r\n\r\n"),
    # 3.2: "MUST respond with a 400 … to any HTTP/1.1 request message that lacks a Host header field
    # and to any request message that contains more than one … or … an invalid field value".
    "3.2 no Host": b"GET / HTTP/1.1\r\n\r\n",
    "3.2 two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "3.2 two Hosts alike": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "3.2 bad Host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "3.2 Host with a user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "3.2 absolute form with a user": b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "3.2 target without a slash": b"GET x HTTP/1.1\r\nHost: a\r\n\r\n",
    "3.2 target with a fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "3.2 target with a space": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "3.2 target with a control character": b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n",
    "3.2 asterisk of GET": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "2.3 HTTP/2": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "2.3 the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "2.3 HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "2.3 HTTP/0.9": b"GET /\r\n\r\n",
    # 9110, 7.6.1: Connection "MUST NOT" name a field that is intended for all recipients.
    "9110 7.6.1 Connection: Content-Length": post(
        b"Content-Length: 0", b"Connection: Content-Length"
    ),
    "9110 7.6.1 Connection: Host": post(b"Content-Length: 0", b"Connection: close, host"),
    "9110 7.8 upgrade with a body": post(
        b"Content-Length: 35", b"Connection: upgrade", b"Upgrade: h2c"
    ),
    # CGI and its heirs have one name for both spellings.
    "Content_Length": post(b"Content-Length: 0", b"Content_Length: 35"),
    "Transfer_Encoding": post(b"Content-Length: 0", b"Transfer_Encoding: chunked"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused(name: str) -> None:
    """400 as problem+json, the connection ends, and the backend hears nothing of it."""
    async with rig() as made:
        found = await made.raw(REFUSED[name] + SMUGGLED)
        asked = [request.target for request in made.backends[0].requests]

    assert [each.status for each in found] == [400]
    assert found[0].problem["definite"] is True
    assert found[0].headers["connection"] == "close"
    assert asked == []


async def test_no_tunnel_is_opened() -> None:
    async with rig() as made:
        for request in (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
                        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"):  # fmt: skip
            (found,) = await made.raw(request + SMUGGLED)
            assert found.status == 405
            assert "GET" in found.headers["allow"]
        assert made.backends[0].requests == []


async def test_bodies_of_every_framing_leave_the_next_request_where_it_is() -> None:
    """What is legitimate ends where it says; what follows is a request of its own."""
    async with rig() as made:
        for first in (
            post(b"Content-Length: 3", body=b"abc"),
            post(b"Content-Length: 35", body=SMUGGLED),
            post(b"transfer-encoding: CHUNKED", body=b"3;x=\"y\"\r\nabc\r\n000\r\nT: 1\r\n\r\n"),
            b"GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        ):  # fmt: skip
            made.backends[0].requests.clear()
            found = await made.raw(first + b"GET /next HTTP/1.1\r\nHost: t\r\n\r\n")
            assert [each.status for each in found] == [200, 200], first
            assert [each.target for each in made.backends[0].requests] == ["/", "/next"]


async def test_bytes_after_a_request_that_closes_are_nobodys() -> None:
    async with rig() as made:
        found = await made.raw(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n" + SMUGGLED)

        assert [each.status for each in found] == [200]
        assert len(made.backends[0].requests) == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"y" * 200_000, 431),
        (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"X: y\r\n" * (FIELDS_MAX + 1) + b"\r\n", 431),
        (b"GET /" + b"y" * 9000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
        (b"GET /" + b"y" * 200_000, 414),
        (post(CHUNKED, body=b"1\r\na\r\n0\r\nX: " + b"y" * 200_000), 431),
        (post(CHUNKED, body=b"1\r\na\r\n0\r\n" + b"X: y\r\n" * 30_000), 431),
        (post(CHUNKED, body=b"1;" + b"y" * 200_000), 431),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else f"{value[-50:-44]!r}+{len(value)}",
)
async def test_an_endless_head_ends(data: bytes, status: int) -> None:
    """RFC 9110, 15.5.15, RFC 6585, 5; trailers and chunk extensions are bounded as heads are."""
    async with rig() as made:
        found = await made.raw(data)

    assert [each.status for each in found] == [status]
    assert found[0].headers["connection"] == "close"


async def test_a_body_has_its_limit() -> None:
    async with rig(body_bytes_max=1000) as made:
        by_length = await made.raw(post(b"Content-Length: 1001"))
        body = b"".join(chunk(b"x" * 100) for _ in range(20))
        by_chunks = await made.raw(post(CHUNKED, body=body))
        fits = await made.raw(post(b"Content-Length: 1000", body=b"x" * 1000))

    assert [each[0].status for each in (by_length, by_chunks, fits)] == [413, 413, 200]


# ------------------------------------------------------------------ answers

OK = b"HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\nok"
EVIL = b"HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\nevil"
IN_CHUNKS = b"HTTP/1.1 200 x\r\n" + CHUNKED + b"\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: t\r\n\r\n"
INTERIM = b"HTTP/1.1 103 x\r\nLink: l\r\n\r\n"

POISONED = {
    "another answer": ("GET", OK + EVIL, b"ok"),
    "another answer's beginning": ("GET", OK + b"HTTP/1.1 2", b"ok"),
    "no HTTP": ("GET", OK + b"evil", b"ok"),
    "another one in chunks": ("GET", OK + IN_CHUNKS, b"ok"),
    "behind chunks": ("GET", IN_CHUNKS + EVIL, b"ok"),
    "behind an interim and its answer": ("GET", INTERIM + OK + EVIL, b"ok"),
    "a body to HEAD": ("HEAD", OK, b""),
    "another answer to HEAD": ("HEAD", OK.removesuffix(b"ok").replace(b"2\r", b"0\r") + EVIL, b""),
    "a body of 204": ("GET", b"HTTP/1.1 204 x\r\n\r\n" + EVIL, b""),
}


@pytest.mark.parametrize("name", POISONED)
async def test_what_comes_behind_an_answer_is_nobodys(name: str) -> None:
    """RFC 9112, 9.2: data behind an answer without a request to it: not a byte of it is passed on,
    and the connection is not used again, or it would be the next request's answer."""
    method, poison, body = POISONED[name]
    async with rig(1, retry_attempts=1) as made:
        backend = made.backends[0]
        backend.reply = poison
        reader, writer = await made.connect()
        writer.write(f"{method} /1 HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        found = await read_answer(reader, method=method)
        while found.status == 103:
            found = await read_answer(reader, method=method)
        assert found.body == body
        await until(lambda: made.backend("b1").connections == 0)
        backend.reply = answer(200, b"fine")
        writer.write(b"GET /2 HTTP/1.1\r\nHost: t\r\n\r\n")
        found = await read_answer(reader)
        assert (found.status, found.body) == (200, b"fine")
        assert [each.target for each in backend.requests] == ["/1", "/2"]


async def test_trailers_are_not_the_next_answers_fields() -> None:
    """The same connection, so the same parser: what it has left over belongs to nobody."""
    async with rig(1) as made:
        kept = []
        for reply in (IN_CHUNKS, OK):
            made.backends[0].reply = reply
            found = await made.ask()
            assert (found.status, found.body) == (200, b"ok")
            assert "x-trailer" not in found.headers
            kept += made.backend("b1").idle
        assert len(kept) == 2
        assert kept[0] is kept[1]


# ------------------------------------------------------------------ the pure rules

FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"Host", b"host", b"Content-Length", b"content-length", b"X", b"TE",
                         b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"X_Y",
                         b"Content_Length", b"traceparent", b"X-Deadline-Ms"]),
        st.sampled_from([b"t", b"0", b"5", b"05", b"-5", b"5, 5", b"chunked", b"gzip, chunked",
                         b"close", b"keep-alive, X", b"upgrade", b"100-continue", b"", b"x"]),
    ),
    max_size=8,
)  # fmt: skip


@given(FIELDS, st.sampled_from(["1.1", "1.0"]), st.sampled_from([b"GET", b"POST", b"HEAD"]))
def test_what_is_let_through_has_one_meaning(
    fields: list[tuple[bytes, bytes]], version: str, method: bytes
) -> None:
    """Judged once more, by what is written down here: one framing, one Host, nothing hop-by-hop."""
    try:
        head = read_request(method, b"/", version, fields)
    except BadRequest:
        return
    lower = [(name.lower(), value) for name, value in fields]
    lengths = [value for name, value in lower if name == b"content-length"]
    codings = [value for name, value in lower if name == b"transfer-encoding"]
    hosts = [value for name, value in lower if name == b"host"]

    assert len(lengths) + len(codings) <= 1
    assert hosts == [head.host] if hosts else version == "1.0"
    expected = Framing.CHUNKED if codings else Framing.LENGTH if lengths else Framing.NONE
    assert head.framing is expected
    assert not lengths or lengths[0].isdigit()
    passed = {line.partition(b":")[0].lower() for line in head.fields.split(b"\r\n") if line}
    assert passed <= {b"x", b"x_y"}
    if (b"connection", b"keep-alive, X") in lower:
        assert b"x" not in passed


@given(st.lists(st.binary(max_size=300)), st.integers(0, 1000), st.booleans())
def test_a_body_taken_twice_is_the_same(pieces: list[bytes], keep: int, chunked: bool) -> None:
    """What a second attempt sends is what the first one sent; what is too long to keep is not
    sent again."""
    body = RequestBody(Framing.CHUNKED if chunked else Framing.LENGTH, keep)
    first = b""
    for piece in pieces:
        body.add(piece)
        first += body.take()
    body.complete = True
    first += body.take()

    assert body.sent
    assert body.replayable is (len(b"".join(pieces)) <= keep)
    if not chunked:
        assert first == b"".join(pieces)
    if body.replayable:
        body.rewind()
        again = body.take()
        assert dechunk(again) == dechunk(first) if chunked else again == first


def dechunk(data: bytes) -> bytes:
    found = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        if not int(size, 16):
            assert data == b"\r\n"
            return found
        found += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]


def test_an_informational_answer_and_204_have_no_length() -> None:
    """RFC 9110, 8.6: "MUST NOT send a Content-Length header field in any response with a status
    code of 1xx or 204"."""
    for status in (100, 103, 204):
        head = read_response(status, True, [(b"Content-Length", b"0")], b"GET")
        assert head.fields == b""
        assert head.framing is Framing.NONE


def test_fields_stay_in_their_order() -> None:
    """RFC 9110, 5.3: "a proxy MUST NOT change the order of these field line values when forwarding
    a message"; nor of those whose name is spelled in an unusual way, or is not so usual."""
    brought = [(b"SET-COOKIE", b"1"), (b"Set-Cookie", b"2"), (b"X-A", b"3"), (b"x-b", b"4"),
               (b"Set-Cookie", b"5"), (b"Connection", b"close"), (b"set-cookie", b"6")]  # fmt: skip
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in brought if value != b"close")

    assert read_response(200, True, brought, b"GET").fields == lines
    assert read_request(b"GET", b"/", "1.1", [(b"Host", b"t"), *brought]).fields == lines


def test_what_is_usual_is_nothing_special() -> None:
    """A name that is passed on unseen must not be one that says where a body ends, or of ours."""
    for name in _USUAL:
        assert name.lower() not in _SPECIAL | _RESPONSE_SPECIAL
        assert b"_" not in name
