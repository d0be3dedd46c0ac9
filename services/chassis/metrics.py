"""Prometheus metrics of a node.

Requests are counted in plain lists, one per label set and kept (`labels()` costs 2.6 µs, a kept
child's histogram and counter 2 µs with their locks, a list 0.4). Those, and what the node counts
anyway (messages, the core's status), become metrics when `/metrics` is asked for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from services.chassis.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InternalError,
    Unavailable,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = ("GET", "PUT", "DELETE", "POST", "HEAD")
# What a service fails at (5xx), and what it does well. Shown at zero, too: a counter that appears
# with the first error is no *increase* to Prometheus, and an alert would miss that very error.
FAILURES = (Unavailable, DeadlineExceeded, ConnectionLost, InternalError)
EXPECTED = ("ok", *(kind.slug for kind in FAILURES))
_REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SYNC_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_GAUGES = ("term", "commit_index", "applied_index", "last_index", "conflicts")


class Counts(Protocol):
    """What the transport counts."""

    sent: dict[str, int]
    received: dict[str, int]
    dropped: dict[str, int]


class Metrics:
    """One registry per node (tests run several nodes in one process)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.synchronize = Histogram(
            "wal_synchronize_seconds",
            "One batch: encode, write, fdatasync",
            registry=self.registry,
            buckets=_SYNC_BUCKETS,
        )
        self._durations: dict[tuple[str, str], _Durations] = {}
        self.registry.register(_RequestCollector(self._durations))

    def request(self, method: str, outcome: str, duration_s: float) -> None:
        """Count one answer. `outcome` is "ok" or the slug of a problem type (so: bounded)."""
        durations = self._durations.get((method, outcome))
        if durations is None:
            # The method comes from outside: unknown ones share a label, or memory is the caller's.
            known = method if method in METHODS else "other"
            durations = self._durations.setdefault((known, outcome), _Durations())
        durations.counts[bisect_left(_REQUEST_BUCKETS, duration_s)] += 1
        durations.sum_s += duration_s

    def watch(self, status: Callable[[], dict[str, Any]], counts: Counts) -> None:
        """Show the core's status and the transport's counts when scraped."""
        self.registry.register(_NodeCollector(status, counts))

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self.registry)


class _Durations:
    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_REQUEST_BUCKETS) + 1)  # not cumulative; the last: slower
        self.sum_s = 0.0


class _RequestCollector:
    def __init__(self, durations: dict[tuple[str, str], _Durations]) -> None:
        self._durations = durations

    def collect(self) -> Iterable[Metric]:
        labels = ("method", "outcome")
        requests = CounterMetricFamily("requests", "Requests answered", labels=labels)
        histogram = HistogramMetricFamily(
            "request_duration_seconds", "Time to answer", labels=labels
        )
        bounds = [*map(str, map(float, _REQUEST_BUCKETS)), "+Inf"]
        for label_values, durations in self._durations.items():
            requests.add_metric(label_values, sum(durations.counts))
            cumulative = accumulate(durations.counts)
            buckets = list(zip(bounds, cumulative, strict=True))
            histogram.add_metric(label_values, buckets, durations.sum_s)
        for method in METHODS:
            for outcome in EXPECTED:
                if (method, outcome) not in self._durations:
                    requests.add_metric((method, outcome), 0)
        yield requests
        yield histogram


class _NodeCollector:
    def __init__(self, status: Callable[[], dict[str, Any]], counts: Counts) -> None:
        self._status = status
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        return []  # else the registry would collect once while the node is still being built

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        for name in _GAUGES:
            if isinstance(status.get(name), int):
                yield GaugeMetricFamily(name, f"The core's {name}", value=status[name])
        role = GaugeMetricFamily("role", "1 for the role the node is in", labels=["role"])
        role.add_metric([str(status.get("role"))], 1)
        yield role
        for name in ("sent", "received", "dropped"):
            family = CounterMetricFamily(
                f"messages_{name}", f"Protocol messages {name}", labels=["type"]
            )
            for type_, count in getattr(self._counts, name).items():
                family.add_metric([type_], count)
            yield family
