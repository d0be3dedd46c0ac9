"""The extended Raft paper on commitment: figure 2's last rule, §5.4 with figure 8, §8's no-op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.protocols.core import Entry
from services.protocols.raft import Limits
from services.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    RequestVote,
    RequestVoteResponse,
)
from tests.protocols.raft.helpers import (
    HEARTBEAT,
    LONGEST_TIMEOUT,
    Cluster,
    accept,
    append_entries,
    elect,
    entries,
    established,
    follower,
    leader,
    log_terms,
    of,
    tick,
)

# ---- The commit rule ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matches", "commit"),
    [
        ((0,), 0),
        ((2,), 2),
        ((0, 0), 0),
        ((2, 0), 2),  # the leader's own copy makes the majority
        ((3, 1), 3),
        ((3, 0, 0), 0),
        ((3, 2, 0), 2),
        ((3, 0, 0, 0), 0),
        ((3, 2, 0, 0), 2),
        ((3, 3, 1, 1), 3),
        ((1, 2, 3, 3), 3),
    ],
)
def test_a_majority_commits(matches: tuple[int, ...], commit: int) -> None:
    """Figure 2, Leaders: "If there exists an N such that N > commitIndex, a majority of
    matchIndex[i] ≥ N, and log[N].term == currentTerm: set commitIndex = N (§5.3, §5.4)"."""
    core = leader(size=len(matches) + 1)  # entry 1 is its no-op
    core.propose(b"x")
    core.propose(b"y")
    core.ready()
    for peer, match in zip(core.peers, matches, strict=True):
        accept(core, peer, match=match)
        accept(core, peer, match=match)  # a repeated answer is not another server's

    assert core.status()["commit_index"] == commit
    core.check_invariants()


def test_entries_of_older_terms_are_not_counted() -> None:
    """§5.4.2: "Raft never commits log entries from previous terms by counting replicas. Only log
    entries from the leader's current term are committed by counting replicas"."""
    core = leader([1, 2, 2], size=5)
    accept(core, *core.peers, match=3)

    assert core.status()["commit_index"] == 0
    assert not core.ready().committed


def test_an_entry_of_this_term_commits_all_before_it() -> None:
    """§5.4.2: "once an entry from the current term has been committed in this way, then all prior
    entries are committed indirectly because of the Log Matching Property"."""
    core = leader([1, 2, 2])
    accept(core, "n3", match=4)

    assert core.ready().committed == [*entries([1, 2, 2]), Entry(4, 3, b"")]


def test_a_new_leader_opens_its_term_with_a_no_op() -> None:
    """§8: "Raft handles this by having each leader commit a blank no-op entry into the log at the
    start of its term"."""
    ready = elect(follower([1, 1]))

    assert ready.persist == [Entry(3, 2, b"")]
    assert all(m.entries == [Entry(3, 2, b"")] for m in of(ready, AppendEntries))


