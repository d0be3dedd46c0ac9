"""The circuit breaker, rule by rule of *Release It!*; time is a number that the test sets."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from services.resilience.circuit_breaker import (
    TRANSITIONS,
    TRANSITIONS_KEPT,
    Cause,
    CircuitBreaker,
    State,
    Transition,
)


def opened(*, at: float = 0.0, probes: int = 1) -> CircuitBreaker:
    breaker = CircuitBreaker(failures_to_open=3, open_for_s=5.0, half_open_probes=probes)
    for _ in range(3):
        assert breaker.allow(at)
        breaker.record_failure(at)
    return breaker


def test_closed_lets_every_call_through() -> None:
    """In its normal state, closed, the breaker lets calls be made as usual."""
    breaker = CircuitBreaker(failures_to_open=3, open_for_s=5.0)

    assert all(breaker.allow(now) for now in range(100))
    assert breaker.state == "closed"
    assert breaker.retry_after(100) == 0.0


def test_opens_at_the_threshold() -> None:
    """When the number of failures reaches the threshold, the breaker trips and opens."""
    breaker = CircuitBreaker(failures_to_open=3, open_for_s=5.0)
    states = []
    for now in range(3):
        breaker.record_failure(now)
        states.append(str(breaker.state))

    assert states == ["closed", "closed", "open"]
    assert not breaker.allow(2.0)


def test_a_success_starts_the_count_anew() -> None:
    """Failures in a row count: two, a success, and two more leave it closed."""
    breaker = CircuitBreaker(failures_to_open=3, open_for_s=5.0)
    for _ in range(2):
        breaker.record_failure(0)
        breaker.record_failure(0)
        breaker.record_success(0)

    assert breaker.state == "closed"


def test_open_refuses_at_once_and_says_for_how_long() -> None:
    """While it is open, calls fail at once, without an attempt to make them."""
    breaker = opened(at=10.0)

    assert [breaker.allow(now) for now in (10.0, 12.0, 14.9)] == [False, False, False]
    assert breaker.retry_after(10.0) == 5.0
    assert breaker.retry_after(14.0) == pytest.approx(1.0)
    assert breaker.retry_after(15.0) == 0.0


def test_half_open_lets_one_probe_through() -> None:
    """After a suitable time the call has a chance again: half-open, one trial call."""
    breaker = opened()

    assert breaker.allow(5.0)
    assert breaker.state == "half_open"
    assert not breaker.allow(5.0)
    assert breaker.retry_after(6.0) == pytest.approx(4.0)


def test_a_successful_probe_closes() -> None:
    """Should the trial call succeed, the breaker is reset and returns to closed."""
    breaker = opened()
    breaker.allow(5.0)
    breaker.record_success(5.1)

    assert breaker.state == "closed"
    assert breaker.allow(5.1)
    breaker.record_failure(5.2)
    assert breaker.state == "closed"  # the count of failures started anew, too


def test_a_failed_probe_opens_again() -> None:
    """If the trial call fails, the breaker is open again until another timeout has passed."""
    breaker = opened()
    breaker.allow(5.0)
    breaker.record_failure(6.0)

    assert breaker.state == "open"
    assert not breaker.allow(10.9)
    assert breaker.allow(11.0)


def test_all_probes_must_succeed() -> None:
    """With half_open_probes=2, two calls are let through, and two successes close it."""
    breaker = opened(probes=2)

    assert [breaker.allow(5.0) for _ in range(3)] == [True, True, False]
    breaker.record_success(5.1)
    assert breaker.state == "half_open"
    breaker.record_success(5.2)
    assert breaker.state == "closed"


def test_a_lost_probe_does_not_jam_it() -> None:
    """A probe whose caller was cancelled reports nothing: probes are given out anew in time."""
    breaker = opened()
    assert breaker.allow(5.0)

    assert not breaker.allow(9.9)
    assert breaker.allow(10.0)
    breaker.record_success(10.1)
    assert breaker.state == "closed"


def test_late_results_do_not_move_an_open_breaker() -> None:
    """Calls let through before it opened may still answer or fail: the decision is made."""
    breaker = opened(at=0.0)
    breaker.record_success(1.0)
    breaker.record_failure(4.0)

    assert breaker.state == "open"
    assert breaker.allow(5.0)  # the late failure did not prolong it


def test_transitions_are_recorded() -> None:
    """The story of a run can be told from `transitions`."""
    breaker = opened(at=1.0)
    breaker.allow(6.0)
    breaker.record_failure(7.0)
    breaker.allow(12.0)
    breaker.record_success(12.5)

    assert list(breaker.transitions) == [
        Transition(1.0, State.CLOSED, Cause.TOO_MANY_FAILURES, State.OPEN),
        Transition(6.0, State.OPEN, Cause.WAITED, State.HALF_OPEN),
        Transition(7.0, State.HALF_OPEN, Cause.PROBE_FAILED, State.OPEN),
        Transition(12.0, State.OPEN, Cause.WAITED, State.HALF_OPEN),
        Transition(12.5, State.HALF_OPEN, Cause.PROBES_SUCCEEDED, State.CLOSED),
    ]


def test_the_table_is_the_machine() -> None:
    """Any calls at any times: every transition is one of the table, all of them are reachable, a
    refusal is always bounded by `open_for_s`, and what is kept is bounded.
    """
    seen: set[tuple[State, Cause]] = set()
    for seed, probes in product(range(20), (1, 3)):
        random, now = Random(seed), 0.0
        breaker = CircuitBreaker(failures_to_open=2, open_for_s=1.0, half_open_probes=probes)
        for _ in range(400):
            now += random.choice((0.0, 0.1, 1.0, -0.05))
            before = breaker.retry_after(now)
            assert 0.0 <= before <= 1.0, (seed, probes)
            assert breaker.allow(now) == (before == 0.0), (seed, probes)
            random.choice((breaker.record_success, breaker.record_failure))(now)
        for step in breaker.transitions:
            assert TRANSITIONS[step.source, step.cause] is step.target, (seed, probes)
            seen.add((step.source, step.cause))
        assert len(breaker.transitions) <= TRANSITIONS_KEPT

    assert seen == set(TRANSITIONS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures_to_open": 0, "open_for_s": 1.0},
        {"failures_to_open": 1, "open_for_s": 0.0},
        {"failures_to_open": 1, "open_for_s": float("nan")},
        {"failures_to_open": 1, "open_for_s": 1.0, "half_open_probes": 0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    """A breaker that never opens, never waits or never probes is a mistake of its owner."""
    with pytest.raises(ValueError, match="must be"):
        CircuitBreaker(**wrong)  # type: ignore[arg-type]


def test_an_abandoned_probe_is_given_back() -> None:
    """A probe whose caller hung up has said nothing: the next caller may probe, and at once."""
    breaker = opened()
    assert breaker.allow(5.0)
    assert not breaker.allow(5.0)

    breaker.abandon()

    assert breaker.state == "half_open"
    assert breaker.allow(5.0)
    assert not breaker.allow(5.0)
    breaker.record_success(5.0)
    assert breaker.state == "closed"


def test_no_more_probes_come_back_than_were_given_out() -> None:
    breaker = opened(probes=2)
    assert breaker.allow(5.0)
    for _ in range(5):
        breaker.abandon()

    assert [breaker.allow(5.0) for _ in range(3)] == [True, True, False]
