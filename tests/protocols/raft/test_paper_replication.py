"""The extended Raft paper on log replication: figure 2, §5.3 with figure 7, §5.5."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from services.protocols.core import Entry
from services.protocols.raft import Limits, Raft
from services.protocols.raft.messages import AppendEntries, AppendEntriesResponse, HardState
from tests.protocols.raft.helpers import (
    HEARTBEAT,
    Cluster,
    accept,
    answer_to_append,
    append_entries,
    elect,
    entries,
    established,
    events,
    follower,
    leader,
    log_terms,
    of,
    replayed,
    tick,
)

# ---- AppendEntries, receiver --------------------------------------------------------------------


def test_append_entries_rule_1_an_old_term() -> None:
    """Figure 2, AppendEntries RPC, receiver 1: "Reply false if term < currentTerm (§5.1)". The
    reply carries "currentTerm, for leader to update itself"; the log stays."""
    core = follower([1, 2], term=3)
    answer = answer_to_append(core, append_entries("n2", 2, prev=(1, 1), new=[1], commit=2))

    assert (answer.success, answer.term) == (False, 3)
    assert log_terms(core) == [1, 2]
    assert (core.status()["commit_index"], core.status()["leader"]) == (0, None)


@pytest.mark.parametrize(
    ("prev", "success", "conflict"),
    [
        ((0, 0), True, None),
        ((1, 1), True, None),
        ((3, 2), True, None),
        ((5, 3), True, None),
        ((6, 3), False, (6, 0)),  # too short: what it lacks begins at 6
        ((9, 3), False, (6, 0)),
        ((5, 4), False, (5, 3)),  # another term: 3 begins here at 5
        ((4, 3), False, (3, 2)),  # 2 begins at 3
        ((2, 2), False, (1, 1)),
    ],
)
def test_append_entries_rule_2_the_consistency_check(
    prev: tuple[int, int], success: bool, conflict: tuple[int, int] | None
) -> None:
    """Figure 2, AppendEntries RPC, receiver 2: "Reply false if log doesn't contain an entry at
    prevLogIndex whose term matches prevLogTerm (§5.3)"; §5.3: "the follower can include the term of
    the conflicting entry and the first index it stores for that term"."""
    core = follower([1, 1, 2, 2, 3], term=4)
    answer = answer_to_append(core, append_entries("n2", 4, prev=prev, round=7))

    assert (answer.success, answer.prev_log_index, answer.round) == (success, prev[0], 7)
    if conflict:
        assert (answer.conflict_index, answer.conflict_term) == conflict
    else:
        assert answer.match_index == prev[0]
    assert log_terms(core) == [1, 1, 2, 2, 3]


def test_a_refused_message_leaves_nothing_behind() -> None:
    """§5.3: "If the follower does not find an entry in its log with the same index and term, then
    it refuses the new entries." Nor does it learn a commit index from them."""
    core = follower([1, 1])
    core.step(append_entries("n2", 1, prev=(3, 1), new=[1, 1], commit=4))
    ready = core.ready()

    assert not ready.persist
    assert not ready.committed
    assert log_terms(core) == [1, 1]
    assert core.status()["commit_index"] == 0


def test_append_entries_rule_3_a_conflict_deletes_the_rest() -> None:
    """Figure 2, AppendEntries RPC, receiver 3: "If an existing entry conflicts with a new one
    (same index but different terms), delete the existing entry and all that follow it (§5.3)"."""
    core = follower([1, 1, 2, 2, 2])
    core.step(append_entries("n2", 3, prev=(1, 1), new=[1, 3]))
    ready = core.ready()

    assert log_terms(core) == [1, 1, 3]
    assert ready.persist == [HardState(3, None), Entry(3, 3, b"3.3")]
    assert "truncate_log" in events(ready)
    before = [HardState(2, None), *entries([1, 1, 2, 2, 2])]
    assert log_terms(replayed(before + ready.persist)) == [1, 1, 3]  # and on disk


