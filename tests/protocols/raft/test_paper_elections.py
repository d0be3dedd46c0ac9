"""The extended Raft paper on terms and elections: figure 2, §5.1, §5.2, §5.4.1, §5.6."""

from __future__ import annotations

from random import Random

import pytest

from services.protocols.core import NotLeader
from services.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    InstallSnapshotResponse,
    RequestPreVote,
    RequestPreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from tests.protocols.raft.helpers import (
    ELECTION,
    HEARTBEAT,
    LONGEST_TIMEOUT,
    Cluster,
    accept,
    answer_to_append,
    answer_to_vote,
    append_entries,
    campaign,
    chunk,
    elect,
    established,
    follower,
    leader,
    of,
    replayed,
    request_vote,
    tick,
    tick_until_campaign,
    vote_from,
)

# ---- State --------------------------------------------------------------------------------------


def test_the_first_boot() -> None:
    """Figure 2, State: "currentTerm … (initialized to 0 on first boot, increases monotonically)";
    "votedFor … (or null if none)"; §5.2: "When servers start up, they begin as followers." """
    status = replayed([]).status()

    assert (status["role"], status["term"], status["vote"]) == ("follower", 0, None)
    assert (status["commit_index"], status["applied_index"], status["last_index"]) == (0, 0, 0)


def test_a_vote_is_persisted_before_the_answer() -> None:
    """Figure 2, State: "Persistent state on all servers (Updated on stable storage before
    responding to RPCs)". A `Ready` is carried out in the order persist, messages."""
    core = follower()
    core.step(request_vote("n2", 1))
    ready = core.ready()

    assert ready.persist == [HardState(1, "n2")]
    assert of(ready, RequestVoteResponse) == [RequestVoteResponse("n1", "n2", 1, True)]


def test_the_vote_for_itself_is_persisted_before_others_are_asked() -> None:
    """Figure 2, State: "votedFor: candidateId that received vote in current term": a candidate
    that restarts must not vote for another in that term."""
    ready = campaign(follower())

    assert ready.persist == [HardState(1, "n1")]
    again = replayed(ready.persist)
    tick(again, ELECTION)
    assert not answer_to_vote(again, request_vote("n2", 1)).vote_granted


def test_the_term_never_goes_back() -> None:
    """Figure 2, State: currentTerm "increases monotonically"; §5.1: "If a server receives a
    request with a stale term number, it rejects the request." Whatever the stale message is."""
    core = follower([1], term=5, vote="n3")
    for message in (
        request_vote("n2", 4, (9, 4)),
        vote_from("n2", 4),
        append_entries("n2", 4, prev=(1, 1), new=[4], commit=2),
        chunk(b"x", term=4, last=(9, 4)),
        AppendEntriesResponse("n2", "n1", 4, True, 1, 0, 0, 0, 0),
        InstallSnapshotResponse("n2", "n1", 4, 1, 0, True),
        RequestPreVoteResponse("n2", "n1", 4, False),
    ):
        core.step(message)
        ready = core.ready()
        assert not ready.persist, message
        status = core.status()
        assert (status["term"], status["vote"], status["role"]) == (5, "n3", "follower"), message
        assert (status["last_index"], status["commit_index"]) == (1, 0), message
        assert all(answer.term == 5 for answer in ready.messages), message


# ---- RequestVote, receiver ----------------------------------------------------------------------


def test_request_vote_rule_1_an_old_term() -> None:
    """Figure 2, RequestVote RPC, receiver 1: "Reply false if term < currentTerm (§5.1)". The
    reply carries "currentTerm, for candidate to update itself"."""
    answer = answer_to_vote(follower(term=3), request_vote("n2", 2, (10, 2)))

    assert (answer.vote_granted, answer.term) == (False, 3)


@pytest.mark.parametrize(
    ("voted_for", "granted"), [(None, True), ("n2", True), ("n3", False), ("n1", False)]
)
def test_request_vote_rule_2_one_vote_in_a_term(voted_for: str | None, granted: bool) -> None:
    """Figure 2, RequestVote RPC, receiver 2: "If votedFor is null or candidateId, and candidate's
    log is at least as up-to-date as receiver's log, grant vote (§5.2, §5.4)"."""
    answer = answer_to_vote(follower(term=3, vote=voted_for), request_vote("n2", 3))

    assert answer.vote_granted is granted


