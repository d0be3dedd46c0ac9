"""The balancer's own metrics, made from what it counts anyway when `/metrics` is asked for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from services.load_balancer.proxy import Proxy


class BalancerCollector:
    """For a prometheus-client registry."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def describe(self) -> Iterable[Metric]:
        return []  # else the registry would collect once while the balancer is being built

    def collect(self) -> Iterable[Metric]:
        yield from self._of_backends()
        admission, budget = self._proxy.admission, self._proxy.retries.budget
        for name, text, value in (
            ("connections", "Open connections of clients", admission.connections),
            ("in_flight", "Requests that are not answered yet", admission.in_flight),
            ("waiting", "Requests that wait while all backends are full", len(self._proxy.line)),
            ("retry_budget_tokens", "Retries that could be paid for", self._tokens()),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, value in (
            ("shed", "Refused with 503: overloaded", admission.shed),
            ("limited", "Refused with 429: one client's too much", admission.limited),
            ("waited_in_vain", "Refused with 503 after that wait", self._proxy.line.in_vain),
            ("retries", "Attempts after the first", budget.spent),
            ("retries_denied", "Retries that the budget did not pay for", budget.denied),
        ):
            yield CounterMetricFamily(name, text, value=value)

    def _tokens(self) -> float:
        return self._proxy.retries.budget.tokens(self._proxy.loop.time())

    def _of_backends(self) -> Iterable[Metric]:
        now = self._proxy.loop.time()
        label = ["backend"]
        answers = CounterMetricFamily(
            "backend_answers", "Answers by class of status", labels=["backend", "class"]
        )
        failures = CounterMetricFamily("backend_failures", "Attempts without one", labels=label)
        retries = CounterMetricFamily("backend_retries", "Attempts made again after", labels=label)
        ejections = CounterMetricFamily("backend_ejections", "Thrown out as outlier", labels=label)
        available = GaugeMetricFamily("backend_available", "May it be asked", labels=label)
        in_flight = GaugeMetricFamily("backend_in_flight", "Requests it works on", labels=label)
        connections = GaugeMetricFamily("backend_connections", "Open ones", labels=label)
        chosen_from = self._proxy.backends.available(now)
        for each in self._proxy.backends.all.values():
            name = [each.name]
            for status in range(2, 6):
                answers.add_metric([each.name, f"{status}xx"], each.answers[status])
            failures.add_metric(name, each.failures)
            retries.add_metric(name, each.retries)
            ejections.add_metric(name, each.ejections)
            available.add_metric(name, each in chosen_from)
            in_flight.add_metric(name, each.in_flight)
            connections.add_metric(name, each.connections)
        return (answers, failures, retries, ejections, available, in_flight, connections)
