"""Restart from records (figure 2, State), what is bounded, and who is not listened to."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from services.protocols.core import Busy, Entry, Snapshot
from services.protocols.raft import Limits, Raft
from services.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    RequestPreVoteResponse,
    RequestVoteResponse,
    TimeoutNow,
)
from tests.protocols.raft.helpers import (
    accept,
    answer_to_append,
    append_entries,
    entries,
    established,
    follower,
    leader,
    log_terms,
    of,
    replayed,
    request_vote,
)

# ---- Restart from records -----------------------------------------------------------------------


def test_the_last_hard_state_counts() -> None:
    """Figure 2, State: currentTerm and votedFor come back as they were last written."""
    status = replayed([HardState(1, "n2"), HardState(3, "n1"), HardState(4, None)]).status()

    assert (status["term"], status["vote"], status["role"]) == (4, None, "follower")


@pytest.mark.parametrize(
    ("records", "terms"),
    [
        ([*entries([1, 1, 2])], [1, 1, 2]),
        ([*entries([1, 1, 1]), *entries([2], first=2)], [1, 2]),
        ([*entries([1, 1, 1]), *entries([2, 2], first=1)], [2, 2]),
        ([*entries([1, 1, 1]), *entries([2], first=3), *entries([2], first=4)], [1, 1, 2, 2]),
    ],
)
def test_entry_records_end_the_log_before_them(records: list[Entry], terms: list[int]) -> None:
    """The package's Records: `Entry`: "if its index is not above the last one, the log ends just
    before it first" — rule 3 of AppendEntries, on disk."""
    core = replayed([HardState(2, None), *records])
    core.check_invariants()

    assert log_terms(core) == terms
    status = core.status()
    assert (status["commit_index"], status["applied_index"]) == (0, 0)  # volatile (figure 2)
    assert not core.ready()


def test_a_snapshot_record_comes_first() -> None:
    """§7, on restart: the first `ready` gives the snapshot to restore, once; entries follow it;
    commitIndex and lastApplied begin at its last included index."""
    core = replayed([Snapshot(4, 2, b"state"), HardState(3, "n2"), *entries([3, 3], first=5)])
    first = core.ready()

    assert first.restore == Snapshot(4, 2, b"state")
    assert not first.persist
    assert not core.ready()
    status = core.status()
    assert (status["commit_index"], status["applied_index"], status["last_index"]) == (4, 4, 6)
    answer = answer_to_append(core, append_entries("n2", 3, prev=(6, 3), commit=6))
    assert answer.match_index == 6


@pytest.mark.parametrize(
    "records",
    [
        [HardState(1, None), *entries([1], first=2)],  # a gap
        [HardState(1, None), *entries([2])],  # a term never on record
        [Snapshot(4, 1, b""), HardState(1, None), *entries([1], first=4)],
        ["what is this"],
    ],
)
def test_records_that_cannot_be_are_refused(records: list[Any]) -> None:
    """Broken storage is found at the start, with ValueError, not by a wrong answer later."""
    with pytest.raises(ValueError, match=r"entry|term|record"):
        replayed(records)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat_ticks": 0},
        {"heartbeat_ticks": 11},
        {"lease_ticks": 20},
        {"lease_ticks": -1},
        {"peers": ("n1", "n2")},
        {"peers": ("n2", "n2")},
    ],
)
def test_configurations_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    """§5.6: broadcastTime ≪ electionTimeout; the lease is shorter than the election timeout."""
    with pytest.raises(ValueError, match=r"ticks|peers"):
        Raft("n1", random=Random(1), **{"peers": ("n2", "n3"), "election_ticks": 20} | wrong)
    with pytest.raises(ValueError, match="at least 1"):
        Limits(messages_in_flight=0)


# ---- Bounds -------------------------------------------------------------------------------------


def test_uncommitted_bytes_are_bounded() -> None:
    """A leader without a majority refuses more (Busy, definite) instead of growing; what commits
    makes room. One command above the bound passes when nothing waits."""
    core = established(limits=Limits(uncommitted_bytes=10))
    core.propose(b"x" * 6)
    core.propose(b"x" * 4)
    with pytest.raises(Busy):
        core.propose(b"x")
    assert core.status()["last_index"] == 3
    accept(core, "n2", match=2)
    core.propose(b"x" * 6)
    accept(core, "n2")
    assert core.status()["uncommitted_bytes"] == 0
    core.propose(b"x" * 11)


