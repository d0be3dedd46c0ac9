"""`until`: waits for a condition, and says what it saw when it did not come."""

from __future__ import annotations

import asyncio
import time

import pytest

from labs.harness.testbed.waiting import TimedOut, until


async def test_the_value_is_handed_on() -> None:
    """The first truthy value is the result, of a function as of a coroutine function."""
    values = iter([None, 0, "", "leader"])

    async def slow() -> int:
        await asyncio.sleep(0)
        return 7

    assert await until(lambda: next(values), 5, "a value") == "leader"
    assert await until(slow, 5, "a number") == 7


async def test_time_out_reports() -> None:
    """It says what was waited for, how long, and the last value seen."""
    with pytest.raises(TimedOut, match=r"waited 0.05 s for: two leaders; last seen: \[\]") as told:
        await until(list, 0.05, "two leaders")

    assert isinstance(told.value, TimeoutError)
    assert (told.value.what, told.value.within_s, told.value.last) == ("two leaders", 0.05, [])
    with pytest.raises(TimedOut, match=r"…$") as told:
        await until(LongFalsy, 0, "a long value")
    assert len(str(told.value)) < 400


class LongFalsy:
    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "x" * 10_000


async def test_a_condition_that_hangs_is_cut_off() -> None:
    """A node that does not answer can't make the wait longer than its deadline."""
    started = time.monotonic()
    with pytest.raises(TimedOut, match="did not return"):
        await until(asyncio.Event().wait, 0.05, "for ever")

    assert time.monotonic() - started < 1


async def test_no_time_left_is_one_look() -> None:
    """With `within_s=0` the condition is looked at once."""
    assert await until(lambda: "here", 0, "now") == "here"


async def test_the_conditions_own_error_comes_out() -> None:
    """An error is no "not yet", and a TimeoutError of the condition's own is not our deadline."""

    async def fails() -> bool:
        raise TimeoutError("mine")

    with pytest.raises(ZeroDivisionError):
        await until(lambda: 1 / 0, 1, "a division")
    with pytest.raises(TimeoutError, match="mine") as told:
        await until(fails, 1, "a failure")
    assert not isinstance(told.value, TimedOut)
