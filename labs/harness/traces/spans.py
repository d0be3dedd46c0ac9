"""A span, as the nodes' wide events and the clients' history tell of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """One piece of work for one request, from `begin_us` to `end_us` of the variant's time axis.

    `event`: "request" (a service answered), "call" (it asked another one: `peer`), "replicate" (a
    store's follower persisted it), "client" (the root: what the caller saw). `parent_id`: None for
    whoever began a trace. `bytes`: what its line takes.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    node: str
    event: str
    begin_us: int
    end_us: int
    request_id: str | None = None
    peer: str = ""
    what: str = ""
    bad: bool = False
    bytes: int = 0

    @property
    def duration_us(self) -> int:
        return self.end_us - self.begin_us


def children(spans: Iterable[Span]) -> dict[str | None, list[Span]]:
    """The spans below each span id; those that name no parent are below None."""
    found: dict[str | None, list[Span]] = {}
    for span in spans:
        found.setdefault(span.parent_id, []).append(span)
    return found
