"""One timer for all deadlines: each fails in time, none fails early, the answered are let go."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.errors import DeadlineExceeded
from services.chassis.waiters import SWEEP_MIN, Deadlines


async def test_each_at_its_own_time() -> None:
    """Added in any order; a later one with an earlier deadline is not overlooked."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(lambda: DeadlineExceeded("late"))
    failed: list[float] = []
    futures = []
    start = loop.time()
    for after_s in (0.06, 0.02, 0.04, 0.02):
        future: asyncio.Future[None] = loop.create_future()
        future.add_done_callback(lambda _, after_s=after_s: failed.append(after_s))
        deadlines.add(start + after_s, future)
        futures.append(future)

    with pytest.raises(DeadlineExceeded):
        await futures[0]
    for future in futures[1:]:
        assert isinstance(future.exception(), DeadlineExceeded)

    assert failed == [0.02, 0.02, 0.04, 0.06]
    assert loop.time() - start >= 0.059  # uvloop counts whole milliseconds


async def test_the_answered_are_left_alone_and_let_go() -> None:
    """An answer before the deadline stands; the timer then passes over it."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(lambda: DeadlineExceeded("late"))
    answered: asyncio.Future[str] = loop.create_future()
    waiting: asyncio.Future[str] = loop.create_future()
    deadlines.add(loop.time() + 0.01, answered)
    deadlines.add(loop.time() + 0.03, waiting)
    answered.set_result("in time")

    with pytest.raises(DeadlineExceeded):
        await waiting
    assert await answered == "in time"


async def test_cancelled_deadlines_never_come() -> None:
    """The node stops: futures are answered by others, and no timer is left behind."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(lambda: DeadlineExceeded("late"))
    future: asyncio.Future[None] = loop.create_future()
    deadlines.add(loop.time(), future)
    deadlines.cancel()
    later: asyncio.Future[None] = loop.create_future()
    loop.call_later(0.02, later.set_result, None)
    await later

    assert not future.done()


async def test_the_answered_are_swept_out() -> None:
    """A thousand waiting, a hundred thousand answered: what is kept follows the waiting."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(lambda: DeadlineExceeded("late"))
    far = loop.time() + 60
    waiting = [loop.create_future() for _ in range(1000)]
    for future in waiting:
        deadlines.add(far, future)
    for _ in range(100_000):
        answered: asyncio.Future[None] = loop.create_future()
        answered.set_result(None)
        deadlines.add(far, answered)

    assert len(deadlines) <= 2 * max(SWEEP_MIN, len(waiting)) + 1
    soon = loop.create_future()
    deadlines.add(loop.time() + 0.01, soon)
    with pytest.raises(DeadlineExceeded):
        await soon
    assert not any(future.done() for future in waiting)
    deadlines.cancel()
