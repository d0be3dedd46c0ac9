"""Requests that wait for a backend with a free place, when all are full; first come, first served.

A short wait turns a burst that is over in a moment into a few slow answers instead of errors. A
long one only hides overload: it adds no capacity, and callers give up while they stand in line. So
it is bounded twice, in time (`wait_s`) and in number; who cannot wait is refused with 503 and
`Retry-After`, as HAProxy's `timeout queue` and `maxqueue` have it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.chassis.errors import ServiceError
from services.load_balancer.errors import Overloaded

if TYPE_CHECKING:
    from services.load_balancer.exchange import Exchange


class WaitingLine:
    """`wait_s` 0: nobody waits. `in_vain`: how many were refused after their wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, wait_s: float, length_max: int) -> None:
        self._loop = loop
        self._wait_s = wait_s
        self._length_max = length_max
        self._line: dict[Exchange, asyncio.TimerHandle] = {}  # in the order of their coming
        self._advancing = False
        self.in_vain = 0

    def __len__(self) -> int:
        return len(self._line)

    def join(self, exchange: Exchange) -> bool:
        """Wait at the end of the line; False when that may not be."""
        assert exchange not in self._line
        if not self._wait_s or len(self._line) >= self._length_max:
            return False
        self._line[exchange] = self._loop.call_later(self._wait_s, self._too_long, exchange)
        return True

    def leave(self, exchange: Exchange) -> None:
        """It waits no longer, if it did."""
        timer = self._line.pop(exchange, None)
        if timer is not None:
            timer.cancel()

    def place_freed(self) -> None:
        """A backend works on one request less: whoever is first may have it, very soon (not now:
        the caller is in the middle of ending another request)."""
        if self._line and not self._advancing:
            self._advancing = True
            self._loop.call_soon(self.advance)

    def advance(self) -> None:
        """Let go ahead whom there is a place for."""
        self._advancing = False
        now = self._loop.time()
        for each in list(self._line):
            if each not in self._line:
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

    def _too_long(self, exchange: Exchange) -> None:
        if self._advancing:
            self.advance()  # a place was freed in this very moment
            if exchange not in self._line:
                return
        self.leave(exchange)
        self.in_vain += 1
        wait_ms = round(self._wait_s * 1000)
        exchange.refuse(Overloaded(f"every backend was full for {wait_ms} ms"))
