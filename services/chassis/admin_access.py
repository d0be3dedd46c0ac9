"""Who may change a service by its `/admin/` face: whoever has the token, or sits on this machine.

    access = AdminAccess(config.admin_token, "CACHE_ADMIN_TOKEN")
    app.add("POST", "/admin/flush", access.guard(self.flush))

With a token configured, a change needs `Authorization: Bearer <token>` (RFC 6750), from anywhere:
401 without it. Without a token, changes are taken from loopback alone: 403 for others. What only
reads is not guarded: `/status` shows the same to everybody.

A balancer hands its own `/admin/` requests on to its own face, over loopback; whom they are from
stands last in the `X-Forwarded-For` that it wrote; if that is loopback, too (another balancer in
front of it), what stands before that, and so on. A process here that writes one itself can only
seem farther away than it is, or as near as it is.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from aiohttp import web

from services.chassis.app import Context, Handler
from services.chassis.errors import Forbidden, Unauthorized


class AdminAccess:
    """`key`: the configuration key of the token, for the answer that says what is missing."""

    def __init__(self, token: str, key: str) -> None:
        self._token = token.encode()
        self._key = key

    def guard(self, handler: Handler) -> Handler:
        """`handler`, for those who may. The others' requests are refused before they are read."""

        async def guarded(request: web.BaseRequest, context: Context) -> web.StreamResponse:
            self.check(request)
            return await handler(request, context)

        return guarded

    def check(self, request: web.BaseRequest) -> None:
        """Raises Unauthorized, Forbidden."""
        if not self._token:
            if not is_loopback(_client(request)):
                raise Forbidden(
                    f"changes are taken from this machine alone while {self._key} is not set"
                )
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("a change needs Authorization: Bearer with the operator's token")
        # In constant time: how long a refusal takes must not tell how much of it was right.
        if not hmac.compare_digest(given.strip().encode(errors="replace"), self._token):
            raise Unauthorized("that is not the operator's token", invalid_token=True)


def _client(request: web.BaseRequest) -> str:
    client = request.remote or ""
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", []))
    while forwarded and is_loopback(client):
        forwarded, _, client = forwarded.rpartition(",")
        client = client.strip()
    return client


def is_loopback(address: str) -> bool:
    """Is it this machine's own? What is no address is not."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
