"""Heads that say again what was said before on the same connection: judged once.

Whoever keeps a connection sends nearly the same head over it each time: a client the same fields
below another request line, a backend the same answer until its `Date` moves on. (HPACK, RFC 7541,
was made for that.) Where the bytes *are* the same, so is what llhttp and `framing` make of them:
their verdict is kept, with the bytes it is of, and the next piece is compared first.

What makes it safe: a verdict is used for a piece only if the parser stands at the beginning of a
message, which it does where the piece before was exactly one message. Were it in the middle of
one, the same bytes would mean something else: a head that is a part of somebody's body, or of a
field's value. Of that place we are sure from the first byte of a connection on, or not at all: once
a piece was anything else (a part of a message, two of them, one with an error), nothing is taken
from memory on that connection any more.

- history that goes wrong otherwise: a client's piece ends in the middle of a field, `X: `. The next
  begins with `GET / HTTP/1.1` and is whole, by its looks. Kept, with the head it was a part of, it
  would add the field X to every request like it.
- A request line is read anew each time, by a pattern that takes less than llhttp does: the methods
  that have no body, a target in origin form, HTTP/1.1. Anything else is left to the parser.

Those who never repeat themselves are found out after `PATIENCE` pieces, and left alone.
"""

from __future__ import annotations

import re

from services.load_balancer.framing import TARGET_BYTES_MAX, Framing, RequestHead, ResponseHead

PATIENCE = 8
"""Heads that are kept in vain, one after the other, before none is kept any more."""

_LINE = re.compile(rb"(GET|HEAD|DELETE|OPTIONS) (/[!\"$-~]*) HTTP/1\.1")
_END = b"\r\n\r\n"


class RepeatedRequest:
    """Of one client's connection: the latest head without a body."""

    __slots__ = ("_fields", "_head", "_patience", "_sure")

    def __init__(self) -> None:
        self._sure = True  # that the parser stands at the beginning of a message
        self._patience = PATIENCE
        self._fields: bytes | None = None  # all after the request line, from its CRLF on
        self._head: RequestHead

    def read(self, data: bytes) -> RequestHead | None:
        """The head that `data` is, if but for its first line it is the latest one."""
        fields = self._fields
        if fields is None or not data.endswith(fields):
            return None
        match = _LINE.fullmatch(data, 0, len(data) - len(fields))
        if match is None or len(match[2]) > TARGET_BYTES_MAX:
            return None
        self._patience = PATIENCE
        return self._head.again(match[1], match[2])

    def parsed(self, data: bytes, head: RequestHead | None) -> None:
        """The parser was given `data`, of which came `head` and its whole body; None: or not."""
        self._fields = None
        if not self._sure:
            return
        if head is None or not self._patience or data.find(_END) + 4 + head.length != len(data):
            self._sure = False
            return
        line = data.find(b"\r\n")
        match = _LINE.fullmatch(data, 0, line)
        if match is not None and not head.framing:
            self._patience -= 1
            self._fields, self._head = data[line:], head


class RepeatedAnswer:
    """Of one backend's connection: the latest answer with a Content-Length that came in one piece.

    Whether the parser stands at the beginning of an answer, `Upstream` knows.
    """

    __slots__ = ("_patience", "_size", "_start", "head")

    def __init__(self) -> None:
        self._patience = PATIENCE
        self._start = b""
        self._size = -1  # of the whole answer
        self.head: ResponseHead

    def body(self, data: bytes) -> bytes | None:
        """That of the answer that `data` is, if its head is the latest one."""
        if len(data) != self._size or not data.startswith(self._start):
            return None
        self._patience = PATIENCE
        return data[len(self._start) :]

    def parsed(self, data: bytes, head: ResponseHead, body_bytes: int) -> None:
        """`data` was an answer from its first byte to its last."""
        self._size = -1
        start = len(data) - body_bytes
        if self._patience and head.framing is Framing.LENGTH and data.find(_END) + 4 == start:
            self._patience -= 1
            self._start, self._size, self.head = data[:start], len(data), head