@pytest.mark.parametrize("new", [[], [1], [1, 2]])
def test_append_entries_rule_3_no_conflict_deletes_nothing(new: list[int]) -> None:
    """Figure 2, rule 3 deletes "if an existing entry conflicts", and only then: a delayed message
    with the first of the entries must not shorten the log; the rest may be committed."""
    core = follower([1, 1, 2, 2])
    answer = answer_to_append(core, append_entries("n2", 2, prev=(1, 1), new=new))

    assert log_terms(core) == [1, 1, 2, 2]
    assert (answer.success, answer.match_index) == (True, 1 + len(new))


@pytest.mark.parametrize(
    ("prev", "new", "log", "persisted"),
    [
        ((3, 2), [2, 3], [1, 1, 2, 2, 3], [4, 5]),  # at the end
        ((1, 1), [1, 2, 3], [1, 1, 2, 3], [4]),  # the first two are here already
        ((0, 0), [1, 1, 2], [1, 1, 2], []),
        ((0, 0), [3], [3], [1]),
    ],
)
def test_append_entries_rule_4_appends_what_is_new(
    prev: tuple[int, int], new: list[int], log: list[int], persisted: list[int]
) -> None:
    """Figure 2, AppendEntries RPC, receiver 4: "Append any new entries not already in the log"."""
    core = follower([1, 1, 2], term=3)
    core.step(append_entries("n2", 3, prev=prev, new=new))
    ready = core.ready()

    assert log_terms(core) == log
    assert [record.index for record in ready.persist] == persisted


@pytest.mark.parametrize(
    ("prev", "new", "leader_commit", "commit"),
    [
        ((3, 1), [], 2, 2),
        ((3, 1), [1], 4, 4),
        ((3, 1), [1], 9, 4),  # min(leaderCommit, index of last new entry)
        ((1, 1), [1], 3, 2),  # what follows entry 2 here may be another leader's
        ((1, 1), [], 3, 1),
        ((3, 1), [], 0, 0),
    ],
)
def test_append_entries_rule_5_the_commit_index(
    prev: tuple[int, int], new: list[int], leader_commit: int, commit: int
) -> None:
    """Figure 2, AppendEntries RPC, receiver 5: "If leaderCommit > commitIndex, set commitIndex =
    min(leaderCommit, index of last new entry)"."""
    core = follower([1, 1, 1])
    core.step(append_entries("n2", 1, prev=prev, new=new, commit=leader_commit))

    assert core.status()["commit_index"] == commit


def test_the_commit_index_never_goes_back() -> None:
    """Figure 2, State: commitIndex "increases monotonically": rule 5's "if leaderCommit >
    commitIndex". A late message knows of less."""
    core = follower([1, 1, 1], committed=3)
    for message in (
        append_entries("n2", 1, prev=(3, 1), commit=1),
        append_entries("n2", 1, prev=(0, 0), new=[1], commit=3),
    ):
        core.step(message)
        assert core.status()["commit_index"] == 3
        assert not core.ready().committed


def test_entries_are_persisted_before_the_answer() -> None:
    """Figure 2, State: log[] is "updated on stable storage before responding to RPCs": records and
    answer come in one `Ready`, records first; what came in since is in one list and one answer."""
    core = follower(leader="n2", term=1)
    core.step(append_entries("n2", 1, new=[1, 1]))
    core.step(append_entries("n2", 1, prev=(2, 1), new=[1]))
    ready = core.ready()

    assert ready.persist == entries([1, 1, 1])
    assert [m.match_index for m in of(ready, AppendEntriesResponse)] == [3]
    assert log_terms(replayed([HardState(1, None), *ready.persist])) == [1, 1, 1]


# ---- Rules for all servers: applying ------------------------------------------------------------


def test_committed_entries_are_applied_once_in_order() -> None:
    """Figure 2, All Servers: "If commitIndex > lastApplied: increment lastApplied, apply
    log[lastApplied] to state machine (§5.3)"; "Once a follower learns that a log entry is
    committed, it applies the entry to its local state machine (in log order)"."""
    core = follower([1, 1, 1, 1])
    applied = []
    for commit in (1, 3, 3, 4):
        core.step(append_entries("n2", 1, prev=(4, 1), commit=commit))
        applied.append([entry.index for entry in core.ready().committed])

    assert applied == [[1], [2, 3], [], [4]]


