"""A plain backend of known capacity: what a load balancer is put in front of.

    GET /work    takes one of `concurrency` places for `service_ms`, in turn; 200 {"node": …}

A replica answers `concurrency / service_ms` requests a second and no more, because its places are
held by waiting, not by computing: so four replicas on two cores have four times the capacity of
one, and a lab that says so says it of the design and not of the machine.

Whoever comes while all places are taken waits in line, also after its caller has hung up: that is
what most servers do, and what makes overload worse than its cause. `queue_max` is the end of the
line: one more is refused at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import Gauge

from services.chassis.app import Context, json_response
from services.chassis.capacity import Capacity
from services.chassis.config import Parser, ServiceConfig, integer, load
from services.chassis.machine import Machine
from services.chassis.service import Service, run_process

PREFIX = "WEB_"
PARSERS: dict[str, Parser] = {
    "concurrency": integer(1, 10_000, "requests at a time"),
    "service_ms": integer(0, 60_000, "ms"),
    "queue_max": integer(0, 1_000_000, "requests that wait"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig(ServiceConfig):
    """See the module."""

    concurrency: int = 4
    service_ms: int = 20
    queue_max: int = 10_000


class Web(Service):
    """One replica. To be made inside a running event loop."""

    def __init__(self, config: WebConfig, machine: Machine | None = None) -> None:
        super().__init__(config, machine)
        self._service_us = config.service_ms * 1000
        self._capacity = Capacity(
            config.concurrency,
            config.service_ms,
            here_max=config.concurrency + config.queue_max,
        )
        for name, count in (
            ("web_waiting", lambda: self._capacity.waiting),
            ("web_working", lambda: self._capacity.working),
        ):
            gauge = Gauge(
                name, "Requests that wait or are worked on", registry=self.metrics.registry
            )
            gauge.set_function(count)
        self.app.add("GET", "/work", self.work)

    def details(self) -> dict[str, Any]:
        capacity = self._capacity
        return {"role": "web", "waiting": capacity.waiting, "working": capacity.working}

    async def work(self, _: web.BaseRequest, context: Context) -> web.Response:
        """The work."""
        came = self.clock.true_monotonic()
        async with self._capacity:
            spent_us = (self.clock.true_monotonic() - came) * 1e6
            context.fields["waited_us"] = max(0, round(spent_us - self._service_us))
            return json_response({"node": self.name})


def make(environ: Mapping[str, str], machine: Machine | None = None) -> Web:
    """A replica, not yet started. Raises ConfigError."""
    return Web(load(WebConfig, environ, PREFIX, PARSERS), machine)


def main(environ: Mapping[str, str]) -> int:
    """A replica as a process of its own; returns the exit code (2: bad configuration)."""
    return run_process(make, environ)
