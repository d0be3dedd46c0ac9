"""Protocol dataclasses to bytes and back: MessagePack, by type name.

One codec serves the peer links (a frame of messages) and the write-ahead log (a batch of records).
Names come from the protocol's `MESSAGES` and `RECORDS`: what is not listed there is not decoded.
Bytes from outside are checked against the annotations of the dataclass; whatever is wrong with
them becomes a `CodecError`, which costs the sender its connection and never the node its life.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

FRAME_BYTES_MAX = (
    64 * 1024 * 1024
)  # one message, a snapshot, may be large; batches stay below 1 MiB
FRAME_MESSAGES_MAX = 100_000
FRAME_TRACES_MAX = 256


# msgspec lets the UnicodeDecodeError of a broken string through (found by damaging frames).
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class CodecError(ValueError):
    """These bytes are not a frame or a record of this protocol."""


class Frame(NamedTuple):
    """What one peer sent at once.

    `traceparents`: of the client requests it was sent for, each perhaps with ` <request id>` behind
    it. `number`: the how-manieth frame of its link; 0 when the sender does not count.
    """

    src: str
    traceparents: list[str]
    messages: list[Any]
    number: int = 0


class _RawFrame(msgspec.Struct, array_like=True):
    """A frame is [src, traceparent | None, [[type name, body], …], number].

    The traceparents of several requests that share a frame (batching) are joined by commas, as HTTP
    joins repeated headers. The number lets a report tell which of the frames that were sent came.
    """

    src: str
    traceparents: str | None
    bodies: list[tuple[str, msgspec.Raw]]
    number: int = 0


class Codec:
    """Encodes and decodes the dataclasses in `types`."""

    def __init__(self, types: Iterable[type]) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._frames = msgspec.msgpack.Decoder(_RawFrame)
        self._batches = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]])
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        for type_ in types:
            if type_.__name__ in self._decoders:
                raise ValueError(f"two types are called {type_.__name__}")
            self._decoders[type_.__name__] = msgspec.msgpack.Decoder(type_)

    def encode_body(self, message: Any) -> bytes:
        """One message or record without its name."""
        return self._encoder.encode(message)

    def encode_frame(
        self,
        src: str,
        traceparents: Sequence[str],
        bodies: Sequence[tuple[str, bytes]],
        number: int = 0,
    ) -> bytes:
        """A frame of messages already encoded: `bodies` are (type name, encoded message)."""
        traces = ",".join(traceparents) if traceparents else None
        raw = [(name, msgspec.Raw(body)) for name, body in bodies]
        return self._encoder.encode((src, traces, raw, number))

    def decode_frame(self, data: bytes) -> Frame:
        """The messages of one frame. Raises CodecError."""
        try:
            raw = self._frames.decode(data)
        except _UNDECODABLE as exc:
            raise CodecError(f"not a frame: {exc}") from exc
        if len(raw.bodies) > FRAME_MESSAGES_MAX:
            raise CodecError(f"{len(raw.bodies)} messages in a frame, limit {FRAME_MESSAGES_MAX}")
        traces = raw.traceparents.split(",")[:FRAME_TRACES_MAX] if raw.traceparents else []
        return Frame(raw.src, traces, self._decode_all(raw.bodies), raw.number)

    def encode_batch(self, records: Iterable[Any]) -> bytes:
        """Records that are written, and recovered, together."""
        return self._encoder.encode([(type(record).__name__, record) for record in records])

    def decode_batch(self, data: bytes) -> list[Any]:
        """The records of one batch. Raises CodecError."""
        try:
            bodies = self._batches.decode(data)
        except _UNDECODABLE as exc:
            raise CodecError(f"not a batch of records: {exc}") from exc
        return self._decode_all(bodies)

    def _decode_all(self, bodies: Iterable[tuple[str, msgspec.Raw]]) -> list[Any]:
        decoded, name = [], ""
        try:
            for name, body in bodies:
                decoder = self._decoders.get(name)
                if decoder is None:
                    known = ", ".join(self._decoders)
                    raise CodecError(f"unknown type {name[:100]!r}; known: {known}")
                decoded.append(decoder.decode(body))
        except _UNDECODABLE as exc:
            raise CodecError(f"not a {name}: {exc}") from exc
        return decoded
