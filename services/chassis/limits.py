"""What the store accepts: keys, values, versions, idempotency keys, checked at the door.

A cache in front of the store has the same door.

Nothing that fails here is proposed, so a bad request changes nothing, on no node.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from services.chassis.errors import BadRequest, TooLarge

KEY_BYTES_MAX = 512
VALUE_BYTES_MAX = 64 << 10
IDEMPOTENCY_KEY_MAX = 128
ANY_VERSION = -1  # If-Match: *

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._~-]{1,512}")
_ETAG = re.compile(r'"([0-9]{1,19})"')
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,128}")
_encode = msgspec.json.Encoder().encode


def key_of(raw: str) -> str:
    """The key that a percent-encoded path segment names. Raises BadRequest."""
    if _PLAIN_KEY.fullmatch(raw):
        return raw
    if _BAD_ESCAPE.search(raw):
        raise BadRequest("the key holds a '%' that does not begin an escape such as %2F")
    data = unquote_to_bytes(raw.encode("utf-8", "surrogateescape"))
    if not 1 <= len(data) <= KEY_BYTES_MAX:
        raise BadRequest(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(data)}")
    try:
        key = data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("a key is UTF-8") from None
    if not key.isprintable():
        raise BadRequest("a key holds printable characters only")
    return key


def encode_value(value: Any) -> bytes:
    """The JSON bytes that are stored. Raises TooLarge."""
    data = _encode(value)
    if len(data) > VALUE_BYTES_MAX:
        raise TooLarge(f"a value has at most {VALUE_BYTES_MAX} bytes as JSON, not {len(data)}")
    return data


def if_match_of(header: str | None) -> int | None:
    """The version that If-Match demands; ANY_VERSION for `*`. Raises BadRequest."""
    if header is None:
        return None
    if header.strip() == "*":
        return ANY_VERSION
    match = _ETAG.fullmatch(header.strip())
    if match is None or int(match[1]) >= 1 << 63:
        raise BadRequest(f'If-Match is one version in quotes, such as "17", or *: {header[:50]!r}')
    return int(match[1])


def if_none_match_of(header: str | None) -> bool:
    """Must the key be absent? Raises BadRequest."""
    if header is None:
        return False
    if header.strip() != "*":
        raise BadRequest(f"If-None-Match of a write is *, not {header[:50]!r}")
    return True


def idempotency_key_of(header: str | None) -> str | None:
    """The caller's key. Raises BadRequest."""
    if header is not None and not _IDEMPOTENCY_KEY.fullmatch(header):
        raise BadRequest(f"Idempotency-Key has 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters")
    return header
