"""When a cluster has converged: by what is applied, not by what a log may hold beyond."""

from __future__ import annotations

from typing import Any

from labs.harness.testbed.cluster import applied_alike


def said(role: str, applied: int, last: int, digest: str = "d1") -> dict[str, Any]:
    return {"role": role, "applied_index": applied, "last_index": last, "state_digest": digest}


def test_all_have_applied_what_the_leader_has() -> None:
    """The states are given, and it is for the caller to say what it means that they differ."""
    assert applied_alike({"n1": said("leader", 7, 7), "n2": said("follower", 7, 7)}) == {
        "n1": "d1",
        "n2": "d1",
    }
    differ = applied_alike({"n1": said("primary", 7, 7), "n2": said("backup", 7, 7, "d2")})
    assert differ == {"n1": "d1", "n2": "d2"}


def test_a_follower_may_hold_more_than_the_leader() -> None:
    """In Paxos: what it accepted in a ballot that came to nothing."""
    assert applied_alike({"n1": said("leader", 7, 7), "n2": said("follower", 7, 9)})


def test_it_is_not_over_yet() -> None:
    """The leader has more to apply, a follower lags or is silent, none leads, or two do."""
    leader = said("leader", 7, 7)
    for statuses in (
        {"n1": said("leader", 6, 7), "n2": said("follower", 6, 7)},
        {"n1": leader, "n2": said("follower", 6, 7)},
        {"n1": leader, "n2": None},
        {"n1": said("candidate", 7, 7), "n2": said("follower", 7, 7)},
        {"n1": leader, "n2": said("leader", 7, 7)},
    ):
        assert applied_alike(statuses) == {}
