"""What traces tell: spans joined across services, the critical path, what a sampler would keep."""

from labs.harness.traces.collect import Trace, collect, gather, slower_than
from labs.harness.traces.critical_path import Culprit, Place, Segment, critical_path, culprit, usual
from labs.harness.traces.spans import Span

__all__ = [
    "Culprit",
    "Place",
    "Segment",
    "Span",
    "Trace",
    "collect",
    "critical_path",
    "culprit",
    "gather",
    "slower_than",
    "usual",
]
