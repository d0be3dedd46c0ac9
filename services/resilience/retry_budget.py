"""A retry budget: retries may be a share of the requests, never their multiple.

*Retry storms.* A callee that fails makes each of its callers try three times; three layers of such
callers make 27 calls of one, at the moment when the callee can bear them least, and the storm
outlives its cause (Google, *Site Reliability Engineering*, ch. 22 "Addressing Cascading Failures").
A limit per request does not help, for it multiplies. A budget does: a token bucket that every
request fills by `ratio`, and every retry empties by one (Finagle's `RetryBudget`). While little
fails there is a token for each failure; when everything fails, the load grows by `ratio` and no
more.

`minimum_per_s` lets a caller of few requests a minute retry at all. `burst` bounds what can be
saved up, or a quiet day would pay for a storm in the evening. So, over any time:

    retries ≤ burst + ratio × requests + minimum_per_s × seconds

Time is passed in (`now`, seconds on the caller's monotonic clock). One budget belongs to one caller
of one service and to one event loop.
"""

from __future__ import annotations


class RetryBudget:
    """Decides, failure by failure, whether a retry can be afforded.

    Args:
        ratio: tokens that each request brings (0.2: one retry for five requests).
        minimum_per_s: tokens that each second brings.
        burst: the most tokens that are kept; a new budget is full.

    Raises ValueError.
    """

    __slots__ = ("_tokens", "_updated", "burst", "denied", "minimum_per_s", "ratio", "spent")

    def __init__(self, *, ratio: float, minimum_per_s: float = 0.0, burst: float = 10.0) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"ratio must be from 0 to 1, not {ratio}")
        if not minimum_per_s >= 0.0:
            raise ValueError(f"minimum_per_s must not be negative, not {minimum_per_s}")
        if not burst >= 1.0:
            raise ValueError(f"burst must be at least 1, or no retry is ever paid, not {burst}")
        self.ratio = ratio
        self.minimum_per_s = minimum_per_s
        self.burst = burst
        self.spent = 0
        self.denied = 0
        self._tokens = burst
        self._updated: float | None = None

    def record_request(self) -> None:
        """A request (not a retry of one) was begun."""
        tokens = self._tokens + self.ratio
        self._tokens = tokens if tokens < self.burst else self.burst

    def tokens(self, now: float) -> float:
        """How many retries could be paid for at this moment."""
        if self._updated is None:
            self._updated = now
        elif now > self._updated:  # a clock that was turned back brings nothing and takes nothing
            gained = (now - self._updated) * self.minimum_per_s
            self._tokens = min(self.burst, self._tokens + gained)
            self._updated = now
        return self._tokens

    def try_spend(self, now: float) -> bool:
        """Take a token for one retry; False when there is none, and the failure is to be told."""
        if self.tokens(now) < 1.0:
            self.denied += 1
            return False
        self._tokens -= 1.0
        self.spent += 1
        return True

    def __repr__(self) -> str:
        return f"RetryBudget({self._tokens:.1f} of {self.burst:g} tokens, {self.spent} spent)"
