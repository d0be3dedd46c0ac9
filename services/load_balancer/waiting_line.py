"""Requests that wait for a backend with a free place, when all are full; first come, first served.

A short wait turns a burst that is over in a moment into a few slow answers instead of errors. A
long one only hides overload: it adds no capacity, and callers give up while they stand in line. So
it is bounded twice, in time (`wait_s`) and in number; who cannot wait is refused with 503 and
`Retry-After`, as HAProxy's `timeout queue` and `maxqueue` have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.chassis.errors import ServiceError
from services.load_balancer.backends import FOREVER
from services.load_balancer.errors import Overloaded
from services.load_balancer.timer import EARLY_S

if TYPE_CHECKING:
    from services.load_balancer.exchange import Exchange


class WaitingLine:
    """`wait_s` 0: nobody waits. `in_vain`: how many were refused after their wait.

    It is told of every change by `place_freed`; `next_change` gives the time (of the event loop's
    clock) of what changes by time alone and tells nobody, such as the end of an ejection.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        wait_s: float,
        length_max: int,
        next_change: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._wait_s = wait_s
        self._length_max = length_max
        self._next_change = next_change
        self.waiting: dict[Exchange, asyncio.TimerHandle] = {}  # in the order of their coming
        self._advancing = False
        self._alarm: asyncio.TimerHandle | None = None  # for the next change
        self.in_vain = 0

    def __len__(self) -> int:
        return len(self.waiting)

    def join(self, exchange: Exchange) -> bool:
        """Wait at the end of the line; False when that may not be."""
        assert exchange not in self.waiting
        if not self._wait_s or len(self.waiting) >= self._length_max:
            return False
        self.waiting[exchange] = self._loop.call_later(self._wait_s, self._too_long, exchange)
        self._set_alarm()
        return True

    def leave(self, exchange: Exchange) -> None:
        """It waits no longer, if it did."""
        timer = self.waiting.pop(exchange, None)
        if timer is not None:
            timer.cancel()

    def place_freed(self) -> None:
        """A backend works on one request less, or one has come (back): whoever is first may have
        the place, very soon (not now: the caller is in the middle of ending another request)."""
        if self.waiting and not self._advancing:
            self._advancing = True
            self._loop.call_soon(self.advance)

    def advance(self) -> None:
        """Let go ahead whom there is a place for."""
        self._advancing = False
        self._let_go_ahead()
        self._set_alarm()

    def _let_go_ahead(self) -> None:
        now = self._loop.time()
        for each in list(self.waiting):
            if each not in self.waiting:
                continue  # ended by the end of one before it
            try:
                backend = each.choose(now)
            except Overloaded:
                if not each.tried:
                    return
                # Full are those that it has not tried: there may be a place for those behind it.
            except ServiceError as exc:
                self.leave(each)
                each.refuse(exc)
            else:
                self.leave(each)
                each.connect_to(backend, now)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        when = self._next_change()
        if self.waiting and when < FOREVER:
            # It may have come since the line was looked at: then that look is an old one.
            when = max(when, self._loop.time())
            self._alarm = self._loop.call_at(when + EARLY_S, self.advance)

    def _too_long(self, exchange: Exchange) -> None:
        if self._advancing:
            self.advance()  # a place was freed in this very moment
            if exchange not in self.waiting:
                return
        self.leave(exchange)
        self.in_vain += 1
        wait_ms = round(self._wait_s * 1000)
        exchange.refuse(Overloaded(f"every backend was full for {wait_ms} ms"))