# ---- Leaders ------------------------------------------------------------------------------------


def test_a_command_is_appended_then_answered_after_it_is_applied() -> None:
    """Figure 2, Leaders: "If command received from client: append entry to local log, respond
    after entry applied to state machine (§5.3)"."""
    core = established(size=5)
    index, term = core.propose(b"x")
    ready = core.ready()

    assert ready.persist == [Entry(index, term, b"x")]
    assert not ready.committed
    accept(core, "n2", match=index)
    assert not core.ready().committed
    accept(core, "n3", match=index)
    assert core.ready().committed == [Entry(index, term, b"x")]


def test_a_command_goes_to_all_other_servers_in_parallel() -> None:
    """§5.3: the leader "issues AppendEntries RPCs in parallel to each of the other servers to
    replicate the entry". Those of one `Ready` share a message."""
    core = established(size=5)
    core.propose(b"x")
    core.propose(b"y")
    sent = of(core.ready(), AppendEntries)

    assert [m.dst for m in sent] == ["n2", "n3", "n4", "n5"]
    for message in sent:
        assert (message.prev_log_index, message.prev_log_term) == (1, 1)
        assert [entry.command for entry in message.entries] == [b"x", b"y"]


def test_followers_learn_the_commit_index() -> None:
    """§5.3: "The leader keeps track of the highest index it knows to be committed, and it includes
    that index in future AppendEntries RPCs (including heartbeats)"."""
    core = established()
    core.propose(b"x")
    assert {m.leader_commit for m in of(core.ready(), AppendEntries)} == {1}
    accept(core, "n2")
    tick(core, HEARTBEAT)

    assert {m.leader_commit for m in of(core.ready(), AppendEntries)} == {2}


def progress(core: Raft, peer: str) -> tuple[int, int]:
    status = core.status()["peers"][peer]
    return status["match_index"], status["next_index"]


def test_a_new_leader_knows_nothing_of_the_followers() -> None:
    """Figure 2, State: nextIndex "initialized to leader last log index + 1", matchIndex
    "initialized to 0": what an earlier term of its leadership had learnt is forgotten."""
    core = established([1, 1], size=3)
    assert progress(core, "n2") == (3, 4)
    core.step(append_entries("n3", 5, prev=(3, 2)))
    ready = elect(core)

    assert progress(core, "n2")[0] == 0
    assert {m.prev_log_index for m in of(ready, AppendEntries)} == {3}
    assert core.status()["last_index"] == 4


def test_entries_are_sent_from_next_index() -> None:
    """Figure 2, Leaders: "If last log index ≥ nextIndex for a follower: send AppendEntries RPC
    with log entries starting at nextIndex". n3, which lacks entries, gets all of them."""
    core = leader([1, 1, 1])
    accept(core, "n2")
    core.step(AppendEntriesResponse("n3", "n1", 2, False, 0, 3, 2, 0, 0))
    (to_n3,) = of(core.ready(), AppendEntries)

    assert (to_n3.dst, to_n3.prev_log_index, to_n3.prev_log_term) == ("n3", 1, 1)
    assert [entry.index for entry in to_n3.entries] == [2, 3, 4]
    assert not core.ready()  # until that is answered


def test_success_updates_next_and_match_index() -> None:
    """Figure 2, Leaders: "If successful: update nextIndex and matchIndex for follower (§5.3)".
    Answers that come late or twice take neither back."""
    core = leader([1, 1, 1])
    accept(core, "n2", match=3)
    core.ready()
    assert progress(core, "n2")[0] == 3
    accept(core, "n2", match=4)
    assert progress(core, "n2") == (4, 5)
    accept(core, "n2", match=3)
    assert progress(core, "n2") == (4, 5)


