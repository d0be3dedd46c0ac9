"""Spans of a trace as a tree, which of them hang in the air, and what the caller waited for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from labs.harness.report.data import Line
from labs.harness.traces.critical_path import culprit
from labs.harness.traces.spans import Span as Timed


@dataclass(slots=True)
class Span:
    """A line that is a span, with its place in the tree. The root of an operation is its client."""

    line: Line
    depth: int = 0
    children: list[Span] = field(default_factory=list)

    @property
    def begin_us(self) -> int:
        return self.line.at_us - (self.line.duration_us or 0)


def tree(lines: Iterable[Line]) -> list[Span]:
    """The spans in the order of a waterfall: parents first, siblings by when they began."""
    spans = {line.span_id: Span(line) for line in lines if line.span_id is not None}
    roots: list[Span] = []
    for span in spans.values():
        parent = spans.get(span.line.parent_id or "")
        (roots if parent is None or parent is span else parent.children).append(span)
    ordered: list[Span] = []

    def walk(level: list[Span], depth: int) -> None:
        for span in sorted(level, key=lambda each: each.begin_us):
            span.depth = depth
            ordered.append(span)
            if depth < 50:  # a circle of parents has no root; a long chain is cut
                walk(span.children, depth + 1)

    walk(roots, 0)
    return ordered


def orphans(lines: Iterable[Line]) -> list[Line]:
    """Spans whose parent nobody told of."""
    spans = [line for line in lines if line.span_id is not None]
    known = {line.span_id for line in spans}
    return [line for line in spans if line.parent_id is not None and line.parent_id not in known]


def waited_for(lines: Iterable[Line]) -> str | None:
    """Where most of the time of an operation that services handed on to each other went.

    None where none did: one service's own time is no news.
    """
    timed = [_timed(line) for line in lines if line.span_id is not None]
    root = next((span for span in timed if span.event == "client"), None)
    if root is None or not any(span.event == "call" for span in timed):
        return None
    return str(culprit(timed, root))


def _timed(line: Line) -> Timed:
    """A span as the critical path knows it; the client's own is called by how it ended."""
    event = "client" if line.event in ("ok", "fail", "info") else line.event
    return Timed(
        line.trace_id or "",
        line.span_id or "",
        line.parent_id,
        line.node,
        event,
        line.at_us - (line.duration_us or 0),
        line.at_us,
        line.request_id,
        line.peer,
        line.text.removeprefix(f"to {line.peer}: ").partition(" → ")[0],
    )
