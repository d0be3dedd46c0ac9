"""Who a request is, for logs and traces: X-Request-Id and W3C trace context, passed on or made."""

from __future__ import annotations

import re
from binascii import hexlify

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
_SAMPLED = frozenset(b"%02x" % flags for flags in range(1, 256, 2))  # bit 0 of the trace-flags


class Identity:
    """A span of our own, below the caller's or of a new trace. `lines`: header lines, both sides.

    `sampled`: whoever began the trace wants it recorded (`chassis.telemetry.TraceParent`).
    Most ids are only ever written into `lines`; as text they are made when somebody asks.
    """

    __slots__ = ("_request", "_span", "_trace", "lines", "parent_span_id", "sampled")

    def __init__(self, drawn: int, head: RequestHead | None) -> None:
        """`drawn`: `RANDOM_BITS` of chance, for what the caller did not bring."""
        # One number, turned into digits once: this is in every request's path.
        digits = hexlify((drawn | _NEVER_ZERO).to_bytes(RANDOM_BITS // 8, "big"))
        self._span = span = self._request = digits[:16]
        self._trace = digits[16:]
        self.parent_span_id: str | None = None
        self.sampled = True
        if head is not None and (head.traceparent is not None or head.request_id is not None):
            self._take(head)
        else:
            self.lines = b"X-Request-Id: %b\r\ntraceparent: 00-%b-%b-01\r\n" % (
                span,
                self._trace,
                span,
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
