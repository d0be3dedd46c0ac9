"""Ask a Prometheus over its HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import aiohttp

WITHIN_S = 5.0


class Series(NamedTuple):
    """One series of an instant query: its labels, and its value now."""

    labels: dict[str, str]
    value: float


class Alert(NamedTuple):
    """An alert that is `state` "pending" or "firing"; inactive ones are not listed.

    `active_at`: when its expression became true, as Prometheus writes times (RFC 3339).
    """

    name: str
    state: str
    labels: dict[str, str]
    active_at: str


class PrometheusError(Exception):
    """It did not answer, or refused the question; the message is its own."""


class PrometheusApi:
    """Questions to the server at `address` ("host:port")."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._base = f"http://{address}/api/v1"

    async def query(self, expression: str) -> list[Series]:
        """An instant query. Raises PrometheusError."""
        data = await self._get("/query", query=expression)
        if data["resultType"] == "scalar":
            return [Series({}, float(data["result"][1]))]
        return [Series(each["metric"], float(each["value"][1])) for each in data["result"]]

    async def value(self, expression: str) -> float | None:
        """The only value of `expression`; None when it has none. Raises PrometheusError."""
        series = await self.query(expression)
        assert len(series) <= 1, f"{expression} has {len(series)} values"
        return series[0].value if series else None

    async def now(self) -> float:
        """Unix time by Prometheus' clock. Raises PrometheusError."""
        (scalar,) = await self.query("time()")
        return scalar.value

    async def fired(self, since: float) -> dict[str, float]:
        """The alerts that fired from `since` on (as `now` gives it), and when they first did.

        Read from the series that Prometheus keeps of its alerts, so that none is missed between two
        looks. Raises PrometheusError.
        """
        now = await self.now()
        window_ms = max(1, round((now - since) * 1000))
        firing = f'ALERTS{{alertstate="firing"}}[{window_ms}ms]'
        data = await self._get("/query", query=firing, time=f"{now:.3f}")
        first: dict[str, float] = {}
        for series in data["result"]:
            times = [float(at) for at, _ in series["values"] if float(at) >= since]
            name = series["metric"]["alertname"]
            if times:
                first[name] = min(first.get(name, times[0]), times[0])
        return first

    async def has_fired(self, alert: str, since: float) -> bool:
        """Did it fire from `since` on? Raises PrometheusError."""
        return alert in await self.fired(since)

    async def is_quiet(self, alert: str) -> bool:
        """It does not fire now. Raises PrometheusError."""
        return alert not in await self.firing()

    async def scraped(self, nodes: Iterable[str], times: int) -> bool:
        """Has it scraped each of `nodes` so often by now? Raises PrometheusError."""
        seen = await self.query("count_over_time(up[1h])")
        counts = {each.labels["instance"]: each.value for each in seen}
        return all(counts.get(node, 0) >= times for node in nodes)

    async def firing(self) -> set[str]:
        """The alerts that fire now. Raises PrometheusError."""
        return {each.name for each in await self.alerts() if each.state == "firing"}

    async def over_time(self, expression: str, start: float, end: float, step_s: float) -> Any:
        """A range query: its series as [{"metric": …, "values": [[time, value], …]}, …].

        `start`, `end`: Unix time. Raises PrometheusError.
        """
        words = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:g}"}
        return (await self._get("/query_range", query=expression, **words))["result"]

    async def alerts(self) -> list[Alert]:
        """Those that are pending or firing. Raises PrometheusError."""
        data = await self._get("/alerts")
        return [
            Alert(each["labels"]["alertname"], each["state"], each["labels"], each["activeAt"])
            for each in data["alerts"]
        ]

    async def rules(self) -> dict[str, str]:
        """The health of each rule by name: "ok", "unknown" (not evaluated yet) or its error.

        Raises PrometheusError.
        """
        data = await self._get("/rules")
        return {
            rule["name"]: rule.get("lastError") or rule["health"]
            for group in data["groups"]
            for rule in group["rules"]
        }

    async def targets(self) -> dict[str, str]:
        """Per node "up", "unknown" (not scraped yet) or its last error. Raises PrometheusError."""
        data = await self._get("/targets", state="active")
        return {
            each["labels"]["instance"]: each["lastError"] or each["health"]
            for each in data["activeTargets"]
        }

    async def _get(self, path: str, **words: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=WITHIN_S)
        try:
            async with self._session.get(
                self._base + path, params=words, timeout=timeout
            ) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise PrometheusError(f"{path}: {error!r}") from error
        if answer.get("status") != "success":
            raise PrometheusError(f"{path}: {answer.get('error', answer)}")
        return answer["data"]
