"""A service whose capacity is a number: so many requests at a time, so long for each.

Two cores that run everything would show whatever their scheduler makes of the load. A database of
a lab has a fixed capacity instead, `slots / service time`, whatever runs beside it: what comes
beyond it waits in line, and the line has an end.

It goes on working for callers who have given up, as a database does that has a query in its queue:
that is how too much load becomes no throughput at all.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from services.chassis.errors import Unavailable

WAITING_MAX = 1_000


class Capacity:
    """At most `slots` at a time, each for at least `service_ms`, first come, first served.

    0 slots: no limit. Entering raises Unavailable when `here_max` (WAITING_MAX) are here already,
    the working and the waiting: nothing was done. Of those it has to do with, `working` have a slot
    and `waiting` have none yet.
    """

    def __init__(self, slots: int, service_ms: int, *, here_max: int = 0) -> None:
        self._here = 0
        self._here_max = here_max
        self.working = 0
        self._slots = asyncio.Semaphore(slots) if slots else None
        self._service_s = service_ms / 1000

    @property
    def waiting(self) -> int:
        return self._here - self.working

    async def __aenter__(self) -> None:
        if self._slots is None:
            return
        if self._here >= (self._here_max or WAITING_MAX):
            raise Unavailable(f"{self._here} requests are here already")
        self._here += 1
        try:
            await self._slots.acquire()
        except BaseException:
            self._here -= 1
            raise
        self.working += 1
        try:
            await asyncio.sleep(self._service_s)
        except BaseException:
            self._leave()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._slots is not None:
            self._leave()

    def _leave(self) -> None:
        assert self._slots is not None
        self._slots.release()
        self.working -= 1
        self._here -= 1
