"""Where a message ends, and what of its head may be passed on. Pure: decides on parsed fields.

Request smuggling is two parsers that disagree about where a request ends: what the first takes for
a body the second takes for a request, sent by whoever uses that connection next. So nothing that
could be read in two ways is passed on: it is refused, with 400 and the end of the connection. And
what is passed on is written anew, in one spelling: no `Transfer-Encoding` or `Content-Length` of
the client's goes through, only ours.

The lexical rules (bare LF, obs-fold, space before the colon, NUL in values, chunk sizes) are
llhttp's, in its strict mode; `tests/load_balancer/test_smuggling.py` holds it to them. Here is what
needs a whole head: RFC 9112 sections 3.2 (Host), 6.1 to 6.3 (length of the body), 9.6 (close), RFC
9110 sections 7.6.1 (hop-by-hop fields) and 10.1.1 (Expect).

Where the RFC says SHOULD 501 for a transfer coding that is not known, this says 400, too: whoever
writes `gzip, chunked` to a balancer gets an answer that blames the request.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

from services.chassis.app import DEADLINE_MS_MAX
from services.chassis.errors import BadRequest, MethodNotAllowed
from services.chassis.http_client import DEADLINE_HEADER
from services.load_balancer.errors import ExpectationFailed, HeadersTooLarge, UriTooLong

HEAD_BYTES_MAX = 16 << 10
FIELDS_MAX = 100
TARGET_BYTES_MAX = 8 << 10
LENGTH_DIGITS_MAX = 18

LAST_CHUNK = b"0\r\n\r\n"

# RFC 9110 section 7.6.1, with those that are hop-by-hop by their own definition.
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
     b"upgrade", b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info")
)  # fmt: skip
# What `Connection` may not name: a field that says where the body ends or where it is for.
_NEVER_AN_OPTION = frozenset((b"host", b"content-length", b"transfer-encoding"))
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110, 9.2.2
_WITHOUT_BODY = frozenset((204, 304))
_PLAIN_CONNECTION = frozenset((b"close", b"keep-alive", b""))
# Names that nothing here looks at, as they are spelled nearly always: known without a copy in lower
# case. Whatever is not among them is looked at.
_USUAL = frozenset(
    b"Accept Accept-Encoding Accept-Language Accept-Ranges Age Allow Authorization Cache-Control "
    b"Content-Encoding Content-Language Content-Range Content-Type Cookie Date ETag Expires "
    b"If-Match If-Modified-Since If-None-Match If-Range Last-Modified Location Origin Pragma Range "
    b"Referer Retry-After Server Set-Cookie User-Agent Vary Via WWW-Authenticate accept "
    b"accept-encoding accept-language cache-control content-type cookie date etag server "
    b"user-agent Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Upgrade-Insecure-Requests".split()
)

# Visible ASCII without '#': a fragment is never sent.
_OF_TARGETS = re.compile(rb"[!\"$-~]+")
_ORIGIN_FORM = re.compile(rb"/[!\"$-~]*")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]*)([/?].*)?", re.DOTALL)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_DEADLINE = re.compile(rb"[0-9]{1,5}")

Fields = list[tuple[bytes, bytes]]


class BadResponse(Exception):
    """The backend's answer cannot be passed on: 502."""