def test_uncommitted_bytes_count_what_the_leader_inherited() -> None:
    """§5.4.2: entries of older terms wait for its no-op to commit as well."""
    core = leader([1, 1], limits=Limits(uncommitted_bytes=7))  # b"1.1", b"1.2"
    with pytest.raises(Busy):
        core.propose(b"xx")
    accept(core, "n2")
    core.propose(b"xx")


def test_messages_in_flight_are_bounded() -> None:
    """§10.2.1 (pipelining): entries are sent ahead of their answers, up to a window; each answer
    opens it again; an unreachable follower costs no more than that."""
    core = established(limits=Limits(messages_in_flight=2))
    sent = []
    for _ in range(5):
        core.propose(b"x")
        sent += of(core.ready(), AppendEntries, "n2")
    assert [[e.index for e in m.entries] for m in sent] == [[2], [3]]
    accept(core, "n2", match=2)

    (more,) = of(core.ready(), AppendEntries, "n2")
    assert [e.index for e in more.entries] == [4, 5, 6]


def test_a_probe_goes_out_once() -> None:
    """§10.2.1: until it is known where the logs meet, one message at a time."""
    core = leader()
    for _ in range(5):
        core.propose(b"x")
        assert not of(core.ready(), AppendEntries)


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (Limits(entries_per_message=2), [2, 2, 1]),
        (Limits(bytes_per_message=8), [2, 2, 1]),  # 4 bytes each
        (Limits(bytes_per_message=11), [2, 2, 1]),
        (Limits(bytes_per_message=3), [1, 1, 1, 1, 1]),  # above the limit: alone
        (Limits(), [5]),
    ],
)
def test_messages_are_bounded(limits: Limits, sizes: list[int]) -> None:
    """§10.2.2 (batching): up to so many entries and bytes in a message, at least one."""
    core = established(limits=limits)
    for i in range(5):
        core.propose(b"%04d" % i)
    sent = of(core.ready(), AppendEntries, "n3")

    assert [len(m.entries) for m in sent] == sizes
    assert [e.index for m in sent for e in m.entries] == [2, 3, 4, 5, 6]


# ---- Strangers and late messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        append_entries("n9", 9, new=[9]),
        request_vote("n9", 9, (9, 9)),
        replace(request_vote("n2", 9, (9, 9)), dst="n3"),
        replace(append_entries("n2", 9, new=[9]), dst="n3"),
        request_vote("n1", 9, (9, 9)),  # from itself
        TimeoutNow("n9", "n1", 9),
        "not a message",
    ],
)
def test_strangers_are_ignored(message: object) -> None:
    """`Core.step`: "Unknown senders and stale messages are ignored": not even their term counts."""
    for core in (follower([1]), established([1])):
        before = core.status()
        core.step(message)
        assert not core.ready()
        assert core.status() == before


def test_answers_to_an_earlier_leadership_are_ignored() -> None:
    """§5.1: what answers an earlier term of this leader's own proves nothing in this one."""
    core = leader([1], term=3)
    for message in (
        AppendEntriesResponse("n2", "n1", 3, True, 2, 1, 0, 0, 9),
        AppendEntriesResponse("n2", "n1", 3, False, 0, 1, 1, 0, 9),
        RequestVoteResponse("n2", "n1", 3, False),
        RequestPreVoteResponse("n2", "n1", 3, False),
    ):
        core.step(message)
        assert not core.ready()
    assert core.status()["peers"]["n2"]["match_index"] == 0
    assert core.status()["role"] == "leader"


def test_answers_to_a_follower_are_ignored() -> None:
    """§5.1: followers asked for nothing, whoever answers."""
    core = follower([1], leader="n2")
    for message in (
        AppendEntriesResponse("n3", "n1", 1, True, 1, 0, 0, 0, 1),
        RequestVoteResponse("n3", "n1", 1, True),
        RequestPreVoteResponse("n3", "n1", 2, True),
    ):
        core.step(message)
        assert not core.ready()
        assert core.status()["role"] == "follower"
        assert core.status()["commit_index"] == 0
