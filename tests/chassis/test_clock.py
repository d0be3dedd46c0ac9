"""The clock that a lab can step and drift."""

from __future__ import annotations

import pytest

from services.chassis.clock import OFFSET_LIMIT_MS, Clock


class Machine:
    """True time, moved by hand."""

    def __init__(self) -> None:
        self.wall_s, self.monotonic_s = 1_000_000.0, 50.0

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def clock(machine: Machine) -> Clock:
    return Clock(lambda: machine.wall_s, lambda: machine.monotonic_s)


def test_untouched(machine: Machine, clock: Clock) -> None:
    """An untouched clock is the machine's."""
    machine.pass_s(3)

    assert clock.wall() == machine.wall_s
    assert clock.monotonic() == machine.monotonic_s
    assert clock.status()["offset_ms"] == 0


def test_bump(machine: Machine, clock: Clock) -> None:
    """A bump steps the wall clock and leaves the monotonic clock alone."""
    clock.set(offset_ms=-2_500)
    machine.pass_s(1)

    assert clock.wall() == machine.wall_s - 2.5
    assert clock.monotonic() == machine.monotonic_s


def test_drift(machine: Machine, clock: Clock) -> None:
    """A drifting clock gains on both times, with no jump when the rate changes."""
    before = clock.wall(), clock.monotonic()
    clock.set(rate=1.5)
    at_once = clock.wall(), clock.monotonic()
    machine.pass_s(10)

    assert at_once == before
    assert clock.monotonic() - before[1] == pytest.approx(15)
    assert clock.wall() - before[0] == pytest.approx(15)
    assert clock.offset_s() == pytest.approx(5)


def test_reset(machine: Machine, clock: Clock) -> None:
    """`set(offset_ms=0, rate=1)` repairs the wall clock; monotonic time never goes back."""
    clock.set(offset_ms=60_000, rate=2.0)
    machine.pass_s(10)
    before = clock.monotonic()
    clock.set(offset_ms=0, rate=1)

    assert clock.wall() == machine.wall_s
    assert clock.monotonic() == before
    machine.pass_s(1)
    assert clock.monotonic() == pytest.approx(before + 1)


@pytest.mark.parametrize(
    "setting",
    [
        {"rate": 0.0},
        {"rate": -1.0},
        {"rate": float("nan")},
        {"rate": 1e9},
        {"offset_ms": OFFSET_LIMIT_MS * 2.0},
        {"offset_ms": float("inf")},
        {"offset_ms": 5.0, "rate": 0.0},
    ],
)
def test_refused(clock: Clock, setting: dict[str, float]) -> None:
    """What makes no sense is refused and changes nothing."""
    with pytest.raises(ValueError, match="must be"):
        clock.set(**setting)

    assert clock.rate == 1.0
    assert clock.offset_s() == 0
