"""Which traces are kept when not all can be: decided at the end, by how the request went. Pure.

*Head sampling* draws at the root, before anything is known (`workloads/tracing.py`; the services
honour the flag): cheap, because what is not drawn is never made, and blind. *Tail sampling* lets
everything be made and sent to one place, which waits for the end of the root and then keeps what
was slow or failed, and a share of the rest (as OpenTelemetry's collector does). It has to hold
every span that long: what it can't hold, it forgets, the oldest traces first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from labs.harness.traces.collect import Trace
from labs.harness.traces.spans import Span

HELD_MAX = 10_000


class TailSampler:
    """Spans in, in the order in which they end; `kept` has the traces that were worth it.

    Args:
        entry: the service whose request span is the root of a trace, as services see it.
        slow_us: a root that took longer is kept; so is every trace in which something failed.
        share: of the others, by the trace id (as for head sampling).
        held_max: traces that wait for their end; beyond it the oldest is given up (`given_up`).
    """

    def __init__(
        self, *, entry: str, slow_us: int, share: float = 0.1, held_max: int = HELD_MAX
    ) -> None:
        self.kept: dict[str, list[Span]] = {}
        self.dropped: set[str] = set()
        self.given_up = 0
        self.bytes_in = 0
        self._entry, self._slow_us, self._share = entry, slow_us, share
        self._held_max = held_max
        self._held: OrderedDict[str, list[Span]] = OrderedDict()

    @property
    def bytes_kept(self) -> int:
        """What is written in the end."""
        return sum(span.bytes for spans in self.kept.values() for span in spans)

    def offer(self, span: Span) -> None:
        """The next span."""
        self.bytes_in += span.bytes
        if span.trace_id in self.kept:
            self.kept[span.trace_id].append(span)  # a late one: work that nobody waited for
            return
        if span.trace_id in self.dropped:
            return
        self._held.setdefault(span.trace_id, []).append(span)
        if span.node == self._entry and span.event == "request":
            self._decide(span)
        elif len(self._held) > self._held_max:
            self._held.popitem(last=False)
            self.given_up += 1

    def _decide(self, root: Span) -> None:
        spans = self._held.pop(root.trace_id)
        drawn = int(root.trace_id[-14:], 16) < self._share * 2**56
        if drawn or root.duration_us > self._slow_us or any(span.bad for span in spans):
            self.kept[root.trace_id] = spans
        else:
            self.dropped.add(root.trace_id)


def tail_sampled(
    traces: Iterable[Trace], *, entry: str, slow_us: int, share: float
) -> TailSampler:
    """A sampler that has been told of all spans of `traces`, in the order in which they ended."""
    sampler = TailSampler(entry=entry, slow_us=slow_us, share=share)
    spans = [span for trace in traces for span in trace.spans]
    for span in sorted(spans, key=lambda span: span.end_us):
        sampler.offer(span)
    return sampler
