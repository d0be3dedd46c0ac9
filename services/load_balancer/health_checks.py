"""Active health checks: each backend is asked, again and again, whether it is ready.

One task per backend, all begun at random moments of the interval: checks in step would hit a shared
dependency of the backends in one burst. A new connection each time: that a kept one still works
says nothing about whether the next one would be accepted.

A balancer that is too busy to read the answers in time would find all of its backends dead at once,
and turn its own overload into an outage (seen: 10,000 connections in a burst). So a check that ran
out of time while the event loop was late itself says nothing, and is not recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import aiohttp
from yarl import URL

from services.load_balancer.backends import Backend, Backends
from services.load_balancer.config import BalancerConfig

LATE_S = 0.05  # a timer that fires so much after its time: the loop was busy

BODY_BYTES = 64 << 10  # of an answer, to look into

Told = Callable[[Backend, bool, str], None]


class HealthChecks:
    """Checks every backend of `backends`, new ones from the next round on.

    Args:
        told: is called when a verdict changes: backend, healthy, why.
    """

    def __init__(
        self, config: BalancerConfig, backends: Backends, random: Random, told: Told
    ) -> None:
        self._interval_s = config.health_interval_ms / 1000
        self._timeout_s = config.health_timeout_ms / 1000
        self._path = config.health_path
        self._expect = config.health_expect.encode()
        self._user_agent = f"{config.node} health check"
        self._backends = backends
        self._random = random
        self._told = told
        self._tasks: dict[Backend, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Check each once, so that the first request finds somebody; then go on by interval."""
        if self._interval_s == 0:
            return
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            headers={"User-Agent": self._user_agent},
        )
        await asyncio.gather(*(self.check(each) for each in self._backends.all.values()))
        self.changed()

    def changed(self) -> None:
        """Backends were added or removed."""
        if self._session is None:
            return
        # In their order, not that of a set: it is by address, and so would be who is checked when.
        present = dict.fromkeys(self._backends.all.values())
        for backend in [each for each in self._tasks if each not in present]:
            self._tasks.pop(backend).cancel()
        for backend in [each for each in present if each not in self._tasks]:
            self._tasks[backend] = asyncio.get_running_loop().create_task(self._watch(backend))

    async def _watch(self, backend: Backend) -> None:
        if backend.check.healthy is None:
            await self.check(backend)
        await asyncio.sleep(self._random.random() * self._interval_s)
        while True:
            await self.check(backend)
            await asyncio.sleep(self._interval_s)

    async def check(self, backend: Backend) -> bool:
        """Ask it once, and record what comes."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        why = await self._unready(backend)
        now = loop.time()
        if why and now - began > self._timeout_s + LATE_S:
            return False  # we were late ourselves
        if self._backends.checked_health(backend, not why, now):
            if why:
                backend.close_idle()
            self._told(backend, not why, why)
        return not why

    async def _unready(self, backend: Backend) -> str:
        """Why it is not ready; empty when it is."""
        assert self._session is not None
        url = URL(f"http://{backend.address}{self._path}", encoded=True)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return f"status {response.status}"
                if self._expect and self._expect not in await response.content.read(BODY_BYTES):
                    return f"no {self._expect.decode()} in its answer"
                return ""
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            return f"{type(exc).__name__}: {exc}"

    async def stop(self) -> None:
        """Idempotent."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None


def describe(backend: Backend) -> dict[str, Any]:
    """For a log line."""
    return {"backend": backend.name, "address": str(backend.address)}
