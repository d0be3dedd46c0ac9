"""The body of a request on its way through: framed for the backend, kept while it may be repeated.

Pure. Not more than `keep_bytes` are held: a body that is longer goes through piece by piece, and
its request cannot be sent again.
"""

from __future__ import annotations

from services.load_balancer.framing import LAST_CHUNK, Framing, chunk


class RequestBody:
    """Pieces come in by `add`, go out by `take`. `received`: bytes so far, without framing."""

    __slots__ = (
        "_chunked",
        "_keep_bytes",
        "_next",
        "_pieces",
        "complete",
        "received",
        "replayable",
        "sent",
    )

    def __init__(self, framing: Framing, keep_bytes: int) -> None:
        self._chunked = framing is Framing.CHUNKED
        self._keep_bytes = keep_bytes
        self._pieces: list[bytes] = []
        self._next = 0  # of the pieces, to be taken
        self.received = 0
        self.complete = framing is Framing.NONE
        self.sent = self.complete  # to its end, by the attempt that is being made
        self.replayable = True

    def add(self, piece: bytes) -> None:
        """A piece has come."""
        self.received += len(piece)
        self._pieces.append(piece)

    def take(self) -> bytes:
        """What has come and was not taken yet, framed; with the end, if that has come."""
        if self.sent:
            return b""
        data = b"".join(self._pieces[self._next :])
        if self._chunked:
            data = chunk(data)
        if self.received <= self._keep_bytes:
            self._next = len(self._pieces)
        else:
            self.replayable = False
            self._pieces, self._next = [], 0
        if self.complete:
            self.sent = True
            if self._chunked:
                data += LAST_CHUNK
        return data

    def rewind(self) -> None:
        """Begin anew, for another attempt."""
        assert self.replayable
        self._next = 0
        self.sent = self.complete and not self._pieces and not self._chunked

    @property
    def full(self) -> bool:
        """Is more waiting than is kept?"""
        return self.received > self._keep_bytes and bool(self._pieces)


NO_BODY = RequestBody(Framing.NONE, 0)  # of all requests without one: there is nothing to change
