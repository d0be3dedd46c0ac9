"""One cache server with its circuit breaker, and what this node still owes it.

**Owed invalidations.** A write is acknowledged by the store, and the entry that it makes wrong
cannot be removed, because the server is not reached. To fail the write would be a lie (it
happened), to forget about it a stale entry for a whole time to live. So the node keeps the debt:
until it is paid it does not read that key from that server, and it pays as soon as the server
answers. (Other nodes do not know of the debt. A server that was *killed* owes nobody an entry of
its earlier life; one that this node alone could not reach may serve others a value that is stale
until the debt is paid, or its time to live is over.)

Debts are bounded: beyond OWED_MAX the server is emptied before it is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.cache.counters import Counters
from services.cache.engines import Engine, EngineError, EngineLost, EngineRefused, EngineStats
from services.resilience.circuit_breaker import CircuitBreaker, State

OWED_MAX = 10_000

T = TypeVar("T")


class Shard:
    """`engine`, asked through `breaker`."""

    def __init__(
        self, name: str, engine: Engine, breaker: CircuitBreaker, counters: Counters
    ) -> None:
        self.name = name
        self.owed: dict[str, int] = {}  # by key: the version that it is at (or UNKNOWN)
        self.owes_flush = False
        self.stats = EngineStats(0, 0, 0)
        self._engine = engine
        self._breaker = breaker
        self._counters = counters

    async def ask(self, call: Callable[[Engine], Awaitable[T]]) -> T:
        """One call of the engine. Raises EngineLost (also when the circuit is open), or
        EngineRefused."""
        now = asyncio.get_running_loop().time
        if not self._breaker.allow(now()):
            raise EngineLost(f"{self.name} has not answered; asked again later")
        try:
            answer = await call(self._engine)
        except EngineError as exc:
            self._counters.engine_errors[self.name] += 1
            alive = isinstance(exc, EngineRefused)
            (self._breaker.record_success if alive else self._breaker.record_failure)(now())
            raise
        self._breaker.record_success(now())
        return answer

    @property
    def up(self) -> bool:
        return self._breaker.state is State.CLOSED

    @property
    def circuit(self) -> str:
        """The breaker's state: `closed`, `open`, `half_open`."""
        return str(self._breaker.state)

    def readable(self, key: str) -> bool:
        """Is what it says of `key` not known to be wrong?"""
        return not self.owes_flush and key not in self.owed

    def owe(self, key: str, version: int) -> None:
        """`key` was written and is at `version` (or UNKNOWN), and the server does not know."""
        self.owed[key] = max(version, self.owed.get(key, 0))
        if len(self.owed) > OWED_MAX:
            self.owes_flush = True
            self.owed.clear()

    async def pay(self, invalidate: Callable[[Shard, str, int], Awaitable[None]]) -> None:
        """Pay what is owed. Raises EngineLost or EngineRefused when the server will not have it."""
        if self.owes_flush:
            await self.ask(lambda engine: engine.flush())
            self.owes_flush = False
        for key, version in list(self.owed.items()):
            await invalidate(self, key, version)
            if self.owed.get(key) == version:  # else a later write is owed by now
                del self.owed[key]

    async def look(self) -> None:
        """Refresh `stats`. Raises EngineLost."""
        self.stats = await self.ask(lambda engine: engine.stats())

    async def close(self) -> None:
        await self._engine.close()
