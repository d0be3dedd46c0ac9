"""Virtual time: nothing waits for real, and a process is killed, paused and stalled as a whole."""

from __future__ import annotations

import asyncio
import time

import pytest

from labs.harness.testbed.simulation.loop import VirtualLoop
from labs.harness.testbed.simulation.scheduler import Stuck


def harness() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


async def test_an_hour_passes_at_once() -> None:
    """When nothing is ready, time jumps to the next timer."""
    began, really = harness().time(), time.monotonic()
    await asyncio.sleep(3_600)

    assert harness().time() - began == pytest.approx(3_600)
    assert time.monotonic() - really < 1


async def test_timers_fire_in_the_order_of_their_times_then_of_their_setting() -> None:
    """Ties are broken by who asked first: the same in every run."""
    loop, fired = harness(), list[str]()
    for name, delay in (("c", 0.2), ("a", 0.1), ("d", 0.2), ("b", 0.1)):
        loop.call_later(delay, fired.append, name)
    cancelled = loop.call_later(0.1, fired.append, "never")
    cancelled.cancel()
    await asyncio.sleep(1)

    assert fired == ["a", "b", "c", "d"]


async def test_a_timer_set_to_now_lets_time_pass() -> None:
    """A loop of `call_later(1e-15)` must not stop the clock (the driver's ticks did that)."""
    loop, turns = harness(), 0

    def again() -> None:
        nonlocal turns
        turns += 1
        loop.call_later(1e-15, again)

    again()
    await asyncio.sleep(0.001)
    assert 100 < turns < 2_000


async def test_a_dead_process_runs_nothing_more() -> None:
    """A crash: no `except`, no `finally` that could reach anything, no timer."""
    victim = VirtualLoop(harness().simulation, "victim")
    said: list[str] = []

    async def live() -> None:
        try:
            while True:
                said.append("alive")
                await asyncio.sleep(1)
        finally:
            said.append("finally")
            await asyncio.sleep(1)
            said.append("goodbye")

    victim.call_soon(lambda: victim.create_task(live()))
    await asyncio.sleep(2.5)
    victim.die()
    assert said == ["alive"] * 3
    await asyncio.sleep(5)
    assert "goodbye" not in said


async def test_a_paused_process_goes_on_where_it_was() -> None:
    """SIGSTOP: callbacks are held back, in order, until it resumes."""
    process, said = VirtualLoop(harness().simulation, "paused"), list[float]()
    for number in range(5):
        process.call_later(number, said.append, number)
    await asyncio.sleep(1.5)
    process.pause()
    await asyncio.sleep(10)
    assert said == [0, 1]
    process.resume()
    await asyncio.sleep(0)
    assert said == [0, 1, 2, 3, 4]


async def test_a_system_call_takes_time_from_its_own_process_alone() -> None:
    """What a callback does after a blocking call, it does later; others run meanwhile."""
    loop = harness()
    one, other = (VirtualLoop(loop.simulation, name) for name in ("one", "other"))
    began, at = loop.time(), dict[str, float]()

    def block() -> None:
        one.stall(50_000_000)
        at["after the call"] = one.time() - began

    one.call_soon(block)
    one.call_soon(lambda: at.update({"next of one": one.time() - began}))
    other.call_soon(lambda: at.update({"other": other.time() - began}))
    await asyncio.sleep(1)

    expected = {"after the call": 0.05, "other": 0, "next of one": 0.05}
    assert at == pytest.approx(expected, abs=1e-6)


def test_a_simulation_in_which_nothing_can_happen_says_so() -> None:
    """A deadlock is an error at once, not a test that hangs."""
    from labs.harness.testbed.simulation.cluster import new_loop

    loop = new_loop(1)
    try:
        with pytest.raises(Stuck, match="nothing is due"):
            loop.run_until_complete(loop.create_future())
    finally:
        loop.close()
