"""The backends: who may be asked at this moment, and what each has shown of itself lately.

A backend may be asked while all of these hold: its weight is above zero; it is not drained; the
active checks find it healthy (or are switched off); it is not ejected as an outlier; its breaker is
not open; and it is not full. The list of those is kept until something changes it, for it is looked
at once per request; what changes by time alone (an ejection ends, a breaker may be tried, a weight
grows) has written down when.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from services.chassis.config import Address
from services.load_balancer import slow_start
from services.load_balancer.config import BackendConfig, BalancerConfig
from services.load_balancer.errors import NoBackend, Overloaded
from services.load_balancer.hysteresis import Hysteresis
from services.load_balancer.outliers import OutlierDetector
from services.load_balancer.policies import PeakEwma, Policy
from services.resilience.circuit_breaker import CircuitBreaker, State

if TYPE_CHECKING:
    from services.load_balancer.upstream import Upstream

SLOW_START_STEP_S = 0.1
FOREVER = float("inf")


class Backend:
    """One backend. The counters are what `/status` and `/metrics` show."""

    __slots__ = (
        "address",
        "answers",
        "breaker",
        "check",
        "clean",
        "configured_weight",
        "connections",
        "draining",
        "ejections",
        "failures",
        "host",
        "idle",
        "in_flight",
        "latency",
        "name",
        "removed",
        "requests",
        "retries",
        "served_by",
        "since",
        "weight",
    )

    def __init__(self, name: str, address: Address, weight: float, config: BalancerConfig) -> None:
        self.name = name
        self.address = address
        self.host = str(address).encode()  # of requests that name none: HTTP/1.0
        self.configured_weight = weight
        self.weight = weight  # with slow start
        self.since = -FOREVER  # when it came (back)
        self.in_flight = 0
        self.latency = PeakEwma()
        self.check = Hysteresis(rise=config.health_rise, fall=config.health_fall)
        self.breaker = CircuitBreaker(
            failures_to_open=config.breaker_failures or 1 << 62,
            open_for_s=config.breaker_open_ms / 1000,
        )
        self.clean = False  # its latest answer was good: its breaker is closed, nobody counts
        self.draining = False
        self.removed = False
        self.idle: list[Upstream] = []  # the newest last: what is used most stays warm
        self.connections = 0
        self.requests = 0
        self.retries = 0
        self.failures = 0
        self.ejections = 0
        self.answers = [0] * 6  # by class of status: [_, 1xx, 2xx, …, 5xx]
        self.served_by = b"X-Served-By: " + name.encode() + b"\r\n"

    def close_idle(self) -> None:
        """Hang up on it where nothing is under way."""
        for upstream in list(self.idle):
            upstream.close()


def _nobody() -> None:
    """Nobody is to be told."""


class Backends:
    """All of them. `now` is seconds on the event loop's clock.

    `told` is called whenever who may be asked may have changed: somebody may wait for that.
    """

    def __init__(self, config: BalancerConfig, policy: Policy) -> None:
        self._config = config
        self.told: Callable[[], None] = _nobody
        self.policy = policy
        self.checked = config.health_interval_ms > 0
        self.outliers = OutlierDetector(
            failures_to_eject=config.outlier_failures,
            ejection_s=config.outlier_ejection_ms / 1000,
            share_max=config.outlier_share / 100,
        )
        self._slow_start_s = config.slow_start_ms / 1000
        self._in_flight_max = config.backend_in_flight_max
        self._candidates: list[Backend] = []
        self._good_until = -FOREVER
        self.all: dict[str, Backend] = {}
        for name, each in config.all_backends().items():
            self._put(name, each)
        self._changed_set()

    # ------------------------------------------------------------------ the set of them

    def _put(self, name: str, backend: BackendConfig) -> Backend:
        made = Backend(name, backend.address, backend.weight, self._config)
        self.all[name] = made
        return made

    def _changed_set(self) -> None:
        weights = {each.name: each.configured_weight for each in self.all.values()}
        self.policy.update(weights)
        self.outliers.update(list(self.all))
        self.changed()

    def add(self, name: str, backend: BackendConfig, now: float) -> None:
        """A new one, or another address for an old one."""
        if name in self.all:
            self.remove(name)
        self._put(name, backend).since = now
        self._changed_set()

    def remove(self, name: str) -> None:
        """Take it out at once; what is under way comes to its end."""
        backend = self.all.pop(name)
        backend.removed = True
        backend.close_idle()
        self._changed_set()

    def set_weight(self, name: str, weight: float) -> None:
        self.all[name].configured_weight = self.all[name].weight = weight
        self._changed_set()

    def drain(self, name: str, draining: bool, now: float) -> None:
        """No new requests; what is under way comes to its end. False: let it come back."""
        backend = self.all[name]
        if backend.draining and not draining:
            backend.since = now
        backend.draining = draining
        if draining:
            backend.close_idle()
        self.changed()

    # ------------------------------------------------------------------ choice

    def changed(self) -> None:
        """What was known of who may be asked holds no longer."""
        self._good_until = -FOREVER
        self.told()

    def next_change(self) -> float:
        """When who may be asked changes by time alone, as the last look at it found."""
        return self._good_until

    def available(self, now: float) -> list[Backend]:
        """Who may be asked."""
        if now < self._good_until:
            return self._candidates
        self._good_until = FOREVER
        self._candidates = [each for each in self.all.values() if self._may_be_asked(each, now)]
        return self._candidates

    def _may_be_asked(self, backend: Backend, now: float) -> bool:
        if backend.configured_weight <= 0 or backend.draining:
            return False
        if self.checked and backend.check.healthy is not True:
            return False
        out_until = self.outliers.ejected_until(backend.name)
        if now < out_until:
            self._good_until = min(self._good_until, out_until)
            return False
        if out_until > backend.since:
            backend.since = out_until  # it is back from its ejection
        if backend.breaker.state is State.OPEN:
            wait_s = backend.breaker.retry_after(now)
            if wait_s > 0.0:
                self._good_until = min(self._good_until, now + wait_s)
                return False
        since_s = now - backend.since
        if since_s < self._slow_start_s:
            part = slow_start.share(since_s, self._slow_start_s)
            backend.weight = backend.configured_weight * part
            self._good_until = min(self._good_until, now + SLOW_START_STEP_S)
        else:
            backend.weight = backend.configured_weight
        return True

    def choose(self, key: str, now: float, tried: Collection[str] = ()) -> Backend:
        """The backend for a request; not one of `tried` while there is another.

        Its breaker has said yes, which is to be followed by `report` or `abandon`. Raises
        NoBackend, Overloaded.
        """
        candidates = self._candidates if now < self._good_until else self.available(now)
        if tried:
            others = [each for each in candidates if each.name not in tried]
            candidates = others or candidates
        full = False
        while candidates:
            backend = self.policy.pick(candidates, key, now)
            if backend.in_flight >= self._in_flight_max:
                full = True
            elif backend.clean or backend.breaker.allow(now):
                return backend
            else:  # its probe is under way; should that take too long, there will be another
                wait_s = backend.breaker.retry_after(now)
                self._good_until = min(self._good_until, now + wait_s)
            candidates = [each for each in candidates if each is not backend]
        if full:
            raise Overloaded(f"every backend has {self._in_flight_max} requests in flight")
        raise NoBackend(f"none of {len(self.all)} backends is available")

    # ------------------------------------------------------------------ outcome

    def answered(self, backend: Backend, status: int, now: float) -> None:
        """It answered with `status`."""
        backend.answers[status // 100 if status < 600 else 5] += 1
        if status < 500:
            self._succeeded(backend, now)
        else:
            self._answered_error(backend, status, now)

    def _succeeded(self, backend: Backend, now: float) -> None:
        if backend.clean:
            return
        self.outliers.success(backend.name)
        self._breaker(backend, True, now)
        backend.clean = backend.breaker.state is State.CLOSED

    def _answered_error(self, backend: Backend, status: int, now: float) -> None:
        # 500 may be the request's fault, so the breaker, which can shut all backends off, does not
        # count it; the outlier detector, which cannot, does.
        self._failed(backend, now)
        self._breaker(backend, status not in (502, 503, 504), now)

    def lost(self, backend: Backend, now: float) -> None:
        """It did not answer: no connection, a broken one, none in time, or no HTTP."""
        backend.failures += 1
        self._failed(backend, now)
        self._breaker(backend, False, now)

    def abandoned(self, backend: Backend) -> None:
        """Nothing was learnt of it: the client went away, or its deadline passed."""
        backend.breaker.abandon()

    def _failed(self, backend: Backend, now: float) -> None:
        backend.clean = False
        if self.outliers.failure(backend.name, now) and not backend.removed:
            backend.ejections += 1
            self.changed()

    def _breaker(self, backend: Backend, good: bool, now: float) -> None:
        before = backend.breaker.state
        if good:
            backend.breaker.record_success(now)
        else:
            backend.breaker.record_failure(now)
        if backend.breaker.state is not before:
            self.changed()

    def checked_health(self, backend: Backend, ok: bool, now: float) -> bool:
        """The outcome of an active check; True when it changes the verdict."""
        before = backend.check.healthy
        if not backend.check.record(ok):
            return False
        if ok and before is False:
            backend.since = now
        self.changed()
        return True

    def status(self, now: float) -> dict[str, Any]:
        """For `/status`."""
        available = {each.name for each in self.available(now)}
        return {
            each.name: {
                "address": str(each.address),
                "available": each.name in available,
                "weight": each.configured_weight,
                "effective_weight": round(each.weight, 3),
                "draining": each.draining,
                "healthy": each.check.healthy if self.checked else None,
                "ejected_for_ms": max(0, self._ejected_ms(each.name, now)),
                "breaker": str(each.breaker.state),
                "in_flight": each.in_flight,
                "connections": each.connections,
                "idle_connections": len(each.idle),
                "requests": each.requests,
                "retries": each.retries,
                "failures": each.failures,
                "latency_ms": round(each.latency.value(now) * 1000, 3),
            }
            for each in self.all.values()
        }

    def _ejected_ms(self, name: str, now: float) -> int:
        left_s = self.outliers.ejected_until(name) - now
        return round(left_s * 1000) if left_s > 0 else 0
