"""When a failed attempt is made again: a tenacity policy, bounded by a budget.

Tenacity's own loop is a coroutine per call; here a request becomes one only when it fails, so the
strategies (`stop`, `wait`) are asked directly, with the `RetryCallState` that they expect. They
compose as anywhere: stop_after_attempt(3) | stop_out_of_budget(budget, now).

What *may* be made again is not decided here: see `Exchange`.
"""

from __future__ import annotations

from collections.abc import Callable

from tenacity import (
    RetryCallState,
    Retrying,
    stop_after_attempt,
    wait_none,
    wait_random_exponential,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from services.resilience.retry_budget import RetryBudget

# "Somebody else may be able to"; 421 (RFC 9110, 15.5.20), a replica's that does not lead, is
# definite: any method may go elsewhere.
MISDIRECTED = 421
RETRIED_STATUSES = frozenset((MISDIRECTED, 502, 503, 504))


class stop_out_of_budget(stop_base):  # noqa: N801 - named as tenacity's own
    """Stop when the budget does not pay for one more; else it has paid when this says no."""

    def __init__(self, budget: RetryBudget, now: Callable[[], float]) -> None:
        self._budget = budget
        self._now = now

    def __call__(self, retry_state: RetryCallState) -> bool:
        return not self._budget.try_spend(self._now())


class RetryPolicy:
    """How often, how soon.

    Args:
        attempts: of one request, the first included.
        wait_s: the wait before the second attempt is up to this (full jitter, so that the callers
            of a backend that died do not come to the next all at once); doubled before the third.
        now: seconds, monotonic.
    """

    def __init__(
        self, *, attempts: int, wait_s: float, budget: RetryBudget, now: Callable[[], float]
    ) -> None:
        self.budget = budget
        # `|` asks the left side first: nothing is paid for an attempt that is not made.
        self._stop = stop_after_attempt(attempts) | stop_out_of_budget(budget, now)
        self._wait: wait_base = (
            wait_random_exponential(multiplier=wait_s, max=32 * wait_s) if wait_s else wait_none()
        )
        self._retrying = Retrying(stop=self._stop, wait=self._wait)

    def wait_s(self, attempt: int) -> float | None:
        """Attempt number `attempt` (1 is the first) failed: seconds to wait before the next one,
        which is paid for then; None: that was the last."""
        state = RetryCallState(self._retrying, None, (), {})
        state.attempt_number = attempt
        return None if self._stop(state) else self._wait(state)
