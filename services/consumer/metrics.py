"""What a consumer counts, as Prometheus metrics when asked for them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Latencies:
    """From sending to effect, in seconds of the two machines' clocks."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Clocks of two machines differ: what arrives before it was sent took no time."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += max(0.0, seconds)


class ConsumerCollector:
    """`status` is the document of /status; `lag` is asked for by whoever scrapes."""

    def __init__(self, status: Callable[[], dict[str, Any]], latencies: Latencies) -> None:
        self._status = status
        self._latencies = latencies

    def describe(self) -> Iterable[Metric]:
        return []  # else the registry would collect once while the service is still being built

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        records = CounterMetricFamily("records", "Records by what became of them", labels=["what"])
        for what, count in status["counts"].items():
            records.add_metric([what], count)
        yield records
        lag = GaugeMetricFamily("lag", "Records that nobody has committed", labels=["partition"])
        for partition, count in status["lag"].items():
            lag.add_metric([partition], count)
        yield lag
        yield GaugeMetricFamily("in_flight", "Records being processed", value=status["in_flight"])
        yield GaugeMetricFamily("partitions", "Ours now", value=len(status["partitions"]))
        yield GaugeMetricFamily("paused", "1 while no more are taken", value=status["paused"])
        latency = HistogramMetricFamily("delivery_latency_seconds", "From sending to effect")
        bounds = [*map(str, map(float, BUCKETS_S)), "+Inf"]
        cumulative = accumulate(self._latencies.counts)
        latency.add_metric([], list(zip(bounds, cumulative, strict=True)), self._latencies.sum_s)
        yield latency