def test_first_come_first_served() -> None:
    """§5.2: "Each server will vote for at most one candidate in a given term, on a
    first-come-first-served basis". The same candidate may ask again: its answer may be lost."""
    core = follower()

    assert answer_to_vote(core, request_vote("n3", 1)).vote_granted
    assert not answer_to_vote(core, request_vote("n2", 1)).vote_granted
    assert answer_to_vote(core, request_vote("n3", 1)).vote_granted
    assert answer_to_vote(core, request_vote("n2", 2)).vote_granted  # a new term, a new vote


UP_TO_DATE = [
    # voter's log, candidate's last (index, term), granted
    ([1, 2], (1, 3), True),  # a later term wins, however short the log
    ([1, 1, 1], (1, 2), True),
    ([1, 2], (9, 1), False),  # an earlier term loses, however long the log
    ([1, 2], (2, 2), True),  # equal
    ([1, 2], (3, 2), True),  # the same term, longer
    ([1, 2, 2], (2, 2), False),  # the same term, shorter
    ([], (0, 0), True),
    ([1], (0, 0), False),
]


@pytest.mark.parametrize(("log", "last", "granted"), UP_TO_DATE)
def test_up_to_date(log: list[int], last: tuple[int, int], granted: bool) -> None:
    """§5.4.1: "If the logs have last entries with different terms, then the log with the later
    term is more up-to-date. If the logs end with the same term, then whichever log is longer is
    more up-to-date." """
    answer = answer_to_vote(follower(log, term=3), request_vote("n2", 4, last))

    assert (answer.vote_granted, answer.term) == (granted, 4)


@pytest.mark.parametrize(("log", "last", "granted"), UP_TO_DATE)
def test_up_to_date_in_a_pre_vote(log: list[int], last: tuple[int, int], granted: bool) -> None:
    """Dissertation §9.6: voters say yes to a pre-vote only "if the candidate's log is sufficiently
    up-to-date": by the rule of §5.4.1."""
    core = follower(log, term=3)
    core.step(RequestPreVote("n2", "n1", 4, *last))
    (answer,) = of(core.ready(), RequestPreVoteResponse)

    assert answer.vote_granted is granted


def test_a_compacted_log_is_as_up_to_date_as_it_was() -> None:
    """§5.4.1 compares the last entries; §7: the snapshot's "last included index and term" stand
    for them once they are gone."""
    core = follower([1, 2, 2], committed=3)
    core.compact(3, b"state")
    tick(core, ELECTION)

    assert not answer_to_vote(core, request_vote("n3", 3, (2, 2))).vote_granted
    assert answer_to_vote(core, request_vote("n3", 3, (3, 2))).vote_granted


# ---- Rules for all servers: terms ---------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        request_vote("n2", 9),
        vote_from("n2", 9, granted=False),
        append_entries("n2", 9),
        AppendEntriesResponse("n2", "n1", 9, False, 0, 0, 0, 0, 0),
        chunk(b"x", term=9, last=(7, 8)),
        InstallSnapshotResponse("n2", "n1", 9, 1, 0, False),
        RequestPreVoteResponse("n2", "n1", 9, False),
    ],
    ids=lambda message: type(message).__name__,
)
@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_a_higher_term_converts_to_follower(role: str, message: object) -> None:
    """Figure 2, All Servers: "If RPC request or response contains term T > currentTerm: set
    currentTerm = T, convert to follower (§5.1)". (A leader that is well ignores a RequestVote,
    dissertation §4.2.3; that has tests of its own.)"""
    core = follower(term=1)
    if role == "candidate":
        campaign(core)
    elif role == "leader":
        elect(core)
    core.step(message)
    ready = core.ready()

    status = core.status()
    if role == "leader" and isinstance(message, RequestVote):
        assert (status["role"], status["term"]) == ("leader", 2)
        return
    assert (status["role"], status["term"]) == ("follower", 9)
    assert HardState(9, status["vote"]) in ready.persist


def test_a_refused_candidate_still_teaches_its_term() -> None:
    """§5.1: "if one server's current term is smaller than the other's, then it updates its current
    term to the larger value" — also where it refuses its vote."""
    core = follower([1, 2])
    answer = answer_to_vote(core, request_vote("n2", 7, (1, 1)))

    assert (answer.vote_granted, answer.term) == (False, 7)
    assert (core.status()["term"], core.status()["vote"]) == (7, None)


