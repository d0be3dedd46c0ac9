"""What the cache counts of itself, and how that becomes metrics.

Plain numbers, rendered when `/metrics` is asked for: a labelled counter costs as much as a lookup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

# What a read found; each read of the cache counts once under one of them.
HITS = ("hit", "negative_hit", "dirty_hit")
RESULTS = (*HITS, "miss", "collapsed", "bypass")


class Counters:
    """Counts of one node since it started.

    `reads` by RESULTS; `fills` "stored", "refused" (something newer stood there, or the lease was
    gone) or "failed"; `invalidations` "done" or "owed"; `early`: recomputations before the expiry;
    `stale`: audited hits that the store had overwritten; `written_back`, `written_through`: what
    became of writes under write-back; `lost`: acknowledged and never written.
    """

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self.fills: Counter[str] = Counter(stored=0, refused=0, failed=0)
        self.invalidations: Counter[str] = Counter(done=0, owed=0)
        self.engine_errors: Counter[str] = Counter()
        self.store_reads = self.store_writes = self.early = self.undecodable = 0
        self.audited = self.stale = 0
        self.written_back = self.written_through = self.lost = 0
        self.hit_age_ms = 0

    def hit(self, result: str, age_ms: int = 0) -> None:
        """A hit (of HITS) on an entry of that age."""
        self.reads[result] += 1
        self.hit_age_ms += max(0, age_ms)

    @property
    def hit_ratio(self) -> float:
        """Hits of all reads; 0.0 before the first."""
        total = sum(self.reads.values())
        return sum(self.reads[result] for result in HITS) / total if total else 0.0

    def status(self) -> dict[str, Any]:
        """For `/status`."""
        plain = {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }
        return {**plain, "hit_ratio": round(self.hit_ratio, 4)}


class CacheCollector:
    """Shows the counters, and what `details` says of shards and queue, when scraped."""

    def __init__(self, counters: Counters, details: Callable[[], dict[str, Any]]) -> None:
        self._counters = counters
        self._details = details

    def describe(self) -> Iterable[Metric]:
        return []  # else the registry would collect once while the service is still being built

    def collect(self) -> Iterable[Metric]:
        counters, details = self._counters, self._details()
        for name, label, help_ in (
            ("reads", "result", "Reads, by what the cache had"),
            ("fills", "outcome", "Entries brought from the store, by what became of them"),
            ("invalidations", "outcome", "Entries invalidated; owed: the engine was not reached"),
            ("engine_errors", "shard", "Commands that an engine did not do"),
        ):
            family = CounterMetricFamily(f"cache_{name}", help_, labels=[label])
            for value, count in getattr(counters, name).items():
                family.add_metric([value], count)
            yield family
        for name, help_ in (
            ("store_reads", "Reads that reached the store"),
            ("store_writes", "Writes that reached the store"),
            ("early", "Entries recomputed before their expiry (XFetch)"),
            ("undecodable", "Entries that were no entries"),
            ("audited", "Hits compared with the store"),
            ("stale", "Audited hits that the store had overwritten, and that stayed"),
            ("written_back", "Writes acknowledged before the store had them, and then stored"),
            ("written_through", "Writes that found the write-back queue full"),
            ("lost", "Writes acknowledged and never stored"),
        ):
            yield CounterMetricFamily(f"cache_{name}", help_, value=getattr(counters, name))
        hits = sum(counters.reads[result] for result in HITS)
        yield GaugeMetricFamily("cache_hit_ratio", "Hits of all reads", value=counters.hit_ratio)
        yield GaugeMetricFamily(
            "cache_hit_age_seconds",
            "Mean age of the entries served: how stale a hit may be",
            value=counters.hit_age_ms / hits / 1000 if hits else 0.0,
        )
        yield GaugeMetricFamily("cache_dirty", "Keys not yet written back", value=details["dirty"])
        yield from _shards(details["shards"])


def _shards(shards: dict[str, dict[str, Any]]) -> Iterable[Metric]:
    up = GaugeMetricFamily("cache_shard_up", "1: its circuit is closed", labels=["shard"])
    gauges = [
        (key, GaugeMetricFamily(f"cache_shard_{key}", help_, labels=["shard"]))
        for key, help_ in (
            ("owed", "Invalidations that it has not had yet"),
            ("items", "Entries that it keeps"),
            ("memory_bytes", "Memory that it uses"),
        )
    ]
    evictions = CounterMetricFamily(
        "cache_evictions", "Entries thrown out for want of memory", labels=["shard"]
    )
    for name, told in shards.items():
        up.add_metric([name], told["circuit"] == "closed")
        for key, family in gauges:
            family.add_metric([name], told[key])
        evictions.add_metric([name], told["evictions"])
    yield from (up, evictions, *(family for _, family in gauges))
