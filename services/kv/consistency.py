"""`?consistency=` and `Session-Token`: what a request asks for, and what its client has seen.

A level is a word of the store's own list; an unknown one is refused with that list, for to serve
less than was asked for is to lie. A token is opaque to the client, which sends with each request
what the last answer to its session gave (an error document has it as `session_token`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import parse_qsl

from aiohttp import web

from services.chassis.app import single_header
from services.chassis.errors import BadRequest
from services.kv.client import SESSION_TOKEN

_INDEX_DIGITS = 18


def level_of(query: str, allowed: Sequence[str]) -> str | None:
    """The level that a query names; None if it names none. Raises BadRequest."""
    if not query:
        return None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=10)
    except ValueError:
        raise BadRequest(f"not a query string: {query[:100]!r}") from None
    for name, _ in pairs:
        if name != "consistency":
            raise BadRequest(f"unknown query parameter {name[:50]!r}; known is consistency")
    level = pairs[0][1]
    if len(pairs) != 1 or level not in allowed:
        raise BadRequest(
            f"consistency is one of {', '.join(allowed)}, once; not {level[:50]!r}",
            allowed=list(allowed),
        )
    return level


def index_of(request: web.BaseRequest) -> int | None:
    """What the session of a request has seen of the log; None: it has none. An empty token begins
    one. Raises BadRequest."""
    token = single_header(request, SESSION_TOKEN)
    if not token:
        return None if token is None else 0
    if not (token.isascii() and token.isdigit() and len(token) <= _INDEX_DIGITS):
        raise BadRequest(f"{SESSION_TOKEN} is one that this store has given, not {token[:50]!r}")
    return int(token)


def patience(deadline: float) -> float:
    """How long a node that is behind the session keeps a request waiting, on the loop's clock.

    A tenth is left for the answer's way back: a client that gives up first learns nothing definite.
    """
    return deadline - (deadline - asyncio.get_running_loop().time()) / 10


def in_header(token: str | None) -> dict[str, str]:
    """A token in an answer's headers."""
    return {} if token is None else {SESSION_TOKEN: token}


def in_problem(token: str | None) -> dict[str, str]:
    """A token among a problem document's members: to find nothing is to have seen something."""
    return {} if token is None else {"session_token": token}
