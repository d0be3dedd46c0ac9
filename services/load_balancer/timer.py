"""One timer per connection that is put off far more often than it fires.

Every request of a keep-alive connection would set and cancel several timers. This one only writes
down the new time; a handle of the event loop is made anew when the time comes *earlier*, or when
the old handle fires and finds that it is not yet time. A busy connection makes one every few
seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

NEVER = float("inf")
EARLY_S = 0.002  # so much too early it may fire: uvloop counts in milliseconds


class Timer:
    """Calls `callback` at a time (of the event loop's clock) that can be moved for next to nothing.

    `stop` it when its owner goes: an armed handle keeps the owner in memory.
    """

    __slots__ = ("_callback", "_handle", "_loop", "armed_for", "when")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self.armed_for = NEVER
        self.when: float | None = None

    def set(self, when: float) -> None:
        """Fire at `when` and at no other time.

        Whoever does this for each request writes `when` itself, and calls this only if that is
        before `armed_for`: half of the time goes into the call.
        """
        self.when = when
        if when < self.armed_for - EARLY_S:
            if self._handle is not None:
                self._handle.cancel()
            self._arm(when)

    def clear(self) -> None:
        """Do not fire until it is set again."""
        self.when = None

    def stop(self) -> None:
        """Let go of the event loop."""
        self.when = None
        self.armed_for = NEVER
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, when: float) -> None:
        self.armed_for = when
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self.armed_for = NEVER
        when = self.when
        if when is None:
            return
        if when > self._loop.time() + EARLY_S:
            self._arm(when)
        else:
            self.when = None
            self._callback()
