"""Hysteresis of active health checks: one lost packet is no failure, one lucky answer no recovery.

`fall` failed checks in a row take a backend out, `rise` good ones in a row bring it back
(HAProxy's words). The first check alone decides for a backend that nobody knows yet: to wait for
`rise` of them would keep a service away for seconds at every start, and to trust it unasked sends
requests into the void.
"""

from __future__ import annotations


class Hysteresis:
    """Is it healthy? None: not known yet. Raises ValueError."""

    __slots__ = ("_in_a_row", "fall", "healthy", "rise")

    def __init__(self, *, rise: int = 2, fall: int = 3) -> None:
        if rise < 1 or fall < 1:
            raise ValueError(f"rise and fall must be at least 1, not {rise} and {fall}")
        self.rise = rise
        self.fall = fall
        self.healthy: bool | None = None
        self._in_a_row = 0  # of checks that contradict `healthy`

    def record(self, ok: bool) -> bool:
        """One check's outcome; True when it changes the verdict."""
        if self.healthy is None:
            self.healthy = ok
            return True
        if ok is self.healthy:
            self._in_a_row = 0
            return False
        self._in_a_row += 1
        if self._in_a_row < (self.rise if ok else self.fall):
            return False
        self.healthy = ok
        self._in_a_row = 0
        return True