@pytest.mark.parametrize(
    ("conflict_index", "conflict_term", "prev"),
    [
        (2, 0, 1),  # too short: to its end
        (4, 4, 5),  # term 4 is here too, its last index is 5: the logs may meet there
        (2, 3, 1),  # term 3 is not here: all of it is skipped
        (1, 9, 0),
        (9, 0, 6),  # nonsense still goes back by one at least
    ],
)
def test_failure_takes_next_index_back(conflict_index: int, conflict_term: int, prev: int) -> None:
    """Figure 2, Leaders: "If AppendEntries fails because of log inconsistency: decrement nextIndex
    and retry (§5.3)"; §5.3: "With this information, the leader can decrement nextIndex to bypass
    all of the conflicting entries in that term"."""
    core = leader([1, 1, 2, 4, 4, 5, 5])
    core.step(AppendEntriesResponse("n2", "n1", 6, False, 0, 7, conflict_index, conflict_term, 0))
    (retry,) = of(core.ready(), AppendEntries)

    assert (retry.dst, retry.prev_log_index) == ("n2", prev)
    assert retry.entries[0].index == prev + 1


def test_a_repeated_refusal_is_counted_once() -> None:
    """§5.3: nextIndex goes back for the message that was refused, not for each copy of the refusal;
    and never to what the follower is known to have."""
    core = leader([1] * 9)
    refusal = AppendEntriesResponse("n2", "n1", 2, False, 0, 9, 6, 0, 0)
    core.step(refusal)
    core.step(refusal)
    (retry,) = of(core.ready(), AppendEntries)
    assert retry.prev_log_index == 5
    core.step(refusal)
    assert not core.ready()
    accept(core, "n2", match=10)
    core.ready()
    core.step(refusal)
    assert progress(core, "n2") == (10, 11)


def test_leader_append_only() -> None:
    """Figure 3, Leader Append-Only: "a leader never overwrites or deletes entries in its log; it
    only appends new entries. §5.3". Whatever followers refuse."""
    core = leader([1, 1, 2])
    for term in (0, 1, 2, 3):
        core.step(AppendEntriesResponse("n2", "n1", 3, False, 0, 3, 1, term, 0))
        ready = core.ready()
        assert not ready.persist
    core.propose(b"x")

    assert core.ready().persist == [Entry(5, 3, b"x")]
    assert log_terms(core) == [1, 1, 2, 3, 3]


def test_a_lost_message_is_sent_again() -> None:
    """§5.3: "If followers crash or run slowly, or if network packets are lost, the leader retries
    AppendEntries RPCs indefinitely (even after it has responded to the client) until all followers
    eventually store all log entries." """
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.deliver()
    cluster.isolate("n3")
    for i in range(5):
        cluster.cores["n1"].propose(b"%d" % i)
        cluster.tick()
    assert len(cluster.applied["n1"]) == 5
    assert cluster.applied["n3"] == []
    cluster.heal()
    cluster.tick(2 * HEARTBEAT)

    assert cluster.applied["n3"] == cluster.applied["n1"]


# ---- Figure 7 and log matching ------------------------------------------------------------------

FIGURE_7_LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("batch", [1, 256])
@pytest.mark.parametrize("case", FIGURE_7)
def test_figure_7_each_log_is_repaired(case: str, batch: int) -> None:
    """Figure 7: "When the leader at the top comes to power, it is possible that any of scenarios
    (a–f) could occur in follower logs"; §5.3: "the leader handles inconsistencies by forcing the
    followers' logs to duplicate its own"."""
    logs = {"n1": FIGURE_7_LEADER, "n2": FIGURE_7[case], "n3": FIGURE_7_LEADER}
    cluster = Cluster(3, logs=logs, term=7, limits=Limits(entries_per_message=batch))
    cluster.elect("n1")
    cluster.cores["n1"].propose(b"x")
    cluster.deliver()
    cluster.tick(HEARTBEAT)

    assert cluster.log("n2") == [*FIGURE_7_LEADER, 8, 8]
    assert cluster.applied["n2"] == [*entries(FIGURE_7_LEADER), Entry(12, 8, b"x")]
    assert log_terms(replayed(cluster.disks["n2"])) == cluster.log("n2")


