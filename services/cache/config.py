"""Configuration of a cache node: CACHE_* and the addresses of its servers, MEMBER_*."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.cache.codec import ENCODINGS
from services.cache.tier import GUARDS
from services.cache.writes import POLICIES
from services.chassis.config import (
    Address,
    ConfigError,
    Invalid,
    Parser,
    ServiceConfig,
    choice,
    integer,
    load,
    parse_address,
    secret,
    switch,
    token,
)

PREFIX, MEMBER = "CACHE_", "MEMBER_"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    if len(set(names)) != len(names) or not all(map(_NAME.fullmatch, names)):
        raise Invalid("names such as redis-1,redis-2, each once, joined by commas")
    return names


def _share(high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text) or not float(text) <= high:
            raise Invalid(f"a number from 0 to {high:g}")
        return float(text)

    return parse


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig(ServiceConfig):
    """What a cache node needs to know; each field is the environment key `CACHE_<FIELD>`.

    `store`: names among `peers` (default: all of them). `shards`: names of members (default: every
    MEMBER_* there is). `jitter` and `audit` are shares; `early_beta` 0 and `negative_ttl_ms` 0
    switch their mechanism off. What the rest means, the modules say that it is passed to.
    """

    store: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    engine: str = "redis"
    encoding: str = "json"
    placement: str = "ring"
    replicas: int = 1
    policy: str = "aside"
    guard: str = "lease"
    single_flight: bool = True
    ttl_ms: int = 30_000
    jitter: float = 0.1
    early_beta: float = 1.0
    negative_ttl_ms: int = 1_000
    store_read: str = "linearizable"
    fetch_ms: int = 2_000
    engine_timeout_ms: int = 200
    failures_to_open: int = 5
    open_ms: int = 500
    lease_ms: int = 3_000
    lease_wait_ms: int = 500
    hold_off_ms: int = 5_000
    flush_ms: int = 50
    dirty_max: int = 1_000
    audit: float = 0.0
    admin_token: str = secret()

    def check(self, prefix: str) -> None:
        ServiceConfig.check(self, prefix)  # `super()` knows no class that was remade with slots
        if not self.peers:
            raise ConfigError(f"{prefix}PEERS is missing: a cache needs a store to ask")
        if strangers := [name for name in self.store if name not in self.peers]:
            known = ", ".join(self.peers)
            raise ConfigError(
                f"{prefix}STORE={strangers[0]!r}: allowed are names of {prefix}PEERS: {known}"
            )
        if self.replicas > 1 and self.guard == "lease":
            # A lease is given by one server, and says nothing of what its replicas hold.
            raise ConfigError(
                f"{prefix}REPLICAS={self.replicas}: allowed only with {prefix}GUARD=version"
            )
        if self.guard == "version" and self.hold_off_ms <= self.engine_timeout_ms:
            raise ConfigError(
                f"{prefix}HOLD_OFF_MS={self.hold_off_ms}: allowed is more than "
                f"{prefix}ENGINE_TIMEOUT_MS={self.engine_timeout_ms}, or nothing is ever stored"
            )

    @property
    def store_addresses(self) -> dict[str, str]:
        """Node → "host:port", as `KvClient` wants it."""
        return {name: str(self.peers[name]) for name in self.store or self.peers}


_MS = integer(1, 86_400_000, "ms")
_PARSERS: dict[str, Parser] = {
    "store": _names,
    "shards": _names,
    "admin_token": token,
    "engine": choice("redis", "memcached"),
    "encoding": choice(*ENCODINGS),
    "placement": choice("ring", "modulo"),
    "replicas": integer(1, 5, "servers"),
    "policy": choice(*POLICIES),
    "guard": choice(*GUARDS),
    "single_flight": switch,
    "ttl_ms": _MS,
    "jitter": _share(1),
    "early_beta": _share(100),
    "negative_ttl_ms": integer(0, 86_400_000, "ms"),
    "store_read": choice("linearizable", "lease", "local"),
    "fetch_ms": integer(1, 60_000, "ms"),
    "engine_timeout_ms": integer(1, 60_000, "ms"),
    "failures_to_open": integer(1, 1_000, "failures"),
    "open_ms": integer(1, 60_000, "ms"),
    "lease_ms": integer(1, 60_000, "ms"),
    "lease_wait_ms": integer(0, 60_000, "ms"),
    "hold_off_ms": integer(1, 60_000, "ms"),
    "flush_ms": integer(0, 60_000, "ms"),
    "dirty_max": integer(1, 1_000_000, "keys"),
    "audit": _share(1),
}


def load_cache(environ: Mapping[str, str]) -> tuple[CacheConfig, dict[str, Address]]:
    """The checked configuration, and where its shards are. Raises ConfigError."""
    config = load(CacheConfig, environ, PREFIX, _PARSERS)
    members = {
        key.removeprefix(MEMBER).lower().replace("_", "-"): key
        for key in sorted(environ)
        if key.startswith(MEMBER)
    }
    shards: dict[str, Address] = {}
    for name in config.shards or members:
        key = members.get(name)
        if key is None:
            wanted = MEMBER + name.upper().replace("-", "_")
            raise ConfigError(f"{wanted} is missing: {PREFIX}SHARDS names {name}")
        try:
            shards[name] = parse_address(environ[key])
        except ValueError as exc:
            raise ConfigError(f"{key}={environ[key][:200]!r}: allowed is {exc}") from None
    if not shards:
        raise ConfigError("MEMBER_REDIS is missing: a cache needs at least one server to keep it")
    return config, shards