def test_leader_completeness_through_a_change_of_leader() -> None:
    """Figure 3, Leader Completeness: "if a log entry is committed in a given term, then that entry
    will be present in the logs of the leaders for all higher-numbered terms. §5.4". Of the two
    followers only the one that has the entry can be elected."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.deliver()
    cluster.isolate("n3")
    cluster.cores["n1"].propose(b"x")
    cluster.deliver()
    assert [entry.command for entry in cluster.applied["n1"]] == [b"x"]
    cluster.crash("n1")
    cluster.heal()
    cluster.ask_for_votes("n3")
    assert cluster.cores["n3"].status()["pre_vote"]  # n2 does not even promise
    cluster.elect("n2")
    cluster.deliver()
    cluster.tick(HEARTBEAT)

    assert [entry.command for entry in cluster.applied["n3"]] == [b"x"]


def test_an_answer_of_an_older_term_is_not_counted() -> None:
    """§5.1: a server "rejects" what is of a stale term: an answer given to this leader in an
    earlier term of its own may speak of entries that are gone since."""
    core = established([1])
    core.propose(b"x")
    core.ready()
    core.step(append_entries("n3", 4, prev=(2, 2), new=[4]))  # overwrites x, in term 4
    elect(core)
    assert log_terms(core) == [1, 2, 4, 5]
    core.step(AppendEntriesResponse("n2", "n1", 2, True, 4, 0, 0, 0, 0))

    assert core.status()["commit_index"] == 2


# ---- §8: clients --------------------------------------------------------------------------------


def test_client_commands_are_not_lost() -> None:
    """§8 and figure 3, State Machine Safety: what was answered to a client is applied on every
    server, whichever of them crashes; all servers apply the same, in the same order."""
    cluster = Cluster(3)
    answered: list[tuple[int, int]] = []
    for crashed in ("n1", "n2", "n3", "n1"):
        survivors = [name for name in cluster.names if name in cluster.cores]
        first = max(
            survivors, key=lambda n: (cluster.cores[n].status()["last_index"], n != crashed)
        )
        cluster.elect(first)
        cluster.deliver()
        for i in range(3):
            asked = cluster.cores[first].propose(f"{first} {i}".encode())
            cluster.deliver()
            assert asked in [(e.index, e.term) for e in cluster.applied[first]]
            answered.append(asked)
        cluster.crash(first)
        cluster.start(first)
    cluster.elect("n2")
    cluster.deliver()
    cluster.tick(2 * HEARTBEAT)

    assert len(answered) == 12
    for name in cluster.names:
        assert [(e.index, e.term) for e in cluster.applied[name]] == answered


def test_an_overwritten_command_is_known_to_be_lost() -> None:
    """§5.3: a proposal is named by index and term. A leader that was cut off does not answer for
    what it could not replicate: another command commits at that index."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.deliver()
    cluster.isolate("n1")
    lost = cluster.cores["n1"].propose(b"lost")
    cluster.elect("n2")
    cluster.cores["n2"].propose(b"kept")
    cluster.deliver()
    cluster.heal()
    cluster.tick(2 * HEARTBEAT)

    assert lost[0] in [e.index for e in cluster.cores["n1"].log.between(0, 3)]
    assert [e.command for e in cluster.applied["n1"]] == [b"kept"]
    assert cluster.log("n1") == cluster.log("n2")
    assert lost not in [(e.index, e.term) for e in entries(cluster.log("n1"))]


# ---- Figure 8 -----------------------------------------------------------------------------------


def replication(*between: str, upto: int = 99) -> Callable[[Any], bool]:
    """AppendEntries among these servers only, of entries not beyond `upto`."""

    def chosen(message: Any) -> bool:
        if isinstance(message, AppendEntries) and message.entries:
            return {message.src, message.dst} <= set(between) and message.entries[-1].index <= upto
        return isinstance(message, AppendEntriesResponse) and {message.src, message.dst} <= set(
            between
        )

    return chosen