def test_figure_7_all_seven_servers() -> None:
    """Figure 7, all of it: a, b, e and f elect the leader at the top (c and d must not); then all
    logs become its own, and figure 3's Log Matching holds."""
    names = dict(zip("abcdef", ["n2", "n3", "n4", "n5", "n6", "n7"], strict=True))
    logs = {"n1": FIGURE_7_LEADER} | {names[case]: log for case, log in FIGURE_7.items()}
    cluster = Cluster(7, logs=logs, term=7)
    cluster.elect("n1")
    voted = {name for name, core in cluster.cores.items() if core.status()["vote"] == "n1"}
    assert voted == {"n1", names["a"], names["b"], names["e"], names["f"]}
    cluster.deliver()
    cluster.tick(HEARTBEAT)

    assert all(cluster.log(name) == [*FIGURE_7_LEADER, 8] for name in cluster.names)
    assert all(cluster.applied[name] == entries(FIGURE_7_LEADER) for name in cluster.names)


def test_the_hint_saves_round_trips() -> None:
    """§5.3: "one AppendEntries RPC will be required for each term with conflicting entries, rather
    than one RPC per entry". (f) has two such terms and eight entries; the probe finds it longer."""
    logs = {"n1": FIGURE_7_LEADER, "n2": FIGURE_7["f"], "n3": FIGURE_7_LEADER}
    cluster = Cluster(3, logs=logs, term=7)
    cluster.elect("n1")
    cluster.deliver()
    refused = [m for m in cluster.sent if isinstance(m, AppendEntriesResponse) and not m.success]

    assert [m.prev_log_index for m in refused] == [10, 6]
    assert cluster.log("n2") == cluster.log("n1")


# ---- §5.5: crashed followers, repeated messages -------------------------------------------------


def test_a_repeated_append_entries_changes_nothing() -> None:
    """§5.5: "Raft RPCs are idempotent, so this causes no harm. For example, if a follower receives
    an AppendEntries request that includes log entries already present in its log, it ignores those
    entries in the new request." """
    core = follower(term=1)
    message = append_entries("n2", 1, new=[1, 1], commit=1)
    first = answer_to_append(core, message)
    core.step(replace(message))
    ready = core.ready()

    assert of(ready, AppendEntriesResponse) == [first]
    assert not ready.persist
    assert not ready.committed


def test_a_crash_before_the_answer_is_a_retry() -> None:
    """§5.5: "If a server crashes after completing an RPC but before responding, then it will
    receive the same RPC again after it restarts." """
    core = follower(term=1)
    message = append_entries("n2", 1, new=[1, 1], commit=2)
    core.step(message)
    disk = [HardState(1, None), *core.ready().persist]  # and the answer is lost
    again = replayed(disk)
    answer = answer_to_append(again, replace(message))

    assert (answer.success, answer.match_index) == (True, 2)
    assert log_terms(again) == [1, 1]


def test_a_crashed_follower_catches_up() -> None:
    """§5.5: "If a follower or candidate crashes, then future RequestVote and AppendEntries RPCs
    sent to it will fail. Raft handles these failures by retrying indefinitely"."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.deliver()
    cluster.cores["n1"].propose(b"before")
    cluster.tick(HEARTBEAT)
    cluster.crash("n2")
    cluster.cores["n1"].propose(b"meanwhile")
    cluster.tick(10)
    cluster.start("n2")
    cluster.tick(2 * HEARTBEAT)

    assert [entry.command for entry in cluster.applied["n2"]] == [b"before", b"meanwhile"]


def test_messages_in_any_order_and_twice() -> None:
    """§5.3 with §5.5: three messages of one leader in every order, each twice, then a retry of
    all: the log is the leader's, and at no time is more committed than matches it."""
    parts = [
        append_entries("n2", 3, prev=(1, 1), new=[3], commit=1),
        append_entries("n2", 3, prev=(2, 3), new=[3], commit=2),
        append_entries("n2", 3, prev=(3, 3), new=[3], commit=3),
    ]
    for order in itertools.permutations(parts * 2):
        core = follower([1, 1, 2])
        applied: list[int] = []
        for message in [*order, *parts]:
            core.step(replace(message))
            applied += [entry.term for entry in core.ready().committed]
            core.check_invariants()
        assert log_terms(core) == [1, 3, 3, 3]
        assert applied == [1, 3, 3]
