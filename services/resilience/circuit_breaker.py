"""A circuit breaker: stop calling what does not answer (Nygard, *Release It!*, "Circuit Breaker").

Theory of operation
-------------------
A caller that waits for a dead or cut-off callee holds a connection, memory and its own caller's
patience for the whole timeout, once per request; that is how one failure climbs up a chain of
services. The breaker counts failures *in a row*; after `failures_to_open` of them it refuses at
once, without a call, for `open_for_s` seconds; then it lets `half_open_probes` calls through, and
their outcome decides.

                    too_many_failures
          closed ────────────────────────▶ open ◀───┐
             ▲                               │      │
             │ probes_succeeded       waited │      │ probe_failed
             │                               ▼      │
             └─────────────────────────── half_open ┘

`TRANSITIONS` is that diagram as data; there is no other way from state to state.

A refusal is *definite*: nothing was sent. Failures to be reported are those that say something
about the callee (timeouts, lost connections, 5xx), not a 404 or a 412.

Two decisions beside the book:

- A probe whose outcome is never reported (its caller was cancelled) would leave the breaker
  half-open, with no probe left, for ever. After `open_for_s` in half_open the probes are given
  out anew.
- Results of calls let through while closed may come in late. In `open` they are ignored: the
  decision is made. In `half_open` they cannot be told from a probe's and count as one.

Time is passed in (`now`, seconds on the caller's monotonic clock), so a test or a simulation needs
no waiting. One breaker belongs to one callee and one event loop.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import NamedTuple

TRANSITIONS_KEPT = 100  # the newest; what a report needs, and a bound on memory


class State(StrEnum):
    """`closed` lets everything through, `open` nothing, `half_open` a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Cause(StrEnum):
    """What moves the breaker from state to state."""

    TOO_MANY_FAILURES = "too_many_failures"
    WAITED = "waited"
    PROBES_SUCCEEDED = "probes_succeeded"
    PROBE_FAILED = "probe_failed"


TRANSITIONS: dict[tuple[State, Cause], State] = {
    (State.CLOSED, Cause.TOO_MANY_FAILURES): State.OPEN,
    (State.OPEN, Cause.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Cause.PROBES_SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, Cause.PROBE_FAILED): State.OPEN,
}


class Transition(NamedTuple):
    """One change of state: when (`at`, the caller's `now`), from where, why, to where."""

    at: float
    source: State
    cause: Cause
    target: State


class CircuitBreaker:
    """Decides, call by call, whether the callee may be called.

    Args:
        failures_to_open: failures in a row that open it.
        open_for_s: seconds of refusing before probes are let through.
        half_open_probes: how many probes are let through, all of which must succeed to close it.
    """

    def __init__(
        self, *, failures_to_open: int, open_for_s: float, half_open_probes: int = 1
    ) -> None:
        if failures_to_open < 1:
            raise ValueError(f"failures_to_open must be at least 1, not {failures_to_open}")
        if not open_for_s > 0:
            raise ValueError(f"open_for_s must be positive, not {open_for_s}")
        if half_open_probes < 1:
            raise ValueError(f"half_open_probes must be at least 1, not {half_open_probes}")
        self.failures_to_open = failures_to_open
        self.open_for_s = open_for_s
        self.half_open_probes = half_open_probes
        self.transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self._state = State.CLOSED
        self._failures_in_a_row = 0
        self._waiting_since = 0.0  # when it opened, or when probes were last given out
        self._probes_left = 0
        self._probes_succeeded = 0

    @property
    def state(self) -> State:
        """As of the last call; `open` turns to `half_open` in the `allow` that comes in time."""
        return self._state

    def allow(self, now: float) -> bool:
        """May the callee be called? A yes is to be followed by `record_success` or `_failure`."""
        if self._state is State.CLOSED:
            return True
        if self._waited(now):
            if self._state is State.OPEN:
                self._move(Cause.WAITED, now)
            self._give_out_probes(now)
        if self._state is State.OPEN or self._probes_left == 0:
            return False
        self._probes_left -= 1
        return True

    def record_success(self, now: float) -> None:
        """A call that `allow` let through was answered."""
        if self._state is State.CLOSED:
            self._failures_in_a_row = 0
        elif self._state is State.HALF_OPEN:
            self._probes_succeeded += 1
            if self._probes_succeeded >= self.half_open_probes:
                self._failures_in_a_row = 0
                self._move(Cause.PROBES_SUCCEEDED, now)

    def record_failure(self, now: float) -> None:
        """A call that `allow` let through was not answered, or not in time, or with a 5xx."""
        if self._state is State.CLOSED:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= self.failures_to_open:
                self._move(Cause.TOO_MANY_FAILURES, now)
                self._waiting_since = now
        elif self._state is State.HALF_OPEN:
            self._move(Cause.PROBE_FAILED, now)
            self._waiting_since = now

    def abandon(self) -> None:
        """A call that `allow` let through ended without saying anything about the callee.

        Its caller went away, say. The probe, if it was one, is given back: else a caller who hangs
        up would keep a sound callee shut off for another `open_for_s`.
        """
        if self._state is State.HALF_OPEN and self._probes_left < self.half_open_probes:
            self._probes_left += 1

    def retry_after(self, now: float) -> float:
        """Seconds until `allow` may say yes (0.0: now): a `Retry-After` for the refused."""
        if self._state is State.CLOSED or self._waited(now):
            return 0.0
        if self._state is State.HALF_OPEN and self._probes_left > 0:
            return 0.0
        # `now` before `_waiting_since` takes a clock that was turned back: still a bounded wait.
        return min(self.open_for_s, self._wait_left(now))

    def _waited(self, now: float) -> bool:
        return self._wait_left(now) <= 0.0

    def _wait_left(self, now: float) -> float:
        return self._waiting_since + self.open_for_s - now

    def _give_out_probes(self, now: float) -> None:
        assert self._state is State.HALF_OPEN, self._state
        self._waiting_since = now
        self._probes_left = self.half_open_probes
        self._probes_succeeded = 0

    def _move(self, cause: Cause, now: float) -> None:
        target = TRANSITIONS.get((self._state, cause))
        assert target is not None, f"no transition from {self._state} by {cause}"
        self.transitions.append(Transition(now, self._state, cause, target))
        self._state = target

    def __repr__(self) -> str:
        return f"CircuitBreaker({self._state}, {self._failures_in_a_row} failures in a row)"
