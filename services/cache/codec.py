"""Entries as bytes: JSON, or Protocol Buffers.

Both carry the same fields, and the value as the JSON that the store has, so that the choice changes
what surrounds a value and not what it means. What that costs is counted (`Codec.cpu_us`,
`encoded_bytes`), since it is argued about more often than it is measured.

The protobuf message is built from a descriptor in code: no compiler, no generated file. It is

    message Entry {
      uint32 kind = 1;        bytes value = 2;       uint64 version = 3;  uint64 stored_ms = 4;
      uint64 expires_ms = 5;  uint32 delta_ms = 6;   fixed64 token = 7;
    }

Whatever does not decode is no entry: raises ValueError, and the cache treats it as a miss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from services.cache.entry import Entry, Kind

ENCODINGS = ("json", "protobuf")
SAMPLED = 16
A = TypeVar("A")
B = TypeVar("B")
_KINDS = {kind.value: kind for kind in Kind}


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    version: int
    value: msgspec.Raw
    stored_ms: int
    expires_ms: int
    delta_ms: int
    token: int


def _to_json(entry: Entry) -> bytes:
    document = _Document(
        entry.kind.name.lower(),
        entry.version,
        msgspec.Raw(entry.value),
        entry.stored_ms,
        entry.expires_ms,
        entry.delta_ms,
        entry.token,
    )
    return _encode(document)


def _from_json(data: bytes) -> Entry:
    found = _decode(data)
    return Entry(
        Kind[found.kind.upper()],
        found.version,
        bytes(found.value),
        found.stored_ms,
        found.expires_ms,
        found.delta_ms,
        found.token,
    )


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Document).decode


def _message() -> Any:
    """The class of the message above."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="faultline/cache/entry.proto", package="faultline.cache", syntax="proto3"
    )
    fields = [
        ("kind", types.TYPE_UINT32),
        ("value", types.TYPE_BYTES),
        ("version", types.TYPE_UINT64),
        ("stored_ms", types.TYPE_UINT64),
        ("expires_ms", types.TYPE_UINT64),
        ("delta_ms", types.TYPE_UINT32),
        ("token", types.TYPE_FIXED64),
    ]
    message = file.message_type.add(name="Entry")
    for number, (name, type_) in enumerate(fields, 1):
        message.field.add(name=name, number=number, type=type_, label=types.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("faultline.cache.Entry"))


_Message = _message()


def _to_protobuf(entry: Entry) -> bytes:
    data: bytes = _Message(
        kind=entry.kind.value,
        value=entry.value,
        version=entry.version,
        stored_ms=entry.stored_ms,
        expires_ms=entry.expires_ms,
        delta_ms=entry.delta_ms,
        token=entry.token,
    ).SerializeToString()
    return data


def _from_protobuf(data: bytes) -> Entry:
    found = _Message.FromString(data)
    return Entry(
        _KINDS[found.kind],
        found.version,
        found.value,
        found.stored_ms,
        found.expires_ms,
        found.delta_ms,
        found.token,
    )


_FUNCTIONS: dict[str, tuple[Callable[[Entry], bytes], Callable[[bytes], Entry]]] = {
    "json": (_to_json, _from_json),
    "protobuf": (_to_protobuf, _from_protobuf),
}


class Codec:
    """One encoding (of ENCODINGS), with what it has cost so far.

    `encoded_bytes` of `encoded` values, which have `value_bytes` themselves. `cpu_us`: of an
    encoding or decoding, on average; one call in SAMPLED is timed, because to look at the CPU clock
    costs half as much as to encode.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.encoded = self.encoded_bytes = self.value_bytes = 0
        self._calls = self._timed = self._spent_ns = 0
        self._to_bytes, self._from_bytes = _FUNCTIONS[encoding]

    def encode(self, entry: Entry) -> bytes:
        """The bytes of an entry."""
        data = self._timing(self._to_bytes, entry)
        if entry.answers:
            self.encoded += 1
            self.value_bytes += len(entry.value)
            self.encoded_bytes += len(data)
        return data

    def decode(self, data: bytes) -> Entry:
        """The entry that these bytes stand for. Raises ValueError."""
        try:
            return self._timing(self._from_bytes, data)
        except (msgspec.MsgspecError, DecodeError, KeyError) as exc:
            raise ValueError(f"not an entry in {self.encoding}: {exc}") from None

    @property
    def cpu_us(self) -> float:
        """CPU time of a call, in µs; 0.0 before the first."""
        return self._spent_ns / self._timed / 1000 if self._timed else 0.0

    def _timing(self, call: Callable[[A], B], argument: A) -> B:
        self._calls += 1
        if self._calls % SAMPLED:
            return call(argument)
        began = time.thread_time_ns()
        try:
            return call(argument)
        finally:
            self._spent_ns += time.thread_time_ns() - began
            self._timed += 1