# ---- Followers ----------------------------------------------------------------------------------


def test_a_follower_issues_nothing_of_its_own() -> None:
    """§5.1: "Followers are passive: they issue no requests on their own but simply respond to
    requests from leaders and candidates." """
    core = follower(leader="n2")
    for _ in range(ELECTION - 1):
        core.tick()
        assert not core.ready()
    with pytest.raises(NotLeader) as refused:
        core.propose(b"x")
    assert refused.value.leader == "n2"


def test_a_follower_without_a_leader_becomes_candidate() -> None:
    """Figure 2, Followers: "If election timeout elapses without receiving AppendEntries RPC from
    current leader or granting vote to candidate: convert to candidate"."""
    core = follower(leader="n2")
    tick(core, LONGEST_TIMEOUT - 1)
    assert not core.ready()
    core.tick()

    assert [m.dst for m in of(core.ready(), RequestPreVote)] == ["n2", "n3"]
    assert (core.status()["role"], core.status()["leader"]) == ("candidate", None)


@pytest.mark.parametrize(
    ("message", "resets"),
    [
        (append_entries("n2", 2), True),
        (append_entries("n2", 2, prev=(9, 2)), True),  # refused, yet from the current leader
        (chunk(b"x", term=2, done=False), True),
        (request_vote("n3", 3, (1, 2)), True),  # granted
        (append_entries("n2", 1), False),  # of an old leader
        (request_vote("n3", 3, (1, 1)), False),  # refused: its log is behind
        (request_vote("n3", 1, (9, 1)), False),  # refused: its term is old
        (RequestPreVote("n3", "n1", 3, 9, 2), False),
    ],
)
def test_what_resets_the_election_timer(message: object, resets: bool) -> None:
    """Figure 2, Followers: "without receiving AppendEntries RPC from current leader or granting
    vote to candidate": these reset the timer, and nothing else does."""
    core = follower([2], term=2)
    left = LONGEST_TIMEOUT - ELECTION  # `follower` has used ELECTION ticks of its timeout
    tick(core, left - 1)
    core.step(message)
    core.ready()
    core.tick()

    assert bool(of(core.ready(), RequestPreVote)) is not resets


# ---- Candidates ---------------------------------------------------------------------------------


def test_starting_an_election() -> None:
    """Figure 2, Candidates: "On conversion to candidate, start election: Increment currentTerm.
    Vote for self. Reset election timer. Send RequestVote RPCs to all other servers"."""
    core = follower([1, 3, 3], size=5, term=4)
    ready = campaign(core)

    assert ready.persist == [HardState(5, "n1")]
    assert of(ready, RequestVote) == [
        RequestVote("n1", peer, 5, 3, 3) for peer in ("n2", "n3", "n4", "n5")
    ]
    tick(core, LONGEST_TIMEOUT - 1)
    assert not core.ready()  # the timer began anew
    core.tick()
    assert core.ready()


@pytest.mark.parametrize(
    ("size", "grants", "elected"),
    [(2, 0, False), (2, 1, True), (3, 0, False), (3, 1, True), (4, 1, False), (4, 2, True),
     (5, 1, False), (5, 2, True)],
)  # fmt: skip
def test_votes_of_a_majority(size: int, grants: int, elected: bool) -> None:
    """Figure 2, Candidates: "If votes received from majority of servers: become leader". Of all
    servers, its own vote included."""
    core = follower(size=size)
    campaign(core)
    for peer in core.peers[:grants]:
        core.step(vote_from(peer, 1))
        core.step(vote_from(peer, 1))  # a repeated answer is one vote

    assert (core.status()["role"] == "leader") is elected


def test_alone_it_is_a_majority() -> None:
    """§5.2: "A candidate wins an election if it receives votes from a majority of the servers in
    the full cluster": of one, it is that."""
    lonely = replayed([], size=1)
    tick(lonely, LONGEST_TIMEOUT)
    lonely.propose(b"x")

    assert [entry.command for entry in lonely.ready().committed] == [b"", b"x"]


def test_votes_of_another_term_do_not_count() -> None:
    """§5.2: votes "for the same term" elect. Late answers to an earlier campaign are none."""
    core = follower(size=5)
    campaign(core)
    campaign(core)
    assert core.status()["term"] == 2
    for peer in core.peers:
        core.step(vote_from(peer, 1))
    assert core.status()["role"] == "candidate"
    core.step(vote_from("n2", 2))
    core.step(vote_from("n3", 2))
    assert core.status()["role"] == "leader"


