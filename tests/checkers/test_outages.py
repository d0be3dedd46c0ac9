"""What an outage cost."""

from __future__ import annotations

from math import inf

import pytest

from labs.harness.checkers.outages import MONTH_S, Outage, nines, outage

S = 1_000_000_000


def test_lost_requests_and_the_longest_silence() -> None:
    """From one good answer to the next; those that failed in between do not end it."""
    requests = [(True, 1 * S), (False, 2 * S), (False, 3 * S), (True, 5 * S), (True, 6 * S)]

    assert outage(requests, 0, 7 * S) == Outage(5, 2, 4.0)


def test_silence_reaches_to_the_ends_of_the_stretch() -> None:
    """Nobody was served until the end: the last good answer is no bound."""
    assert outage([(True, 1 * S), (False, 2 * S)], 0, 9 * S).silent_s == 8.0
    assert outage([(False, 2 * S)], 0, 9 * S) == Outage(1, 1, 9.0)
    assert outage([], 0, 9 * S) == Outage(0, 0, 9.0)
    assert outage([(True, 12 * S)], 0, 9 * S).silent_s == 9.0


def test_one_request_of_four_may_fail_all_the_time_while_others_are_served() -> None:
    """No silence, and yet a quarter is lost: one figure alone would hide the other."""
    requests = [(number % 4 != 0, number * S) for number in range(1, 9)]
    found = outage(requests, 0, 8 * S)

    assert (found.share, found.silent_s) == (0.25, 2.0)


@pytest.mark.parametrize(
    ("down_s", "found"),
    [(MONTH_S / 10, 1.0), (MONTH_S / 1000, 3.0), (MONTH_S, 0.0), (0.0, inf), (1800.0, 3.158)],
)
def test_nines(down_s: float, found: float) -> None:
    """99.9 % are three; half an hour a month is a little more."""
    assert nines(down_s) == pytest.approx(found, abs=0.001)
