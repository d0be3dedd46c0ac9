"""The one place where a service learns what time it is.

A lab can step (`bump`) or drift one node's clock; the machine's is never touched. So nothing else
in `services` calls `time.time()` or `time.monotonic()` (a test holds this; the event loop's own
timers are excepted: deadlines of requests are promises to callers, not part of the experiment).

Two times, as on every machine:

- **wall** may be stepped and drifts. Whoever orders events of several nodes by it is wrong, and
  there is a lab to show it.
- **monotonic** drifts but is never stepped: it drives the ticks of the protocol core, hence
  election timeouts and leases. A lease is safe only while the clocks' *rates* agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable

RATE_MIN, RATE_MAX = 0.01, 100.0
OFFSET_LIMIT_MS = 10 * 365 * 24 * 3_600_000  # ten years: more than any lab needs, no overflow


class Clock:
    """Wall and monotonic seconds with an adjustable offset and rate.

    Args:
        wall, monotonic: where true time comes from (seconds); a simulation passes its own.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._true_wall = wall
        # `true_monotonic_ns` in seconds: the source itself, for a balancer asks at every request.
        self.true_monotonic = monotonic
        self._rate = 1.0
        # Both readings are lines through an anchor, moved whenever the rate changes, so that a
        # change of rate never makes time jump: `reading = value + (true - anchor) * rate`.
        self._anchor = monotonic()
        self._monotonic_at_anchor = self._anchor
        self._wall_ahead_at_anchor = 0.0  # of true wall time, seconds

    @property
    def rate(self) -> float:
        """Seconds of this clock per true second: 1.05 is five percent fast."""
        return self._rate

    def monotonic(self) -> float:
        """Seconds, never backwards; its zero means nothing."""
        since = self.true_monotonic() - self._anchor
        return self._monotonic_at_anchor + since * self._rate

    def wall(self) -> float:
        """Seconds since the epoch, as this node believes."""
        return self._true_wall() + self.offset_s()

    def offset_s(self) -> float:
        """How far the wall clock is ahead of the machine's, by bumps and drift together."""
        since = self.true_monotonic() - self._anchor
        return self._wall_ahead_at_anchor + since * (self._rate - 1.0)

    def set(self, *, offset_ms: float | None = None, rate: float | None = None) -> None:
        """Put the wall clock `offset_ms` ahead of the machine's, let both run at `rate`.

        What is None stays. `set(offset_ms=0, rate=1)` repairs the wall clock; the monotonic clock
        keeps what it gained or lost (it must not step), and runs true again. Raises ValueError.
        """
        if rate is not None and not RATE_MIN <= rate <= RATE_MAX:
            raise ValueError(f"rate must be from {RATE_MIN} to {RATE_MAX}, not {rate}")
        if offset_ms is not None and not abs(offset_ms) <= OFFSET_LIMIT_MS:
            raise ValueError(f"offset_ms must be within ±{OFFSET_LIMIT_MS}, not {offset_ms}")
        now = self.true_monotonic()
        self._monotonic_at_anchor += (now - self._anchor) * self._rate
        self._wall_ahead_at_anchor += (now - self._anchor) * (self._rate - 1.0)
        self._anchor = now
        if offset_ms is not None:
            self._wall_ahead_at_anchor = offset_ms / 1000
        if rate is not None:
            self._rate = rate

    def true_monotonic_ns(self) -> int:
        """The machine's monotonic clock, untouched by faults: for telemetry.

        A report lines up the events of all nodes and clients of one machine by it; it would show
        effects before causes if a drifting node stamped its events with its own time.
        """
        return int(self.true_monotonic() * 1e9)

    def status(self) -> dict[str, float]:
        """For `/status`."""
        return {
            "wall_ms": round(self.wall() * 1000, 3),
            "monotonic_ms": round(self.monotonic() * 1000, 3),
            "offset_ms": round(self.offset_s() * 1000, 3),
            "rate": self._rate,
        }
