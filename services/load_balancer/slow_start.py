"""Slow start: a backend that has just come (back) gets its share little by little.

Its caches are cold, its connections are not made, its code is not compiled yet; and by least
connections, *because* it is idle, it would get every request there is. So for `window_s` its weight
grows in a straight line from `START_SHARE` to all of it (nginx `slow_start`, Envoy's with
aggression 1). `START_SHARE` is above zero: with nothing to do it would never warm up.
"""

from __future__ import annotations

START_SHARE = 0.1


def share(since_s: float, window_s: float) -> float:
    """The part of its weight that a backend has `since_s` after it came, from START_SHARE to 1."""
    if since_s >= window_s:
        return 1.0
    return max(START_SHARE, since_s / window_s)
