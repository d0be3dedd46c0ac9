"""Every error a caller can meet, in one short tree: did it happen, or can nobody know?

`Definite`: it did not happen and never will. `Indefinite`: it may have happened, may happen yet.
The difference decides what a caller may do: a definite failure can be tried again by anyone, an
indefinite one only with an idempotency key. A history that records an indefinite failure as "did
not happen" makes a correct store look broken, and a broken one correct.

On the wire: RFC 9457 problem details, with the member `definite`. Both directions are mapped here
and nowhere else: `to_problem` for the service, `from_problem` for the client.
"""

from __future__ import annotations

from typing import Any, ClassVar

TYPE_PREFIX = "urn:faultline:"


class ServiceError(Exception):
    """An answer that is not a success.

    Args:
        detail: one sentence about this occurrence, for a human.
        members: further members of the problem document (`leader`, `value`, `version`, …).

    Class attributes: `slug` (names the problem type), `status` (HTTP), `title`, `definite`.
    """

    slug: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "error"
    definite: ClassVar[bool] = False

    def __init__(self, detail: str = "", **members: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.members = members

    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to this answer."""
        return {}


class Definite(ServiceError):
    """It did not happen and never will."""

    definite = True


class Indefinite(ServiceError):
    """It may have happened, or may happen yet: nobody can know from here."""


class BadRequest(Definite):
    """The caller's mistake; nothing was changed. Its kinds are subclasses."""

    slug, status, title = "bad-request", 400, "bad request"


class Unauthorized(BadRequest):
    """Nobody knows who asks: no token, or (`invalid_token`) not one that is known (RFC 6750)."""

    slug, status, title = "unauthorized", 401, "a token is needed"

    def headers(self) -> dict[str, str]:
        wrong = ', error="invalid_token"' if self.members.get("invalid_token") else ""
        return {"WWW-Authenticate": f'Bearer realm="admin"{wrong}'}


class Forbidden(BadRequest):
    """Whoever asks may not."""

    slug, status, title = "forbidden", 403, "not allowed from here"


class NoRoute(BadRequest):
    """There is nothing at this path."""

    slug, status, title = "no-route", 404, "no such route"


class MethodNotAllowed(BadRequest):
    """The path exists, the method does not; `allow` lists those that do."""

    slug, status, title = "method-not-allowed", 405, "method not allowed"

    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.members.get("allow", ()))}


class RequestTimeout(BadRequest):
    """The request did not arrive whole within its deadline: it was not carried out."""

    slug, status, title = "request-timeout", 408, "the request did not arrive in time"


class TooLarge(BadRequest):
    """Something exceeds its limit."""

    slug, status, title = "too-large", 413, "too large"


class UnsupportedMediaType(BadRequest):
    """The body is not what this face reads: JSON."""

    slug, status, title = "unsupported-media-type", 415, "unsupported media type"


class KeyReused(BadRequest):
    """The idempotency key came before with another request."""

    slug, status, title = "idempotency-key-reused", 422, "the idempotency key was used before"


class NotFound(Definite):
    """There is no such key in the store."""

    slug, status, title = "key-not-found", 404, "key not found"


class PreconditionFailed(Definite):
    """The condition did not hold. `value` and `version` are the current ones; None: no such key."""

    slug, status, title = "precondition-failed", 412, "the precondition failed"

    def __init__(
        self, detail: str = "", *, value: Any = None, version: int | None = None, **members: Any
    ) -> None:
        super().__init__(detail, value=value, version=version, **members)
        self.value = value
        self.version = version


class StaleToken(Definite):
    """The fencing token is older than `newest`, which the resource has admitted since."""

    slug, status, title = "stale-token", 412, "the fencing token is stale"

    def __init__(self, detail: str = "", *, newest: int | None = None, **members: Any) -> None:
        super().__init__(detail, newest=newest, **members)
        self.newest = newest


class NotLeader(Definite):
    """This node cannot do it. `leader` is who can, as far as it knows."""

    slug, status, title = "not-leader", 421, "not the leader"

    def __init__(self, detail: str = "", *, leader: str | None = None, **members: Any) -> None:
        super().__init__(detail, leader=leader, **members)
        self.leader = leader


class Unavailable(Definite):
    """Not now: no leader is known, too much is in flight, the entry was overwritten, refused."""

    slug, status, title = "unavailable", 503, "unavailable"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class CircuitOpen(Unavailable):
    """The caller's own circuit breaker refused: nothing was sent."""

    slug, title = "circuit-open", "the circuit is open"


class DeadlineExceeded(Indefinite):
    """The deadline passed after the request was on its way."""

    slug, status, title = "deadline-exceeded", 504, "the deadline passed"


class ConnectionLost(Indefinite):
    """The connection broke after the request was on its way."""

    slug, status, title = "connection-lost", 502, "the connection was lost"


class InternalError(Indefinite):
    """A bug, or a node that is going down: it may have happened before that."""

    slug, status, title = "internal-error", 500, "internal error"


def _tree(root: type[ServiceError]) -> dict[str, type[ServiceError]]:
    found = {root.slug: root}
    for kind in root.__subclasses__():
        found |= _tree(kind)
    return found


def _kind(slug: str) -> type[ServiceError] | None:
    """Looked up when it is asked for: services add kinds of their own."""
    return (_tree(Definite) | _tree(Indefinite)).get(slug)


def to_problem(error: ServiceError) -> dict[str, Any]:
    """The RFC 9457 document of an error."""
    problem: dict[str, Any] = {
        "type": TYPE_PREFIX + error.slug,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "definite": error.definite,
    }
    return problem | error.members


def from_problem(status: int, problem: Any) -> ServiceError:
    """The error that a problem document (or whatever came with this status) stands for.

    What cannot be understood is indefinite, unless the status says that the request was refused.
    """
    if not isinstance(problem, dict):
        problem = {}
    type_, detail = problem.get("type"), problem.get("detail")
    members = {
        key: value
        for key, value in problem.items()
        if key not in ("type", "title", "status", "detail", "definite") and key.isidentifier()
    }
    kind = _kind(type_.removeprefix(TYPE_PREFIX)) if isinstance(type_, str) else None
    if kind is None:
        definite = problem.get("definite")
        if not isinstance(definite, bool):
            definite = 400 <= status < 500
        kind = (BadRequest if 400 <= status < 500 else Unavailable) if definite else InternalError
    return kind(detail if isinstance(detail, str) else f"HTTP status {status}", **members)
