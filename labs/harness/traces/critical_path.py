"""The critical path of a trace: what the caller was waiting for at each moment. Pure.

Walk back from the end of the root: whatever child ended last is what the root waited for, until
that child began; then the child that ended last before that; and so down into each of them (as in
CRISP, Zhang et al., USENIX ATC 2022). Time in which no child ran is the span's own. So every
microsecond of the request belongs to exactly one span, and the segments sum up to its duration.

What is a call's *own* time? The callee's span covers what the callee did; a call is longer by the
way there and back. So a slow link shows as the own time of a call whose callee answered quickly,
and a slow service as the own time of a request. And a call without any span of the callee below it
tells nothing of what is behind: there the trace ends, and a diagnosis must say so.

The spans' clocks must agree. Those of a run do: all nodes stamp with the machine's monotonic clock.
Across real machines clocks differ, and a child may seem to stick out of its parent; here it is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from types import MappingProxyType
from typing import Literal, NamedTuple

from labs.harness.traces.spans import Span, children

Kind = Literal["link", "service", "lost"]
Place = tuple[Kind, str]
"""What a diagnosis names: "link" (the way between two services, "a→b"), "service" (its own work),
or "lost" (the trace ends at this call: something behind it, nobody can say what)."""

NOTHING: Mapping[Place, float] = MappingProxyType({})


class Segment(NamedTuple):
    """From `begin_us` to `end_us` the request waited for `span` itself."""

    span: Span
    begin_us: int
    end_us: int


def critical_path(spans: Iterable[Span], root: Span) -> list[Segment]:
    """The segments of `root`, in order of time; they leave no gap."""
    below = children(spans)
    found: list[Segment] = []

    def walk(span: Span, begin_us: int, end_us: int, depth: int) -> None:
        now = end_us
        own = below.get(span.span_id, []) if depth < 50 else []  # a circle of parents has no end
        for child in sorted(own, key=lambda each: each.end_us, reverse=True):
            child_end = min(child.end_us, now)
            child_begin = max(child.begin_us, begin_us)
            if child is span or child_begin >= child_end:
                continue  # nobody waited for it: another one ran then and ended later
            if child_end < now:
                found.append(Segment(span, child_end, now))
            walk(child, child_begin, child_end, depth + 1)
            now = child_begin
        if begin_us < now:
            found.append(Segment(span, begin_us, now))

    walk(root, root.begin_us, root.end_us, 0)
    return sorted(found, key=lambda segment: segment.begin_us)


class Culprit(NamedTuple):
    """Where the time went, of `total_us` in all: `own_us`, longest in `span`."""

    place: Place
    span: Span
    own_us: int
    total_us: int

    def __str__(self) -> str:
        kind, where = self.place
        words = {
            "link": f"the link {where}",
            "service": f"{where} itself",
            "lost": f"something behind {where}, where the trace ends",
        }
        took = f"{self.own_us / 1000:.0f} of {self.total_us / 1000:.0f} ms"
        return f"{took} in {words[kind]} ({self.span.event} {self.span.what})"


def by_place(spans: Iterable[Span], root: Span) -> dict[Place, list[Segment]]:
    """The critical path of `root`, by the link or service that each piece of it went to.

    By place and not by span: four calls over the same slow link are one cause.
    """
    spans = list(spans)
    below = children(spans)
    found: dict[Place, list[Segment]] = {}
    for segment in critical_path(spans, root):
        place = _place(segment.span, below.get(segment.span.span_id, []))
        found.setdefault(place, []).append(segment)
    return found


def usual(traces: Iterable[tuple[Iterable[Span], Span]]) -> dict[Place, float]:
    """The median time at each place, in µs, of the traces (spans, root) that went there."""
    times: dict[Place, list[int]] = {}
    for spans, root in traces:
        for place, segments in by_place(spans, root).items():
            times.setdefault(place, []).append(_sum(segments))
    return {place: median(each) for place, each in times.items()}


def culprit(
    spans: Iterable[Span], root: Span, usually: Mapping[Place, float] = NOTHING
) -> Culprit:
    """The link or service where `root` spent most, beyond what is spent there `usually`."""
    places = by_place(spans, root)
    excess = {place: _sum(each) - usually.get(place, 0.0) for place, each in places.items()}
    place = max(excess, key=lambda place: excess[place])
    longest = max(places[place], key=lambda segment: segment.end_us - segment.begin_us)
    return Culprit(place, longest.span, _sum(places[place]), root.duration_us)


def _sum(segments: Iterable[Segment]) -> int:
    return sum(segment.end_us - segment.begin_us for segment in segments)


def _place(span: Span, below: list[Span]) -> Place:
    answered = [each for each in below if each.event == "request"]
    if span.event not in ("call", "client") and not answered:
        return "service", span.node
    # A request right below a request: a proxy, which tells one span for both of its sides. What is
    # not its backend's is the way there, or its own work, which is next to none.
    if not answered:
        return "lost", f"{span.node}→{span.peer or '?'}"
    # The one that answered last: a client that was sent on to the leader waited for that one.
    last = max(answered, key=lambda each: each.end_us)
    return "link", f"{span.node}→{last.node}"
