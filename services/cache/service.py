"""A cache node put together: servers, store, reader, writer, and what goes on in the background."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from services.cache.codec import Codec
from services.cache.config import PREFIX, CacheConfig
from services.cache.counters import CacheCollector, Counters
from services.cache.engines import Engine, EngineError
from services.cache.engines.memcached import MemcachedEngine
from services.cache.engines.redis import RedisEngine
from services.cache.flights import SingleFlight
from services.cache.handlers import CacheHandlers
from services.cache.reads import Freshness, Reader
from services.cache.shards import Shard
from services.cache.store import Store
from services.cache.tier import Terms, Tier
from services.cache.write_back import DirtyKeys
from services.cache.writes import Writer
from services.chassis.admin_access import AdminAccess
from services.chassis.calls import Calls
from services.chassis.config import Address
from services.chassis.machine import Machine
from services.chassis.service import GRACE_S, Service
from services.kv.client import KvClient
from services.protocols.placement import Modulo, Ring
from services.resilience.circuit_breaker import CircuitBreaker

PAY_EVERY_S, LOOK_EVERY_S = 0.05, 1.0


class Cache(Service):
    """`shards`: where the servers are, by name."""

    def __init__(
        self, config: CacheConfig, shards: dict[str, Address], machine: Machine | None = None
    ) -> None:
        super().__init__(config, machine)
        self.config = config
        self.counters = Counters()
        self._random = Random(self.machine.random.getrandbits(64))
        self.dirty = DirtyKeys(config.dirty_max)
        self.calls = Calls(self.telemetry, self.clock)
        self.tier = self._tier(shards)
        client = KvClient(config.store_addresses, random=self._random)
        self.store = Store(
            client, self.calls, self.counters, read=config.store_read, now_ms=self.now_ms
        )
        self.reader = Reader(
            self.tier,
            self.store,
            SingleFlight(enabled=config.single_flight),
            self.dirty,
            _freshness(config),
            self.counters,
            self.now_ms,
            self._random,
        )
        self.writer = Writer(
            config.policy,
            self.tier,
            self.store,
            self.reader,
            self.dirty,
            self.counters,
            self.clock.monotonic,
            self.log,
        )
        access = AdminAccess(config.admin_token, f"{PREFIX}ADMIN_TOKEN")
        CacheHandlers(
            self.name,
            self.reader,
            self.writer,
            self.store,
            self.tier,
            self.now_ms,
            self.place,
            access,
        ).add_routes(self.app)
        self.metrics.registry.register(CacheCollector(self.counters, self.details))
        self._tasks: list[asyncio.Task[None]] = []

    def _tier(self, shards: dict[str, Address]) -> Tier:
        config = self.config
        made = {}
        for name, address in shards.items():
            breaker = CircuitBreaker(
                failures_to_open=config.failures_to_open, open_for_s=config.open_ms / 1000
            )
            engine = _engine(config, address)
            made[name] = Shard(name, engine, breaker, self.counters)
        terms = Terms(
            config.guard,
            config.replicas,
            config.lease_ms,
            config.hold_off_ms,
            config.engine_timeout_ms,
        )
        return Tier(
            made,
            self._placement(list(made)),
            Codec(config.encoding),
            terms,
            self.counters,
            self.now_ms,
            self._random,
        )

    def _placement(self, names: list[str]) -> Ring | Modulo:
        return Ring(names) if self.config.placement == "ring" else Modulo(names)

    def now_ms(self) -> int:
        """This node's wall clock, ms."""
        return int(self.clock.wall() * 1000)

    async def place(self, names: list[str]) -> None:
        """Keep keys on these shards from now on. Raises EngineError: nothing has changed."""
        for name in names:
            if name not in self.tier.placement.nodes:
                # It has missed every write since it was taken out.
                await self.tier.shards[name].ask(lambda engine: engine.flush())
        self.tier.placement = self._placement(names)
        self.telemetry.emit({"event": "placement", "kind": "operator", "shards": names})

    # ------------------------------------------------------------------ life

    async def begin(self) -> None:
        for work in (self._pay_on(), self._look_on(), self._flush_on()):
            self._tasks.append(asyncio.create_task(work))

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.writer.close(GRACE_S)
        await self.reader.close()
        for shard in self.tier.shards.values():
            await shard.close()
        await self.store.close()
        await self.calls.close()

    async def _flush_on(self) -> None:
        await self._guarded(self.writer.flush_on(self.config.flush_ms / 1000))

    async def _pay_on(self) -> None:
        """Pay invalidations that are owed, as soon as a server answers."""

        async def pay(shard: Shard) -> None:
            try:
                await shard.pay(self.tier.leave)
            except EngineError:
                return

        async def pay_all() -> None:
            while True:
                owing = [each for each in self.tier.shards.values() if each.owed or each.owes_flush]
                await asyncio.gather(*map(pay, owing))
                await asyncio.sleep(PAY_EVERY_S)

        await self._guarded(pay_all())

    async def _look_on(self) -> None:
        """Ask each server how it is."""

        async def look(shard: Shard) -> None:
            was_up = shard.up
            try:
                await shard.look()
            except EngineError as exc:
                if was_up and not shard.up:
                    self.log.warning("a shard does not answer", shard=shard.name, error=str(exc))

        async def look_all() -> None:
            while True:
                await asyncio.gather(*map(look, self.tier.shards.values()))
                await asyncio.sleep(LOOK_EVERY_S)

        await self._guarded(look_all())

    async def _guarded(self, work: Any) -> None:
        """Without its background work a node would go on with wrong answers: it stops instead."""
        try:
            await work
        except Exception as exc:
            self.fail(exc)

    # ------------------------------------------------------------------ what it tells

    def story(self) -> dict[str, Any]:
        config = self.config
        return {"policy": config.policy, "engine": config.engine, "shards": list(self.tier.shards)}

    def details(self) -> dict[str, Any]:
        codec, config = self.tier.codec, self.config
        oldest_s = self.dirty.oldest_s()
        return {
            "role": "cache",
            "policy": config.policy,
            "engine": config.engine,
            "guard": config.guard,
            "placement": {"kind": config.placement, "shards": list(self.tier.placement.nodes)},
            "counters": self.counters.status(),
            "waiting": self.reader.waiting,
            "dirty": len(self.dirty),
            "dirty_for_ms": 0 if oldest_s is None else self._since_ms(oldest_s),
            "shards": {name: _told(shard) for name, shard in self.tier.shards.items()},
            "encoding": {
                "name": codec.encoding,
                "encoded": codec.encoded,
                "bytes": codec.encoded_bytes,
                "value_bytes": codec.value_bytes,
                "cpu_us": round(codec.cpu_us, 3),
            },
        }

    def _since_ms(self, monotonic_s: float) -> int:
        return round((self.clock.monotonic() - monotonic_s) * 1000)


def _engine(config: CacheConfig, address: Address) -> Engine:
    kind = MemcachedEngine if config.engine == "memcached" else RedisEngine
    return kind(address, timeout_s=config.engine_timeout_ms / 1000)


def _freshness(config: CacheConfig) -> Freshness:
    return Freshness(
        ttl_ms=config.ttl_ms,
        jitter=config.jitter,
        beta=config.early_beta,
        negative_ttl_ms=config.negative_ttl_ms,
        fetch_ms=config.fetch_ms,
        lease_wait_ms=config.lease_wait_ms,
        audit=config.audit,
    )


def _told(shard: Shard) -> dict[str, Any]:
    stats = shard.stats
    return {
        "circuit": shard.circuit,
        "owed": len(shard.owed),
        "items": stats.items,
        "memory_bytes": stats.memory_bytes,
        "evictions": stats.evictions,
    }