class Framing(IntEnum):
    """How the end of a body is known."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3


_NONE, _LENGTH = Framing.NONE, Framing.LENGTH  # the class looks its members up at every access


class RequestHead:
    """A request that may be passed on, without the fields that we write ourselves.

    `fields` are whole lines. `target` is in origin form (or `*`); `host` comes from the target if
    that is absolute.
    """

    __slots__ = (
        "deadline_ms", "expects_continue", "fields", "forwarded_for", "framing", "host",
        "idempotent", "keep_alive", "length", "method", "old", "request_id", "target",
        "traceparent",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes) -> None:
        self.method = method
        self.target = target
        self.fields = self.host = self.forwarded_for = b""
        self.framing = _NONE
        self.length = 0
        self.keep_alive = True
        self.old = self.expects_continue = self.idempotent = False  # old: HTTP/1.0
        self.deadline_ms: int | None
        self.request_id: bytes | None
        self.traceparent: bytes | None
        self.deadline_ms = self.request_id = self.traceparent = None

    def again(self, method: bytes, target: bytes) -> RequestHead:
        """The same fields below another request line: an idempotent method, origin form."""
        head = RequestHead(method, target)
        head.fields, head.host, head.forwarded_for = self.fields, self.host, self.forwarded_for
        head.idempotent, head.keep_alive = True, self.keep_alive
        head.deadline_ms, head.request_id = self.deadline_ms, self.request_id
        head.traceparent = self.traceparent
        return head

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


class ResponseHead:
    """An answer that may be passed on. `reusable`: the backend keeps the connection; `length_line`:
    how long the body is, if a line says so."""

    __slots__ = ("fields", "framing", "length_line", "reusable", "status")

    def __init__(self, status: int, reusable: bool) -> None:
        self.status = status
        self.reusable = reusable
        self.fields = b""
        self.framing = _NONE
        self.length_line = b""


def read_request(method: bytes, target: bytes, version: str, fields: Fields) -> RequestHead:
    """Judge the head of a request. Raises BadRequest (after which nothing more can be read)."""
    if len(target) > TARGET_BYTES_MAX:
        raise UriTooLong(f"a target may have {TARGET_BYTES_MAX} bytes")
    if len(fields) > FIELDS_MAX:
        raise HeadersTooLarge(f"a head may have {FIELDS_MAX} fields")
    if version not in ("1.1", "1.0"):
        raise BadRequest(f"HTTP/{version[:20]} is not spoken here, HTTP/1.1 is")
    head = RequestHead(method, target)
    if method in _IDEMPOTENT:
        head.idempotent = True
    elif method in (b"CONNECT", b"TRACE"):
        allow = sorted(each.decode() for each in (*_IDEMPOTENT, b"POST", b"PATCH"))
        raise MethodNotAllowed(f"{method.decode()} is not passed on", allow=allow)
    if version == "1.0":
        head.old = True
    host: bytes | None = None
    lines: list[bytes] = []  # of plain fields
    special: dict[bytes, list[bytes]] = {}  # values by lower-case name
    for name, value in fields:
        if name in _USUAL:
            lines += (name, b": ", value, b"\r\n")
            continue
        lower = name.lower()
        if lower not in _SPECIAL:
            # Not `in`, which tries its operand as a number first: three times the time.
            if lower.find(b"_") >= 0 and lower.replace(b"_", b"-") in _SPECIAL:
                # Some backends read `Content_Length` as `Content-Length`: CGI has one name for both
                shown = name[:50].decode("latin-1")
                raise BadRequest(f"a field is named {shown}, with an underscore")
            lines += (name, b": ", value, b"\r\n")
        elif len(value) > HEAD_BYTES_MAX:
            raise HeadersTooLarge(f"a field may have {HEAD_BYTES_MAX} bytes")
        elif lower != b"host":
            special.setdefault(lower, []).append(value.strip(b" \t"))
        elif host is None:
            host = value.strip(b" \t")
        else:
            raise BadRequest("a request has one Host field, not two (RFC 9112, 3.2)")
    head.fields = b"".join(lines)
    if len(head.fields) > HEAD_BYTES_MAX:
        raise HeadersTooLarge(f"a head may have {HEAD_BYTES_MAX} bytes")
    authority = None if _ORIGIN_FORM.fullmatch(target) else _origin_form(head)
    if host is not None:
        if not _good_host(host):
            raise BadRequest("Host is a host name or address, with a port or without")
        head.host = host
    elif not head.old:
        raise BadRequest("a request has a Host field (RFC 9112, 3.2)")
    if authority is not None:
        if not _good_host(authority):
            raise BadRequest("the target names a host, with a port or without, and no user")
        head.host = authority
    if special or head.old:
        _request_body(head, special)
        _connection(head, special)
        if not _OWN.isdisjoint(special):
            _own_fields(head, special)
    return head


def _origin_form(head: RequestHead) -> bytes | None:
    """Bring the target into origin form; the authority that it named, if any (RFC 9112, 3.2.2)."""
    target = head.target
    if _OF_TARGETS.fullmatch(target) is None:
        raise BadRequest("the target holds a character that belongs percent-encoded")
    if target.startswith(b"/") or (target == b"*" and head.method == b"OPTIONS"):
        return None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest("the target is /path, http://host/path, or * of OPTIONS")
    rest: bytes = match[2] or b"/"
    head.target = rest if rest.startswith(b"/") else b"/" + rest
    return bytes(match[1])


@lru_cache(maxsize=256)
def _good_host(host: bytes) -> bool:
    return len(host) <= 260 and _HOST.fullmatch(host) is not None


def _request_body(head: RequestHead, special: dict[bytes, list[bytes]]) -> None:
    codings = special.get(b"transfer-encoding")
    lengths = special.get(b"content-length")
    if codings is not None:
        # RFC 9112, 6.1: both together "might indicate an attempt at request smuggling"; with
        # HTTP/1.0 the framing is faulty.
        if lengths is not None:
            raise BadRequest("Content-Length beside Transfer-Encoding (RFC 9112, 6.1)")
        if head.old:
            raise BadRequest("Transfer-Encoding in an HTTP/1.0 request (RFC 9112, 6.1)")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise BadRequest("the only transfer coding that is read is chunked (RFC 9112, 6.3)")
        head.framing = Framing.CHUNKED
    elif lengths is not None:
        head.length = _length(lengths)
        head.framing = Framing.LENGTH
    if b"upgrade" in special and head.framing:
        # llhttp takes a request that asks for an upgrade as one without a body.
        raise BadRequest("a request with a body cannot ask for an upgrade")


def _length(lengths: list[bytes]) -> int:
    """RFC 9112, 6.3: several or invalid lengths are an unrecoverable error."""
    if len(lengths) != 1:
        raise BadRequest(f"Content-Length is given {len(lengths)} times (RFC 9112, 6.3)")
    if not lengths[0].isdigit() or len(lengths[0]) > LENGTH_DIGITS_MAX:
        raise BadRequest("Content-Length is a decimal number (RFC 9110, 8.6)")
    return int(lengths[0])


@lru_cache(maxsize=256)
def _options(values: tuple[bytes, ...]) -> frozenset[bytes]:
    return frozenset(option.strip(b" \t").lower() for option in b",".join(values).split(b","))


def _connection(head: RequestHead, special: dict[bytes, list[bytes]]) -> None:
    values = special.get(b"connection")
    if values is None:
        head.keep_alive = not head.old
        return
    options = _options(tuple(values))
    if not options.isdisjoint(_NEVER_AN_OPTION):
        raise BadRequest("Connection names a field that every recipient needs")
    head.keep_alive = b"close" not in options and (not head.old or b"keep-alive" in options)
    if not options <= _PLAIN_CONNECTION:
        head.fields = _without(head.fields, options)


def _without(lines: bytes, options: frozenset[bytes]) -> bytes:
    """RFC 9110, 7.6.1: fields that `Connection` names are for the next hop alone: not passed on."""
    each_line = lines.split(b"\r\n")[:-1]
    kept = (each for each in each_line if each.partition(b":")[0].lower() not in options)
    return b"".join(each + b"\r\n" for each in kept)


def _own_fields(head: RequestHead, special: dict[bytes, list[bytes]]) -> None:
    """What the balancer itself reads and writes anew."""
    get = special.get
    expect = get(b"expect")
    if expect is not None and not head.old:
        if len(expect) > 1 or expect[0].lower() != b"100-continue":
            raise ExpectationFailed("the only expectation that is known is 100-continue")
        head.expects_continue = head.framing is Framing.CHUNKED or head.length > 0
    deadline = get(b"x-deadline-ms")
    if deadline is not None:
        if len(deadline) > 1:
            raise BadRequest(f"{DEADLINE_HEADER} is given {len(deadline)} times")
        good = _DEADLINE.fullmatch(deadline[0]) is not None
        if not good or not 1 <= int(deadline[0]) <= DEADLINE_MS_MAX:
            raise BadRequest(f"{DEADLINE_HEADER} is a whole number from 1 to {DEADLINE_MS_MAX}")
        head.deadline_ms = int(deadline[0])
    # One that comes twice is as good as none: a new one is made (W3C Trace Context, 3.2.1).
    request_ids, traceparents = get(b"x-request-id", ()), get(b"traceparent", ())
    head.request_id = request_ids[0] if len(request_ids) == 1 else None
    head.traceparent = traceparents[0] if len(traceparents) == 1 else None
    head.forwarded_for = b", ".join(get(b"x-forwarded-for", ()))
    keys = get(b"idempotency-key")
    if keys is not None:
        # The key makes a POST as repeatable as a PUT (IETF draft-ietf-httpapi-idempotency-key).
        head.idempotent = True
        head.fields += b"".join(b"Idempotency-Key: " + key + b"\r\n" for key in keys)


_OWN = frozenset(
    (b"expect", b"x-deadline-ms", b"x-request-id", b"traceparent", b"x-forwarded-for",
     b"idempotency-key")
)  # fmt: skip
_SPECIAL = HOP_BY_HOP | _OWN | {b"host", b"content-length"}

_RESPONSE_SPECIAL = HOP_BY_HOP | {b"content-length", b"x-request-id", b"traceparent"}


def read_response(status: int, reusable: bool, fields: Fields, method: bytes) -> ResponseHead:
    """Judge the head of an answer to `method`. Raises BadResponse.

    `reusable`: whether the version and `Connection` let the connection be used again.
    """
    if len(fields) > 2 * FIELDS_MAX:
        raise BadResponse("too many fields")
    head = ResponseHead(status, reusable)
    lines: list[bytes] = []
    codings: list[bytes] = []
    lengths: list[bytes] = []
    of_connection: frozenset[bytes] = frozenset()
    for name, value in fields:
        if name in _USUAL:
            lines += (name, b": ", value, b"\r\n")
            continue
        lower = name.lower()
        if lower not in _RESPONSE_SPECIAL:
            lines += (name, b": ", value, b"\r\n")
        elif lower == b"content-length":
            lengths.append(value.strip(b" \t"))
        elif lower == b"connection":
            if value not in _PLAIN_CONNECTION:
                of_connection |= _options((value,))
        elif lower == b"transfer-encoding":
            codings.append(value.strip(b" \t"))
    head.fields = b"".join(lines)
    if of_connection and not of_connection <= _PLAIN_CONNECTION:
        head.fields = _without(head.fields, of_connection)
    if status == 200 and len(lengths) == 1 and not codings and method != b"HEAD":
        head.framing = _LENGTH
        head.length_line = _answer_length(lengths[0])
    else:
        _response_body(head, codings, lengths, method)
    return head


@lru_cache(maxsize=1024)
def _answer_length(length: bytes) -> bytes:
    if not length.isdigit() or len(length) > LENGTH_DIGITS_MAX:
        raise BadResponse("Content-Length is no number")
    return b"Content-Length: %d\r\n" % int(length)


def _response_body(
    head: ResponseHead, codings: list[bytes], lengths: list[bytes], method: bytes
) -> None:
    if codings and lengths:
        raise BadResponse("Content-Length beside Transfer-Encoding")
    if len(lengths) > 1:
        raise BadResponse("Content-Length is given twice")
    if lengths:
        head.length_line = _answer_length(lengths[0])
    if head.status < 200 or head.status in _WITHOUT_BODY or method == b"HEAD":
        if lengths and (head.status == 304 or (head.status >= 200 and method == b"HEAD")):
            # It tells how long the body would be; in 1xx and 204 it must not be (RFC 9110, 8.6).
            head.fields += b"Content-Length: " + lengths[0] + b"\r\n"
    elif codings:
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise BadResponse("a transfer coding other than chunked")
        head.framing = Framing.CHUNKED
    elif lengths:
        head.framing = Framing.LENGTH
    else:
        head.framing = Framing.UNTIL_CLOSE
        head.reusable = False


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112, 7.1); of no data: nothing, for an empty chunk would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
