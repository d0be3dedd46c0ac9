"""Who a request is, for logs and traces: X-Request-Id and W3C trace context, passed on or made."""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Callable

from services.load_balancer.framing import RequestHead

_REQUEST_ID = re.compile(rb"[!-+\--~]{1,128}")  # as services/chassis/app.py
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_TRACEPARENT_BYTES_MAX = 512
# Of a span's id and of a trace's: all zeros are none (W3C Trace Context, 3.2.2), so one bit of each
# is not left to chance.
RANDOM_BITS = 64 + 128
_NEVER_ZERO = 1 << 128 | 1
_DIGITS = RANDOM_BITS // 4
_AT_A_TIME = 64
_ALL_NEVER_ZERO = sum(_NEVER_ZERO << RANDOM_BITS * number for number in range(_AT_A_TIME))
_SAMPLED = frozenset(b"%02x" % flags for flags in range(1, 256, 2))  # bit 0 of the trace-flags


def draw(getrandbits: Callable[[int], int]) -> list[bytes]:
    """Chance for many an `Identity`, in one go: that takes a tenth of the time."""
    drawn = getrandbits(RANDOM_BITS * _AT_A_TIME) | _ALL_NEVER_ZERO
    digits = hexlify(drawn.to_bytes(RANDOM_BITS // 8 * _AT_A_TIME, "big"))
    return [digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS)]


class Identity:
    """A span of our own, below the caller's or of a new trace. `lines`: header lines, both sides.

    `sampled`: whoever began the trace wants it recorded (`chassis.telemetry.TraceParent`).
    Most ids are only ever written into `lines`; as text they are made when somebody asks.
    """

    __slots__ = ("_request", "_span", "_trace", "lines", "parent_span_id", "sampled")

    def __init__(self, digits: bytes, head: RequestHead | None) -> None:
        """`digits`: one of those that `draw` gave, for what the caller did not bring."""
        self._span = span = self._request = digits[:16]
        self._trace = trace = digits[16:]
        self.parent_span_id: str | None = None
        self.sampled = True
        if head is not None and (head.traceparent is not None or head.request_id is not None):
            self._take(head)
        else:
            self.lines = b"".join(
                (b"X-Request-Id: ", span, b"\r\ntraceparent: 00-", trace, b"-", span, b"-01\r\n")
            )

    def _take(self, head: RequestHead) -> None:
        if head.traceparent is not None and len(head.traceparent) <= _TRACEPARENT_BYTES_MAX:
            match = _TRACEPARENT.fullmatch(head.traceparent)
            if match is not None:
                self._trace = match[1]
                self.parent_span_id = match[2].decode()
                self.sampled = match[3] in _SAMPLED
        if head.request_id is not None and _REQUEST_ID.fullmatch(head.request_id):
            self._request = head.request_id
        self.lines = b"X-Request-Id: %b\r\ntraceparent: 00-%b-%b-%b\r\n" % (
            self._request,
            self._trace,
            self._span,
            b"01" if self.sampled else b"00",
        )

    @property
    def span_id(self) -> str:
        return self._span.decode()

    @property
    def trace_id(self) -> str:
        return self._trace.decode()

    @property
    def request_id(self) -> str:
        return self._request.decode()
