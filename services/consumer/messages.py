"""A message as it travels: JSON, with its id and its trace in the headers."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

KEY_MAX = 128
VALUE_BYTES_MAX = 64 << 10
AMOUNT_MAX = 2**31 - 1  # so that no total outgrows 64 bits, which Redis would refuse for ever
ID = "id"
TRACEPARENT = "traceparent"
SENT_AT = "sent-at"  # seconds of the sender's clock, for the latency from sending to effect

# Dots make a key a routing key of several words; what RabbitMQ's patterns mean is left out.
_KEY = re.compile(r"[A-Za-z0-9_:-]+(\.[A-Za-z0-9_:-]+)*")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Headers = tuple[tuple[str, str], ...]


class Message(NamedTuple):
    """What a producer sends. `value` is encoded JSON."""

    id: str
    key: str | None
    value: bytes
    headers: Headers = ()


def valid_key(key: str) -> bool:
    """May this be a key?"""
    return len(key) <= KEY_MAX and _KEY.fullmatch(key) is not None


def encode(value: Any) -> bytes:
    """JSON bytes."""
    return _encode(value)


def header(headers: Headers, name: str) -> str | None:
    """The value of the first header of that name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def amount_of(value: bytes | None) -> int | None:
    """What the message adds to its key's total; None: it can never be processed (poison)."""
    if value is None or len(value) > VALUE_BYTES_MAX:
        return None
    try:
        decoded = _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(decoded, bool) or not isinstance(decoded, int) or abs(decoded) > AMOUNT_MAX:
        return None
    return decoded


def matches(binding: str, key: str | None) -> bool:
    """Does a RabbitMQ topic pattern match a routing key? ('*': one word, '#': any number.)"""
    if binding == "#":
        return True

    def match(pattern: list[str], words: list[str]) -> bool:
        if not pattern:
            return not words
        first, rest = pattern[0], pattern[1:]
        if first == "#":
            return match(rest, words) or (bool(words) and match(pattern, words[1:]))
        return bool(words) and first in ("*", words[0]) and match(rest, words[1:])

    return match(binding.split("."), (key or "").split(".") if key else [])
