"""Frames and batches: what comes back is what went in, and nothing from outside can crash it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from services.chassis.codec import Codec, CodecError
from services.protocols import chain, paxos, primary_backup, raft, viewstamped, zab
from services.protocols.core import Entry, Snapshot

SEED = 20260101


@dataclass(slots=True)
class Append:
    src: str
    dst: str
    term: int
    entries: list[Entry] = field(default_factory=list)
    hint: int | None = None


@pytest.fixture
def codec() -> Codec:
    return Codec([Append, Entry, Snapshot])


def frame_of(codec: Codec, *messages: Any, traces: tuple[str, ...] = ()) -> bytes:
    bodies = [(type(message).__name__, codec.encode_body(message)) for message in messages]
    return codec.encode_frame("n1", traces, bodies)


def test_frame(codec: Codec) -> None:
    """A frame holds who sent it, the traces and the messages in order."""
    messages = [Append("n1", "n2", 3, [Entry(1, 2, b"\x00\xff")]), Append("n1", "n2", 4, hint=7)]
    frame = codec.decode_frame(frame_of(codec, *messages, traces=("00-a", "00-b")))

    assert frame.src == "n1"
    assert frame.traceparents == ["00-a", "00-b"]
    assert frame.messages == messages


def test_frames_are_numbered(codec: Codec) -> None:
    """The number travels; a frame without one (three fields) is a frame all the same."""
    assert codec.decode_frame(codec.encode_frame("n1", (), [], 17)).number == 17
    assert codec.decode_frame(msgspec.msgpack.encode(("n1", None, []))).number == 0


def test_batch(codec: Codec) -> None:
    """Records come back in order, each as its own type."""
    records = [Snapshot(5, 2, b"state"), Entry(6, 2, b"x"), Entry(7, 3, b"")]

    assert codec.decode_batch(codec.encode_batch(records)) == records


@pytest.mark.parametrize("protocol", [raft, paxos, primary_backup, viewstamped, zab, chain])
def test_protocols(protocol: Any) -> None:
    """Every message and record type of the protocols can be decoded by name."""
    Codec(protocol.MESSAGES)
    Codec({*protocol.RECORDS, Snapshot})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a frame"),
        (b"\xc1", "not a frame"),
        (msgspec.msgpack.encode({"src": "n1"}), "not a frame"),
        (msgspec.msgpack.encode(["n1", None, [["Unknown", {}]]]), "unknown type 'Unknown'"),
        (msgspec.msgpack.encode(["n1", None, [["Append", {"src": 1}]]]), "not a Append"),
        (msgspec.msgpack.encode(["n1", None, [["Append", {"src": "n1"}]]]), "not a Append"),
        (msgspec.msgpack.encode(["n1", 5, []]), "not a frame"),
        (b"\x91" * 100_000, "not a frame"),
    ],
)
def test_malformed(codec: Codec, data: bytes, says: str) -> None:
    """Malformed frames and unknown types are a CodecError that says what is wrong."""
    with pytest.raises(CodecError, match=says):
        codec.decode_frame(data)


def test_random_damage(codec: Codec) -> None:
    """No damaged frame raises anything but CodecError."""
    chance = random.Random(SEED)
    good = frame_of(codec, Append("n1", "n2", 3, [Entry(1, 2, b"abc")]), traces=("00-a",))
    for _ in range(3_000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            codec.decode_frame(bytes(data[: chance.randint(1, len(data))]))
        except CodecError:
            pass
        except Exception as exc:
            pytest.fail(f"SEED={SEED}: {exc!r} for {bytes(data)!r}")