def test_refusals_of_a_majority_end_the_campaign() -> None:
    """§5.2: a candidate wins, or another server does, or nobody. With a majority against it, it
    cannot win any more; a refused vote is never counted as a grant."""
    core = follower(size=5)
    campaign(core)
    for peer in ("n2", "n3"):
        core.step(vote_from(peer, 1, granted=False))
    assert core.status()["role"] == "candidate"
    core.step(vote_from("n4", 1, granted=False))

    assert core.status()["role"] == "follower"
    core.step(vote_from("n2", 1))
    core.step(vote_from("n3", 1))
    assert core.status()["role"] == "follower"


@pytest.mark.parametrize("term", [1, 2])
def test_a_candidate_follows_a_legitimate_leader(term: int) -> None:
    """Figure 2, Candidates: "If AppendEntries RPC received from new leader: convert to follower";
    §5.2: "If the leader's term … is at least as large as the candidate's current term"."""
    core = follower()
    campaign(core)
    core.step(append_entries("n2", term))

    status = core.status()
    assert (status["role"], status["leader"], status["term"]) == ("follower", "n2", term)
    assert status["vote"] == ("n1" if term == 1 else None)


def test_a_candidate_goes_on_against_an_old_leader() -> None:
    """§5.2: "If the term in the RPC is smaller than the candidate's current term, then the
    candidate rejects the RPC and continues in candidate state." """
    core = follower(term=1)
    campaign(core)
    answer = answer_to_append(core, append_entries("n2", 1))

    assert (answer.success, answer.term) == (False, 2)
    assert core.status()["role"] == "candidate"


def test_a_candidate_times_out_and_starts_again() -> None:
    """Figure 2, Candidates: "If election timeout elapses: start new election"."""
    core = follower()
    campaign(core)
    again = campaign(core)  # through its pre-vote again

    assert again.persist == [HardState(2, "n1")]
    assert {m.term for m in of(again, RequestVote)} == {2}


# ---- Leaders: heartbeats ------------------------------------------------------------------------


def test_a_new_leader_speaks_at_once() -> None:
    """Figure 2, Leaders: "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each
    server"; §5.2: "to establish its authority and prevent new elections". (Not quite empty: they
    carry the no-op of §8.)"""
    ready = elect(follower([1, 1], size=5))

    assert [m.dst for m in of(ready, AppendEntries)] == ["n2", "n3", "n4", "n5"]
    assert {(m.prev_log_index, m.prev_log_term) for m in of(ready, AppendEntries)} == {(2, 1)}


def test_an_idle_leader_repeats_heartbeats() -> None:
    """Figure 2, Leaders: "repeat during idle periods to prevent election timeouts (§5.2)"."""
    core = established()
    for _ in range(5):
        for _ in range(HEARTBEAT - 1):
            core.tick()
            assert not core.ready()
        core.tick()
        beats = of(core.ready(), AppendEntries)
        assert [(m.dst, m.entries) for m in beats] == [("n2", []), ("n3", [])]
        accept(core, "n2")


def test_heartbeats_prevent_elections() -> None:
    """§5.2: "A server remains in follower state as long as it receives valid RPCs from a leader or
    candidate." """
    cluster = Cluster(5, random=lambda name: Random(f"7 {name}"))
    cluster.elect("n3")
    cluster.deliver()
    term = cluster.cores["n3"].status()["term"]
    cluster.tick(500)

    assert cluster.leaders() == ["n3"]
    assert {core.status()["term"] for core in cluster.cores.values()} == {term}


# ---- Election safety, split votes, randomised timeouts ------------------------------------------


def test_election_safety_two_candidates_of_one_term() -> None:
    """Figure 3, Election Safety: "at most one leader can be elected in a given term. §5.2".
    n1 and n2 both ask in term 1; n3 has one vote, whoever is heard first; repeats do no harm."""
    for first, second in (("n1", "n2"), ("n2", "n1")):
        cluster = Cluster(3)
        cluster.ask_for_votes("n1")
        asked = [m for m in cluster.network if isinstance(m, RequestVote)]
        cluster.network.clear()
        cluster.cores["n3"].ready()
        other = cluster.cores["n2"]
        tick_until_campaign(other)
        other.step(RequestPreVoteResponse("n3", "n2", 1, True))
        asked += of(other.ready(), RequestVote)
        assert {m.term for m in asked} == {1}
        cluster.network = sorted(asked, key=lambda m: m.src != first) + asked
        cluster.deliver()

        assert cluster.leaders() == [first], second
        assert cluster.cores[second].status()["leader"] == first


