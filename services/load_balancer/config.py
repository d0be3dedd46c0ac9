"""What a balancer needs to know: LOAD_BALANCER_* in the environment, checked before it starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.chassis.config import (
    PEERS_MAX,
    Address,
    ConfigError,
    Invalid,
    ServiceConfig,
    choice,
    integer,
    load,
    node,
    parse_address,
    secret,
    switch,
    token,
)
from services.load_balancer.admission import Limits
from services.load_balancer.policies import POLICIES

PREFIX = "LOAD_BALANCER_"
WEIGHT_MAX = 1_000
LOOPBACK = Address("127.0.0.1", 0)

_HASH_KEY = re.compile(r"ip|path|header:[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """A backend as it is configured; weight 0: it gets nothing."""

    address: Address
    weight: int = 1


def weight(text: str) -> int:
    return integer(0, WEIGHT_MAX)(text)


def backends(text: str) -> dict[str, BackendConfig]:
    """`n1=host:port,n2=host:port*3`: by name, with a weight or 1."""
    allowed = f"name=host:port or name=host:port*weight, joined by commas, at most {PEERS_MAX}"
    found: dict[str, BackendConfig] = {}
    for item in text.split(",") if text.strip() else []:
        name, equals, rest = item.strip().partition("=")
        address, star, times = rest.partition("*")
        if not equals or (star and not times):
            raise Invalid(f"{allowed}; {item.strip()!r} is none")
        if node(name) in found:
            raise Invalid(f"{allowed}, each name once; {name} is there twice")
        found[name] = BackendConfig(parse_address(address), weight(times) if star else 1)
    if len(found) > PEERS_MAX:
        raise Invalid(f"{allowed}; these are {len(found)}")
    return found


def _hash_key(text: str) -> str:
    if not _HASH_KEY.fullmatch(text):
        raise Invalid("ip, path, or header:<name>")
    return text


def _health_path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]{0,200}", text):
        raise Invalid("a path such as /health/ready")
    return text


def _health_expect(text: str) -> str:
    if len(text) > 200 or not text.isprintable():
        raise Invalid("text of at most 200 characters, or empty")
    return text


def _admin_listen(text: str) -> Address:
    return parse_address(text, port_min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerConfig(ServiceConfig):
    """Times in milliseconds, sizes in bytes, shares in percent; 0 switches a limit or a mechanism
    off where its comment says so. `seed` is of the policies that draw lots; 0: fresh chance. The
    backends are `backends` or, when that is empty, `peers`."""

    backends: dict[str, BackendConfig] = field(default_factory=dict)
    policy: str = "round_robin"
    hash_key: str = "path"  # of consistent_hash
    admin: bool = False  # serve /admin/ on the public listener, too
    admin_listen: Address = LOOPBACK
    admin_token: str = secret()  # empty: changes from loopback alone

    # Who is asked.
    health_interval_ms: int = 1_000  # 0: no active checks, every backend counts as healthy
    health_timeout_ms: int = 1_000
    health_path: str = "/health/ready"
    health_expect: str = ""  # what the body of a good check's answer holds, say "role":"leader"
    health_rise: int = 2
    health_fall: int = 3
    outlier_failures: int = 5  # 0: off
    outlier_ejection_ms: int = 10_000
    outlier_share: int = 50
    breaker_failures: int = 10  # 0: off
    breaker_open_ms: int = 2_000
    slow_start_ms: int = 0  # 0: off

    # How often. Attempts of one request, the first included: 1 is no retry.
    retry_attempts: int = 3
    retry_wait_ms: int = 10  # at most, before the second attempt; twice that before the third
    retry_budget: int = 20  # percent of the requests
    retry_minimum_per_s: int = 3
    retry_body_bytes: int = 64 << 10  # kept of a body, to send it again

    # How long.
    deadline_ms: int = 0  # of requests that name none; 0: none
    connect_timeout_ms: int = 1_000
    answer_timeout_ms: int = 30_000  # of a backend: to the answer's head, and between its bytes
    header_timeout_ms: int = 10_000  # of a client: from the first byte to the end of the head
    body_timeout_ms: int = 30_000  # of a client: between two pieces of its body
    send_timeout_ms: int = 30_000  # of a client: to take anything of what we have for it
    keepalive_ms: int = 75_000  # an idle connection of a client
    backend_keepalive_ms: int = 4_000  # an idle connection to a backend: less than Node's 5 s
    grace_ms: int = 5_000  # at SIGTERM, for what is in flight

    # How much.
    body_bytes_max: int = 1 << 30
    connections_max: int = 12_000
    connections_per_client: int = 0  # 0: off
    in_flight_max: int = 4_096
    backend_in_flight_max: int = 1_024  # of each backend; all full: wait, then shed
    backend_wait_ms: int = 100  # for a place at a backend when all are full; 0: shed at once
    backend_waiting_max: int = 256  # requests that wait so; one more is shed at once
    backend_idle_max: int = 256  # idle connections kept to each backend
    rate_per_client_s: int = 0  # requests; 0: off
    rate_burst: int = 10

    def check(self, prefix: str) -> None:
        # Not `super()`, which a dataclass with slots loses.
        ServiceConfig.check(self, prefix)
        if not self.backends and not self.peers:
            raise ConfigError(
                f"{prefix}BACKENDS is missing: name=host:port,… (or {prefix}PEERS, as a testbed "
                "gives it)"
            )

    def all_backends(self) -> dict[str, BackendConfig]:
        if self.backends:
            return dict(self.backends)
        return {name: BackendConfig(address) for name, address in self.peers.items()}

    def limits(self) -> Limits:
        return Limits(
            connections=self.connections_max,
            connections_per_client=self.connections_per_client,
            in_flight=self.in_flight_max,
            rate_per_s=self.rate_per_client_s,
            rate_burst=self.rate_burst,
        )


_ms = integer(1, 3_600_000, "ms")
_ms_or_off = integer(0, 3_600_000, "ms")
_count = integer(1, 1_000_000)
_count_or_off = integer(0, 1_000_000)

PARSERS: dict[str, Callable[[str], Any]] = {
    "backends": backends,
    "policy": choice(*POLICIES),
    "hash_key": _hash_key,
    "admin": switch,
    "admin_listen": _admin_listen,
    "admin_token": token,
    "health_interval_ms": _ms_or_off,
    "health_timeout_ms": _ms,
    "health_path": _health_path,
    "health_expect": _health_expect,
    "health_rise": integer(1, 100),
    "health_fall": integer(1, 100),
    "outlier_failures": _count_or_off,
    "outlier_ejection_ms": _ms,
    "outlier_share": integer(0, 100, "percent"),
    "breaker_failures": _count_or_off,
    "breaker_open_ms": _ms,
    "slow_start_ms": _ms_or_off,
    "retry_attempts": integer(1, 10),
    "retry_wait_ms": _ms_or_off,
    "retry_budget": integer(0, 100, "percent"),
    "retry_minimum_per_s": integer(0, 100_000),
    "retry_body_bytes": integer(0, 16 << 20, "bytes"),
    "deadline_ms": integer(0, 60_000, "ms"),
    "connect_timeout_ms": _ms,
    "answer_timeout_ms": _ms,
    "header_timeout_ms": _ms,
    "body_timeout_ms": _ms,
    "send_timeout_ms": _ms,
    "keepalive_ms": _ms,
    "backend_keepalive_ms": _ms,
    "grace_ms": _ms_or_off,
    "body_bytes_max": integer(1, 1 << 50, "bytes"),
    "connections_max": _count,
    "connections_per_client": _count_or_off,
    "in_flight_max": _count,
    "backend_in_flight_max": _count,
    "backend_wait_ms": integer(0, 60_000, "ms"),
    "backend_waiting_max": _count,
    "backend_idle_max": _count_or_off,
    "rate_per_client_s": _count_or_off,
    "rate_burst": _count,
}


def load_config(environ: Mapping[str, str]) -> BalancerConfig:
    """The checked configuration. Raises ConfigError with one line for a human."""
    return load(BalancerConfig, environ, PREFIX, PARSERS)
