"""The balancer put together: data path, health checks, its own face; started and stopped.

Start: its own face (on a listener of its own), one check of each backend, then the public listener.
Stop (SIGTERM): the public listener first; requests in flight have `GRACE_MS` to be answered, each
answer with `Connection: close`; then everything else.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from services.chassis.admin_access import AdminAccess
from services.chassis.config import Address
from services.chassis.machine import Machine
from services.chassis.service import Service
from services.load_balancer.admin import Admin
from services.load_balancer.backends import Backend
from services.load_balancer.config import PREFIX, BalancerConfig
from services.load_balancer.health_checks import HealthChecks, describe
from services.load_balancer.observed import BalancerCollector
from services.load_balancer.proxy import Proxy


class LoadBalancer(Service):
    """One balancer. To be made inside a running event loop."""

    def __init__(self, config: BalancerConfig, machine: Machine | None = None) -> None:
        super().__init__(replace(config, listen=config.admin_listen), machine)
        self.config = config
        random = Random(self.machine.random.getrandbits(64))
        self.proxy = Proxy(
            config,
            clock=self.clock,
            telemetry=self.telemetry,
            metrics=self.metrics,
            log=self.log,
            random=random,
        )
        self.metrics.registry.register(BalancerCollector(self.proxy))
        self.checks = HealthChecks(config, self.proxy.backends, random, self._health_changed)
        access = AdminAccess(config.admin_token, f"{PREFIX}ADMIN_TOKEN")
        Admin(self.proxy.backends, self.checks.changed, access).add_routes(self.app)

    @property
    def port(self) -> int:
        """Where clients are served."""
        return self.proxy.port

    def _health_changed(self, backend: Backend, healthy: bool, why: str) -> None:
        told = {**describe(backend), "healthy": healthy, "why": why}
        self.log.info("health changed", **told)
        self.telemetry.emit({"event": "health", "kind": "process", **told})

    async def begin(self) -> None:
        await self.checks.start()
        host = self.config.admin_listen.host
        own = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        await self.proxy.start(Address(own, self.app.port))

    async def stop(self) -> None:
        await self.proxy.drain(self.config.grace_ms / 1000)
        await super().stop()

    async def end(self) -> None:
        self.proxy.close()
        await self.checks.stop()

    def story(self) -> dict[str, Any]:
        return {
            "serves": f"{self.config.listen.host}:{self.proxy.port}",
            "policy": self.config.policy,
            "backends": len(self.proxy.backends.all),
        }

    def not_ready(self) -> str | None:
        if self.proxy.draining:
            return "the balancer is stopping"
        if not self.proxy.backends.available(self.proxy.loop.time()):
            return f"none of {len(self.proxy.backends.all)} backends is available"
        return None

    def details(self) -> dict[str, Any]:
        proxy = self.proxy
        now = proxy.loop.time()
        return {
            "role": "load_balancer",
            "policy": self.config.policy,
            "draining": proxy.draining,
            "connections": proxy.admission.connections,
            "in_flight": proxy.admission.in_flight,
            "shed": proxy.admission.shed,
            "limited": proxy.admission.limited,
            "waiting": len(proxy.line),
            "waited_in_vain": proxy.line.in_vain,
            "retry_budget": {
                "tokens": round(proxy.retries.budget.tokens(now), 3),
                "spent": proxy.retries.budget.spent,
                "denied": proxy.retries.budget.denied,
            },
            "backends": proxy.backends.status(now),
        }
