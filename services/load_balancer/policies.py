"""Which backend gets the next request: seven policies that decide without I/O, time or chance.

A policy is given the backends that may be chosen at this moment (healthy, not ejected, not drained,
not full, of a weight above zero) and picks one. What it knows of a backend is a `Candidate`. Chance
is a `Random` passed in, time a `now`.

    round_robin             each in turn; blind to weight and load
    weighted_round_robin    in turn, by weight, spread evenly ("smooth", nginx)
    least_connections       fewest requests in flight per weight
    ip_hash                 by the client's address, modulo the number of backends
    consistent_hash         by a key, on a ring: a lost backend moves its own keys only
    power_of_two_choices    two at random, the less loaded of them
    peak_ewma               two at random, the one with the lower latency × load

Why not always least connections? With several balancers, or reports that come late, all of them
send to the one that looked idle: a herd. Two random choices have nearly the same balance without
it (Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, 2001: the longest queue
falls from log n / log log n to log log n / log 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import exp
from random import Random
from typing import Protocol, TypeVar

from services.protocols.placement import Ring
from services.protocols.placement.hashing import hash64


class Candidate(Protocol):
    """A backend, as a policy sees it."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float:
        """Above zero; with slow start less than what was configured."""

    @property
    def in_flight(self) -> int:
        """Requests that were sent there and are not answered yet."""

    @property
    def latency(self) -> PeakEwma: ...


C = TypeVar("C", bound=Candidate)


class Policy:
    """Picks one of `candidates`, which is never empty.

    `key` is what hashing policies hash; others ignore it. `now`: seconds, monotonic.
    """

    hashes = False  # does `pick` look at the key?

    def update(self, weights: Mapping[str, float]) -> None:
        """The configured backends and their weights, whenever they change, in any state."""

    def pick(self, candidates: Sequence[C], key: str, now: float) -> C:
        raise NotImplementedError


class RoundRobin(Policy):
    """Each in turn."""

    def __init__(self) -> None:
        self._turn = -1

    def pick(self, candidates: Sequence[C], key: str, now: float) -> C:
        self._turn += 1
        return candidates[self._turn % len(candidates)]


class WeightedRoundRobin(Policy):
    """Smooth weighted round robin (nginx, `ngx_http_upstream_get_peer`).

    Everybody gains its weight each turn; who has most is picked and pays the sum of all. Weights
    5, 1, 1 give a a b a c a a, where plain weighting gives a a a a a b c: a burst for one.
    """

    def __init__(self) -> None:
        self._current: dict[str, float] = {}

    def update(self, weights: Mapping[str, float]) -> None:
        self._current = {name: self._current.get(name, 0.0) for name in weights}

    def pick(self, candidates: Sequence[C], key: str, now: float) -> C:
        current = self._current
        total = 0.0
        best, best_value = candidates[0], float("-inf")
        for candidate in candidates:
            total += candidate.weight
            value = current.get(candidate.name, 0.0) + candidate.weight
            current[candidate.name] = value
            if value > best_value:
                best, best_value = candidate, value
        current[best.name] -= total
        return best


def load(candidate: Candidate) -> float:
    """Requests in flight per weight, this one included: else every idle backend would be alike."""
    return (candidate.in_flight + 1) / candidate.weight


class LeastConnections(Policy):
    """The least loaded; ties go round, or the first would get all while nothing is in flight."""

    def __init__(self) -> None:
        self._turn = -1

    def pick(self, candidates: Sequence[C], key: str, now: float) -> C:
        self._turn += 1
        count = len(candidates)
        best, best_load = candidates[0], float("inf")
        for offset in range(count):
            candidate = candidates[(self._turn + offset) % count]
            candidate_load = (candidate.in_flight + 1) / candidate.weight
            if candidate_load < best_load:
                best, best_load = candidate, candidate_load
        return best


class IpHash(Policy):
    """By the key, modulo the number of candidates: all but 1/n of the keys move when one leaves."""

    hashes = True

    def pick(self, candidates: Sequence[C], key: str, now: float) -> C:
        return candidates[hash64(key) % len(candidates)]


class ConsistentHash(Policy):
    """By the key, on a ring of all configured backends; who cannot be chosen is walked past."""

    hashes = True

    def __init__(self) -> None:
        self._ring: Ring | None = None

    def update(self, weights: Mapping[str, float]) -> None:
        self._ring = Ring(weights, weights=weights) if weights else None

    def pick(self, candidates: Sequence[C], key: str, now: float) -> C:
        ring = self._ring
        by_name = {candidate.name: candidate for candidate in candidates}
        if ring is not None:
            for count in (1, len(ring.nodes)):  # the owner is there nearly always
                for name in ring.nodes_for(key, count):
                    if name in by_name:
                        return by_name[name]
        return candidates[hash64(key) % len(candidates)]  # none of them is on the ring


class _TwoChoices(Policy):
    """Two different ones at random, all as likely; the cheaper of them (cost is per weight)."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def pick(self, candidates: Sequence[C], key: str, now: float) -> C:
        count = len(candidates)
        if count == 1:
            return candidates[0]
        first = int(self._random.random() * count)
        second = int(self._random.random() * (count - 1))
        second += second >= first
        one, other = candidates[first], candidates[second]
        return one if self._cost(one, now) <= self._cost(other, now) else other

    def _cost(self, candidate: Candidate, now: float) -> float:
        raise NotImplementedError


class PowerOfTwoChoices(_TwoChoices):
    """Of two at random the one with fewer requests in flight per weight."""

    def _cost(self, candidate: Candidate, now: float) -> float:
        return load(candidate)


class PeakEwmaChoice(_TwoChoices):
    """Of two at random the one with the lower expected wait: latency × requests in flight."""

    def _cost(self, candidate: Candidate, now: float) -> float:
        return candidate.latency.value(now) * load(candidate)


class PeakEwma:
    """A moving average of latency that rises at once and falls slowly (Finagle's *Peak EWMA*).

    A plain average learns of a slow backend only after many slow answers. This one takes a latency
    above the average as the new average, and forgets by e^(-t/`decay_s`). A backend never asked
    has `initial_s`, low: it is tried.
    """

    __slots__ = ("_at", "_decay_s", "_initial_s", "_value")

    def __init__(self, *, decay_s: float = 10.0, initial_s: float = 0.001) -> None:
        self._decay_s = decay_s
        self._initial_s = initial_s
        self._value = initial_s
        self._at: float | None = None

    def observe(self, latency_s: float, now: float) -> None:
        """An answer took `latency_s`."""
        if self._at is None or latency_s >= self._value:
            self._value = latency_s
        elif now != self._at:  # else the weight is 1: no time has passed in which to forget
            weight = exp(-max(0.0, now - self._at) / self._decay_s)
            self._value = self._value * weight + latency_s * (1.0 - weight)
        self._at = now

    def value(self, now: float) -> float:
        """Seconds expected; it falls while nobody asks, so that a once slow one is tried again."""
        if self._at is None:
            return self._value
        weight = exp(-max(0.0, now - self._at) / self._decay_s)
        return max(self._value * weight, self._initial_s)


POLICIES: dict[str, Callable[[Random], Policy]] = {
    "round_robin": lambda _: RoundRobin(),
    "weighted_round_robin": lambda _: WeightedRoundRobin(),
    "least_connections": lambda _: LeastConnections(),
    "ip_hash": lambda _: IpHash(),
    "consistent_hash": lambda _: ConsistentHash(),
    "power_of_two_choices": PowerOfTwoChoices,
    "peak_ewma": PeakEwmaChoice,
}