def test_a_split_vote_elects_nobody() -> None:
    """§5.2: "If many followers become candidates at the same time, votes could be split so that no
    candidate obtains a majority. When this happens, each candidate will time out and start a new
    election by incrementing its term". Four servers, two votes each."""
    cluster = Cluster(4)
    for core in cluster.cores.values():
        tick(core, LONGEST_TIMEOUT)  # all at once, as without randomness
    cluster.deliver()

    assert cluster.leaders() == []
    assert {core.status()["term"] for core in cluster.cores.values()} == {1}
    assert all(core.status()["vote"] == name for name, core in cluster.cores.items())
    cluster.tick(LONGEST_TIMEOUT)
    assert {core.status()["term"] for core in cluster.cores.values()} == {2}


def test_election_timeouts_are_random() -> None:
    """§5.2: "election timeouts are chosen randomly from a fixed interval (e.g., 150–300ms)". All of
    the interval from one to two timeouts is drawn from, and nothing outside it."""
    core = follower(random=Random(3), leader="n2")
    timeouts = set()
    for _ in range(400):
        core.step(append_entries("n2", 0))
        for ticks in range(1, 3 * ELECTION):
            core.tick()
            if of(core.ready(), RequestPreVote):
                timeouts.add(ticks)
                break

    assert timeouts == set(range(ELECTION, 2 * ELECTION))


def test_the_timeout_is_drawn_anew_at_each_election() -> None:
    """§5.2: "Each candidate restarts its randomized election timeout at the start of an election,
    and it waits for that timeout to elapse before starting the next election"."""
    core = follower(random=Random(5))
    waits = []
    for _ in range(12):
        before = core.ticks
        campaign(core)
        waits.append(core.ticks - before)

    assert len(set(waits)) > 3
    assert all(ELECTION <= wait < 2 * ELECTION for wait in waits[1:])


@pytest.mark.parametrize("size", [3, 4, 5])
def test_split_votes_are_resolved_quickly(size: int) -> None:
    """§5.2: "Raft uses randomized election timeouts to ensure that split votes are rare and that
    they are resolved quickly". From a cold start, 60 clusters, each within ten timeouts; §5.6:
    messages travel within a tick, much less than the timeout."""
    for seed in range(60):
        cluster = Cluster(size, random=lambda name, seed=seed: Random(f"{seed} {name}"))
        for _ in range(10 * ELECTION):
            cluster.tick()
            if cluster.leaders():
                break
        told = f"seed {seed}; pytest {__file__} -k split_votes_are_resolved"
        assert len(cluster.leaders()) == 1, told
        terms = [
            event.fields["term"] for _, event in cluster.events if event.name == "become_leader"
        ]
        assert len(terms) == len(set(terms)), told


def test_a_leader_crash_is_survived() -> None:
    """§5.6: "electionTimeout ≪ MTBF … When the leader crashes, the system will be unavailable for
    roughly the election timeout"."""
    cluster = Cluster(3, random=lambda name: Random(f"1 {name}"))
    cluster.tick(3 * LONGEST_TIMEOUT)
    (old,) = cluster.leaders()
    cluster.crash(old)
    cluster.tick(3 * LONGEST_TIMEOUT)

    (new,) = cluster.leaders()
    assert new != old


def test_one_leader_steps_back_for_the_next() -> None:
    """§5.1: "If a candidate or leader discovers that its term is out of date, it immediately
    reverts to follower state." A leader that was cut off, when it comes back."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.deliver()
    cluster.isolate("n1")
    cluster.elect("n2")
    cluster.deliver()
    cluster.heal()
    cluster.tick(HEARTBEAT)

    assert cluster.leaders() == ["n2"]
    assert cluster.cores["n1"].status()["leader"] == "n2"


def test_leading_is_not_doubted_by_late_votes() -> None:
    """§5.2: once elected, further answers of that election, yes or no, change nothing."""
    core = leader(size=5)
    core.step(vote_from("n5", 1, granted=False))
    core.step(vote_from("n5", 1))

    assert core.status()["role"] == "leader"
    assert not core.ready()
