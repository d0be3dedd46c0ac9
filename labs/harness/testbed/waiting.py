"""Wait for a condition, never for a time: `until`, with a deadline and a report when it passes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

SHORTEST_INTERVAL_S = 0.005
LONGEST_INTERVAL_S = 0.025
LONGEST_VALUE = 300


class TimedOut(TimeoutError):
    """A condition did not come true in time. `last` is the last value seen (None: none was)."""

    def __init__(self, what: str, within_s: float, last: object, *, evaluated: bool = True) -> None:
        seen = repr(last) if evaluated else "nothing: the condition itself did not return"
        if len(seen) > LONGEST_VALUE:
            seen = f"{seen[:LONGEST_VALUE]}…"
        super().__init__(f"waited {within_s:g} s for: {what}; last seen: {seen}")
        self.what = what
        self.within_s = within_s
        self.last = last


@overload
async def until(condition: Callable[[], Awaitable[T]], within_s: float, what: str = ...) -> T: ...
@overload
async def until(
    condition: Callable[[], T | Awaitable[T]], within_s: float, what: str = ...
) -> T: ...
async def until(
    condition: Callable[[], T | Awaitable[T]], within_s: float, what: str = "a condition"
) -> T:
    """The first truthy value of `condition`, asked every 5 to 25 ms and at least once.

    Raises:
        TimedOut: `within_s` seconds have passed. A condition that is still being awaited then is
            cancelled: one that hangs can't make the wait any longer.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    interval_s = SHORTEST_INTERVAL_S
    last: object = None
    evaluated = False
    while True:
        value = condition()
        if inspect.isawaitable(value):
            # Even with no time left the condition gets one short chance to answer.
            remaining_s = max(deadline - loop.time(), SHORTEST_INTERVAL_S)
            try:
                async with asyncio.timeout(remaining_s) as timeout:
                    value = await value
            except TimeoutError:
                if not timeout.expired():
                    raise  # the condition's own, not ours
                raise TimedOut(what, within_s, last, evaluated=evaluated) from None
        last, evaluated = value, True
        if value:
            return cast(T, value)
        remaining_s = deadline - loop.time()
        if remaining_s <= 0:
            raise TimedOut(what, within_s, last)
        await asyncio.sleep(min(interval_s, remaining_s))
        interval_s = min(interval_s * 1.5, LONGEST_INTERVAL_S)
