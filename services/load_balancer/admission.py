"""Admission control: who is refused at the door, before any work is done. Pure.

A server that takes everything answers nothing in time once it is overloaded: each answer comes
after its caller has given up, and goodput collapses while the server is fully busy. To refuse early
is cheap for both sides. Two kinds of no:

- 429: *this client* holds too many connections or asks too often; others are served.
- 503 with Retry-After: *we* hold too many connections or requests; it is nobody's fault.

The rate of a client is a token bucket: `rate_per_s` tokens a second, `rate_burst` at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.load_balancer.errors import Overloaded, TooManyRequests

BUCKETS_MAX = 20_000  # clients whose rate is remembered; a full bucket is as good as none


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All per balancer; 0 is no limit."""

    connections: int = 0
    connections_per_client: int = 0
    in_flight: int = 0
    rate_per_s: int = 0  # requests of one client
    rate_burst: int = 1


class Admission:
    """Counts connections and requests; `now` is seconds, monotonic."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.connections = 0
        self.in_flight = 0
        self.shed = 0
        self.limited = 0
        self._by_client: dict[str, int] = {}
        self._buckets: dict[str, tuple[float, float]] = {}  # client → tokens, when

    def connect(self, client: str) -> Overloaded | TooManyRequests | None:
        """A connection was opened: it counts until `disconnect`, even if it is refused."""
        limits = self.limits
        self.connections += 1
        own = self._by_client[client] = self._by_client.get(client, 0) + 1
        if limits.connections_per_client and own > limits.connections_per_client:
            self.limited += 1
            most = limits.connections_per_client
            return TooManyRequests(f"a client may hold {most} connections")
        if limits.connections and self.connections > limits.connections:
            self.shed += 1
            return Overloaded("too many connections")
        return None

    def disconnect(self, client: str) -> None:
        """A connection is gone."""
        self.connections -= 1
        own = self._by_client[client] - 1
        assert own >= 0, client
        if own:
            self._by_client[client] = own
        else:
            del self._by_client[client]

    def begin(self, client: str, now: float) -> Overloaded | TooManyRequests | None:
        """A request has come; None: it is in flight until `end`."""
        limits = self.limits
        if limits.rate_per_s:
            wait_s = self._take(client, now)
            if wait_s > 0.0:
                self.limited += 1
                rate = f"{limits.rate_per_s} requests a second"
                return TooManyRequests(f"a client may send {rate}", retry_after_s=wait_s)
        if limits.in_flight and self.in_flight >= limits.in_flight:
            self.shed += 1
            return Overloaded("too many requests are in flight")
        self.in_flight += 1
        return None

    def end(self) -> None:
        """A request that `begin` let in is over."""
        self.in_flight -= 1
        assert self.in_flight >= 0

    def _take(self, client: str, now: float) -> float:
        """Take a token of the client's; seconds until there is one, if there is none."""
        rate, burst = self.limits.rate_per_s, max(1, self.limits.rate_burst)
        tokens, since = self._buckets.get(client, (float(burst), now))
        tokens = min(burst, tokens + max(0.0, now - since) * rate)
        if tokens < 1.0:
            self._buckets[client] = tokens, now
            return (1.0 - tokens) / rate
        if len(self._buckets) >= BUCKETS_MAX and client not in self._buckets:
            self._forget(now)
        self._buckets[client] = tokens - 1.0, now
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop buckets that are full again; should none be, the oldest half: memory is bounded."""
        rate, burst = self.limits.rate_per_s, max(1, self.limits.rate_burst)
        self._buckets = {
            client: (tokens, since)
            for client, (tokens, since) in self._buckets.items()
            if tokens + (now - since) * rate < burst
        }
        if len(self._buckets) >= BUCKETS_MAX:
            oldest = sorted(self._buckets, key=lambda client: self._buckets[client][1])
            for client in oldest[: BUCKETS_MAX // 2]:
                del self._buckets[client]
