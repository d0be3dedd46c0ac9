"""Target tracking: as many replicas as keep their utilisation at the target, without swinging."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.resilience.target_tracking import TargetTracking


def policy(**changes: float) -> TargetTracking:
    given = {"target": 0.5, "minimum": 2, "maximum": 10, "cool_down_s": 30.0} | changes
    return TargetTracking(**given)  # type: ignore[arg-type]


def test_it_follows_the_formula() -> None:
    """HPA: "desiredReplicas = ceil(currentReplicas × currentMetricValue / desiredMetricValue)"."""
    assert policy().look(0.0, 4, 1.0) == 8
    assert policy().look(0.0, 3, 0.8) == 5


def test_near_the_target_nothing_changes() -> None:
    """HPA: "the control plane skips any scaling action" within the tolerance, 0.1."""
    assert policy().look(0.0, 10, 0.54) == 10
    assert policy().look(0.0, 9, 0.46) == 9


def test_those_on_their_way_are_not_started_again() -> None:
    """Three at full load want six; once three are on their way, the same look wants twice *six* no
    more than the maximum, but never three more for the same three."""
    scaler = policy(maximum=6)
    assert scaler.look(0.0, 3, 1.0) == 6
    assert scaler.look(0.1, 6, 1.0) == 6


def test_fewer_only_after_the_cool_down_and_no_fewer_than_were_wanted_in_it() -> None:
    """HPA's stabilisation window: the highest of the recommendations in it counts."""
    scaler = policy()
    assert scaler.look(0.0, 8, 0.1) == 8
    assert scaler.look(10.0, 8, 0.3) == 8
    assert scaler.look(29.9, 8, 0.1) == 8
    assert scaler.look(30.0, 8, 0.1) == 5


def test_a_burst_within_the_cool_down_begins_it_anew() -> None:
    scaler = policy()
    assert scaler.look(0.0, 8, 0.1) == 8
    assert scaler.look(20.0, 8, 0.5) == 8
    assert scaler.look(31.0, 8, 0.1) == 8
    assert scaler.look(61.0, 8, 0.1) == 2


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1)), max_size=40))
def test_it_stays_within_its_bounds(looks: list[tuple[float, float]]) -> None:
    """Whatever it sees; and it never takes replicas away while utilisation is above the target."""
    scaler, replicas, now = policy(), 2, 0.0
    for after_s, utilisation in looks:
        now += after_s
        wanted = scaler.look(now, replicas, utilisation)
        assert 2 <= wanted <= 10
        assert wanted >= replicas or utilisation < 0.5
        replicas = wanted


@pytest.mark.parametrize(
    "wrong", [{"target": 0.0}, {"target": 1.0}, {"minimum": 0}, {"maximum": 1}]
)
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"target|minimum"):
        policy(**wrong)
