"""What the balancer answers by itself, beside the errors of every service."""

from __future__ import annotations

from math import ceil
from typing import Any

from services.chassis.errors import BadRequest, Unavailable


class UriTooLong(BadRequest):
    """The request target is longer than is read."""

    slug, status, title = "uri-too-long", 414, "the request target is too long"


class ExpectationFailed(BadRequest):
    """An `Expect` other than 100-continue."""

    slug, status, title = "expectation-failed", 417, "the expectation cannot be met"


class HeadersTooLarge(BadRequest):
    """The fields of the head are too many or too long."""

    slug, status, title = "headers-too-large", 431, "the header fields are too large"


class NoBackend(Unavailable):
    """Nobody can be asked: all are down, ejected, drained, or refused the connection."""

    slug, title = "no-backend", "no backend is available"


class _TryLater(Unavailable):
    slug = "try-later"

    def __init__(self, detail: str = "", *, retry_after_s: float = 1.0, **members: Any) -> None:
        super().__init__(detail, **members)
        self.retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(max(1, ceil(self.retry_after_s)))}


class Overloaded(_TryLater):
    """Too much is in flight already: shed at the door, before it costs a backend anything."""

    slug, title = "overloaded", "overloaded"


class TooManyRequests(_TryLater):
    """This client asks for more than its share; others are served."""

    slug, status, title = "too-many-requests", 429, "too many requests"