def figure_8_until_c() -> Cluster:
    """Figure 8 (a) to (c): S1 leads again, and an entry of term 2 is on a majority."""
    names = ["n1", "n2", "n3", "n4", "n5"]
    limits = Limits(entries_per_message=1)
    cluster = Cluster(5, logs={name: [1] for name in names}, limits=limits)

    # "In (a) S1 is leader and partially replicates the log entry at index 2."
    cluster.elect("n1")
    cluster.deliver(replication("n1", "n2"))
    assert [cluster.log(name) for name in names] == [[1, 2], [1, 2], [1], [1], [1]]

    # "In (b) S1 crashes; S5 is elected leader for term 3 with votes from S3, S4, and itself, and
    # accepts a different entry at index 2."
    cluster.crash("n1")
    cluster.elect("n5")
    voted = [name for name in names[1:] if cluster.cores[name].status()["vote"] == "n5"]
    assert voted == ["n3", "n4", "n5"]
    cluster.lose()
    assert cluster.log("n5") == [1, 3]

    # "In (c) S5 crashes; S1 restarts, is elected leader, and continues replication. At this point,
    # the log entry from term 2 has been replicated on a majority of the servers, but it is not
    # committed."
    cluster.crash("n5")
    cluster.start("n1")
    cluster.elect("n1")
    assert cluster.cores["n1"].status()["term"] == 4
    cluster.deliver(replication("n1", "n2", "n3", upto=2))
    # n2 has had entry 2 since (a); to learn that, n1 has but to hear its answer to the no-op's
    # consistency check: a heartbeat is that without the no-op.
    cluster.network.clear()
    for _ in range(HEARTBEAT):
        cluster.cores["n1"].tick()
    cluster.deliver(
        lambda m: (
            {m.src, m.dst} in ({"n1", "n2"}, {"n1", "n3"})
            and not (isinstance(m, AppendEntries) and [e for e in m.entries if e.index > 2])
        )
    )
    cluster.network.clear()
    assert [cluster.log(name) for name in names[:4]] == [[1, 2, 4], [1, 2], [1, 2], [1]]
    peers = cluster.cores["n1"].status()["peers"]
    assert [peers[name]["match_index"] for name in ("n2", "n3")] == [2, 2]
    return cluster


def test_figure_8_a_majority_alone_does_not_commit() -> None:
    """Figure 8: "A time sequence showing why a leader cannot determine commitment using log entries
    from older terms." (a) to (c), then "If S1 crashes as in (d), S5 could be elected leader (with
    votes from S2, S3, and S4) and overwrite the entry with its own entry from term 3"."""
    cluster = figure_8_until_c()
    assert cluster.cores["n1"].status()["commit_index"] == 0
    assert cluster.committed["n1"] == []

    cluster.crash("n1")
    cluster.start("n5")
    cluster.elect("n5")
    voted = {name for name, core in cluster.cores.items() if core.status()["vote"] == "n5"}
    assert voted == {"n2", "n3", "n4", "n5"}
    cluster.deliver()
    cluster.start("n1")
    cluster.tick(2 * HEARTBEAT)

    assert all(cluster.log(name)[:2] == [1, 3] for name in cluster.names)
    assert all(2 not in [e.term for e in cluster.committed[name]] for name in cluster.names)


def test_figure_8_with_an_entry_of_its_own_term_it_is_committed() -> None:
    """Figure 8: "However, if S1 replicates an entry from its current term on a majority of the
    servers before crashing, as in (e), then this entry is committed (S5 cannot win an election). At
    this point all preceding entries in the log are committed as well." """
    cluster = figure_8_until_c()
    for _ in range(HEARTBEAT):
        cluster.cores["n1"].tick()
    cluster.cores["n1"].propose(b"in term 4")
    cluster.deliver(lambda m: {m.src, m.dst} in ({"n1", "n2"}, {"n1", "n3"}))
    assert [e.term for e in cluster.committed["n1"]] == [1, 2, 4, 4]

    cluster.crash("n1")
    cluster.network.clear()
    cluster.start("n5")
    cluster.ask_for_votes("n5")
    assert cluster.cores["n5"].status()["role"] != "leader"
    # Even a campaign without the pre-vote, which the paper does not have, is refused.
    term = cluster.cores["n2"].status()["term"] + 1
    for name in ("n2", "n3"):
        tick(cluster.cores[name], LONGEST_TIMEOUT)
        cluster.cores[name].ready()
        cluster.cores[name].step(RequestVote("n5", name, term, 2, 3))
        (answer,) = of(cluster.cores[name].ready(), RequestVoteResponse)
        assert not answer.vote_granted
    cluster.lose()
    cluster.elect("n3")
    cluster.deliver()
    cluster.start("n1")
    cluster.tick(2 * HEARTBEAT)

    for name in cluster.names:
        assert [e.term for e in cluster.committed[name]][:4] == [1, 2, 4, 4]
