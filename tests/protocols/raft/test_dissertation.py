"""Ongaro's dissertation: pre-vote, check quorum, leases, transfer."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from services.protocols.core import Busy, NotLeader, ReadGrant
from services.protocols.raft import Raft
from services.protocols.raft.messages import (
    AppendEntries,
    HardState,
    RequestPreVote,
    RequestPreVoteResponse,
    RequestVote,
    TimeoutNow,
)
from tests.protocols.raft.helpers import (
    ELECTION,
    HEARTBEAT,
    Cluster,
    accept,
    answer_to_vote,
    append_entries,
    campaign,
    established,
    events,
    follower,
    leader,
    of,
    replayed,
    request_vote,
    tick,
    tick_until_campaign,
)

# ---- §9.6: pre-vote -----------------------------------------------------------------------------


def pre_vote(core: Raft, term: int, last: tuple[int, int] = (0, 0)) -> RequestPreVoteResponse:
    core.step(RequestPreVote("n3", "n1", term, *last))
    ready = core.ready()
    assert not ready.persist  # a pre-vote is a promise of nothing
    (answer,) = of(ready, RequestPreVoteResponse)
    return answer


def test_a_candidate_raises_its_term_only_with_a_majority_behind_it() -> None:
    """§9.6: "a candidate only increments its term if it first learns from a majority of the cluster
    that they would be willing to grant the candidate their votes"."""
    core = follower([1], size=5)
    ready = tick_until_campaign(core)
    assert not ready.persist
    assert of(ready, RequestPreVote) == [
        RequestPreVote("n1", peer, 2, 1, 1) for peer in ("n2", "n3", "n4", "n5")
    ]
    core.step(RequestPreVoteResponse("n2", "n1", 2, True))
    core.step(RequestPreVoteResponse("n2", "n1", 2, True))
    assert core.status()["term"] == 1
    core.step(RequestPreVoteResponse("n3", "n1", 2, True))
    ready = core.ready()

    assert ready.persist == [HardState(2, "n1")]
    assert len(of(ready, RequestVote)) == 4


def test_a_pre_vote_is_refused_while_a_leader_is_alive() -> None:
    """§9.6: they would grant it if "the voters have not received heartbeats from a valid leader for
    at least a baseline election timeout". Asking does not move the voter's term."""
    core = follower(term=1, leader="n2")
    tick(core, ELECTION - 1)
    answer = pre_vote(core, 2, (9, 1))
    assert (answer.vote_granted, answer.term) == (False, 1)
    core.tick()
    answer = pre_vote(core, 2, (9, 1))
    assert (answer.vote_granted, answer.term) == (True, 2)
    status = core.status()
    assert (status["term"], status["vote"], status["leader"]) == (1, None, "n2")


def test_a_leader_refuses_pre_votes() -> None:
    """§9.6: it is the valid leader."""
    core = established()

    assert not pre_vote(core, 5, (9, 4)).vote_granted
    assert core.status()["role"] == "leader"


def test_pre_votes_may_go_to_many() -> None:
    """§9.6: it asks whether they *would*: one granted neither uses the vote nor refuses another."""
    core = follower()
    assert pre_vote(core, 1).vote_granted
    assert answer_to_vote(core, request_vote("n2", 1)).vote_granted


def test_a_pre_vote_for_an_old_term_is_refused() -> None:
    """§9.6 with §5.1: the refusal carries the term, so that the asker catches up."""
    core = follower(term=5)
    answer = pre_vote(core, 5 - 1, (9, 4))

    assert (answer.vote_granted, answer.term) == (False, 5)


def test_a_late_pre_vote_answer_starts_nothing() -> None:
    """§9.6: the answer names the term asked for: one to an earlier question does not count, nor
    one that arrives when the question is settled."""
    core = follower([1])
    campaign(core)  # term 2
    tick_until_campaign(core)
    core.step(RequestPreVoteResponse("n2", "n1", 2, True))
    assert core.status()["term"] == 2
    core.step(append_entries("n2", 2))
    core.step(RequestPreVoteResponse("n3", "n1", 3, True))

    status = core.status()
    assert (status["role"], status["term"], status["leader"]) == ("follower", 2, "n2")


def test_a_partitioned_server_does_not_raise_its_term() -> None:
    """§9.6: "a server will not be able to increment its term while it's partitioned … When it
    rejoins, … the server will … not disrupt the cluster" (its leader stays, in the same term)."""
    cluster = Cluster(3, random=lambda name: Random(f"4 {name}"))
    cluster.elect("n1")
    cluster.deliver()
    cluster.isolate("n3")
    cluster.tick(20 * ELECTION)
    assert cluster.cores["n3"].status()["term"] == 1
    assert cluster.cores["n3"].status()["pre_vote"]
    cluster.heal()
    cluster.tick(5 * ELECTION)

    assert cluster.leaders() == ["n1"]
    assert {core.status()["term"] for core in cluster.cores.values()} == {1}


# ---- §4.2.3 and §6.2: who hears a leader, and a leader that is not heard ------------------------


def test_a_server_that_hears_a_leader_ignores_request_vote() -> None:
    """§4.2.3: "if a server receives a RequestVote request within the minimum election timeout of
    hearing from a current leader, it does not update its term or grant its vote"."""
    core = follower(term=1, leader="n2")
    tick(core, ELECTION - 1)
    core.step(request_vote("n3", 7, (9, 6)))
    assert not core.ready().messages
    assert (core.status()["term"], core.status()["vote"]) == (1, None)
    core.tick()

    assert answer_to_vote(core, request_vote("n3", 7, (9, 6))).vote_granted


def test_a_leader_steps_down_when_no_majority_answers() -> None:
    """§6.2: "a leader in Raft steps down if an election timeout elapses without a successful round
    of heartbeats to a majority of its cluster; this allows clients to retry their requests with
    another server"."""
    core = established(size=5)
    for _ in range(ELECTION - 1):
        core.tick()
        accept(core, "n2")  # one is not a majority of five
    assert core.status()["role"] == "leader"
    core.ready()
    core.tick()
    ready = core.ready()

    assert core.status()["role"] == "follower"
    assert "step_down" in events(ready)
    with pytest.raises(NotLeader):
        core.propose(b"x")
    assert core.status()["term"] == 1  # nobody has a higher one


def test_a_leader_with_a_majority_stays() -> None:
    """§6.2: with itself, two of five others are a majority; any answer in its term is one."""
    core = established(size=5)
    for _ in range(10 * ELECTION):
        core.tick()
        accept(core, "n2", "n5")
        core.ready()

    assert core.status()["role"] == "leader"


# ---- §6.4.1: lease reads ------------------------------------------------------------------------


def with_lease(**options: Any) -> Raft:
    """n1 leads; n2 answered the heartbeat round of this very tick."""
    core = established(**options)
    tick(core, HEARTBEAT)
    core.ready()
    accept(core, "n2")
    core.ready()
    return core


def test_a_lease_read_needs_no_round() -> None:
    """§6.4.1: "the leader would use the normal heartbeat mechanism to maintain a lease. Once the
    leader's heartbeats were acknowledged by a majority of the cluster, it would … reply to
    read-only queries without communication"."""
    core = with_lease()
    core.read(1, lease=True)
    ready = core.ready()

    assert ready.reads == [ReadGrant(1, 1)]
    assert not ready.messages


def test_a_lease_runs_from_the_sending_of_the_round() -> None:
    """§6.4.1, figure 6.3: the lease is extended to "start + electionTimeout / clock drift bound",
    where start is when the heartbeats were sent, not when they were answered."""
    core = established()
    tick(core, HEARTBEAT)
    (sent,) = of(core.ready(), AppendEntries, "n2")
    tick(core, HEARTBEAT - 1)
    accept(core, "n2", round=sent.round)
    lease_ticks = ELECTION * 3 // 4
    held = 0
    while core.status()["lease"]:
        core.tick()
        held += 1
    assert held == lease_ticks - (HEARTBEAT - 1)
    assert "lease_lost" in events(core.ready())
    core.read(1, lease=True)

    assert not core.ready().reads  # then by ReadIndex: a round goes out
    accept(core, "n2")
    assert core.ready().reads == [ReadGrant(1, 1)]


def test_no_lease_before_the_no_op_is_committed() -> None:
    """§6.4, step 1: "If the leader has not yet marked an entry from its current term committed, it
    waits until it has done so" — with a lease as well."""
    core = leader([1, 1])
    tick(core, HEARTBEAT)
    core.ready()
    accept(core, "n2", match=2)
    core.read(1, lease=True)

    assert not core.status()["lease"]
    assert not core.ready().reads


def test_no_lease_from_election_votes_alone() -> None:
    """§6.4.1: heartbeats make the lease. The acknowledgement of the no-op is of round 0, which was
    begun before any heartbeat."""
    core = established()
    core.read(1, lease=True)

    assert not core.ready().reads


def test_a_lease_of_five_needs_three() -> None:
    """§6.4.1: "acknowledged by a majority of the cluster"."""
    core = with_lease(size=5)
    assert not core.status()["lease"]
    accept(core, "n3")
    assert core.status()["lease"]


def test_the_lease_ends_before_another_can_be_elected() -> None:
    """§6.4.1: "a server … will not … vote" within an election timeout of hearing a leader: with all
    clocks alike nobody else leads while n1 holds its lease, though n1 is cut off."""
    cluster = Cluster(3, random=lambda name: Random(f"2 {name}"))
    cluster.elect("n1")
    cluster.deliver()
    cluster.tick(2 * HEARTBEAT)
    assert cluster.cores["n1"].status()["lease"]
    cluster.isolate("n1")
    for _ in range(5 * ELECTION):
        cluster.tick()
        if cluster.cores["n1"].status()["lease"]:
            assert cluster.leaders() == ["n1"]

    assert len(cluster.leaders()) == 1
    assert cluster.leaders() != ["n1"]


def test_a_restarted_server_keeps_the_promise_of_a_lease() -> None:
    """§6.4.1 stands on §4.2.3, which a crash would forget: a restarted server does not vote for
    its first election timeout. A server that was never up before has promised nothing."""
    again = replayed([HardState(1, None)])
    tick(again, ELECTION - 1)
    again.step(request_vote("n2", 2))
    assert not again.ready().messages
    again.tick()
    assert answer_to_vote(again, request_vote("n2", 2)).vote_granted
    assert answer_to_vote(replayed([]), request_vote("n2", 2)).vote_granted


# ---- §3.10: leadership transfer -----------------------------------------------------------------


def test_leadership_transfer() -> None:
    """§3.10: "1. The prior leader stops accepting new client requests. 2. The prior leader fully
    updates the target server's log to match its own … 3. The prior leader sends a TimeoutNow
    request to the target server. This request has the same effect as the target server's election
    timer firing: the target server starts a new election"."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.deliver()
    cluster.tick(HEARTBEAT)
    cluster.isolate("n2")
    cluster.cores["n1"].propose(b"x")
    cluster.deliver()
    cluster.cores["n1"].transfer_leadership("n2")
    cluster.deliver()
    assert not [m for m in cluster.sent if isinstance(m, TimeoutNow)]  # n2 lacks x
    cluster.heal()
    cluster.tick(2 * HEARTBEAT)

    assert cluster.leaders() == ["n2"]
    assert cluster.cores["n2"].status()["term"] == 2
    assert [e.command for e in cluster.applied["n2"]] == [b"x"]
    assert {core.status()["leader"] for core in cluster.cores.values()} == {"n2"}


def test_timeout_now_is_sent_when_the_logs_match() -> None:
    """§3.10, steps 2 and 3: not before the target has the last entry; then at once."""
    core = established()
    core.propose(b"x")
    core.ready()
    core.transfer_leadership("n3")
    assert not of(core.ready(), TimeoutNow)
    accept(core, "n2")
    assert not of(core.ready(), TimeoutNow)
    accept(core, "n3")
    assert of(core.ready(), TimeoutNow) == [TimeoutNow("n1", "n3", 1)]


def test_timeout_now_starts_an_election_at_once() -> None:
    """§3.10: the target "starts a new election (incrementing its term and becoming a candidate)":
    without the pre-vote, marked (§4.2.3) so that servers that hear the leader vote."""
    target = follower([1], leader="n2")
    target.step(TimeoutNow("n2", "n1", 1))
    ready = target.ready()
    assert ready.persist == [HardState(2, "n1")]
    assert [(m.term, m.transfer) for m in of(ready, RequestVote)] == [(2, True), (2, True)]

    voter = follower([1], leader="n2")
    assert answer_to_vote(voter, request_vote("n3", 2, (1, 1), transfer=True)).vote_granted
    behind = follower([1, 1], leader="n2")
    assert not answer_to_vote(behind, request_vote("n3", 2, (1, 1), transfer=True)).vote_granted


def test_an_old_timeout_now_is_ignored() -> None:
    """§3.10 with §5.1: of an earlier term, it is of a leadership that is over."""
    core = follower([1, 3], leader="n3")
    core.step(TimeoutNow("n2", "n1", 2))

    assert not core.ready()
    assert core.status()["term"] == 3


def test_proposals_are_refused_during_a_transfer() -> None:
    """§3.10, step 1: definite, nothing is appended, so that the target can catch up."""
    core = established()
    core.transfer_leadership("n2")
    core.ready()
    with pytest.raises(Busy):
        core.propose(b"x")
    with pytest.raises(Busy):
        core.transfer_leadership("n3")

    assert core.status()["last_index"] == 1
    assert not core.ready().persist


def test_a_transfer_is_aborted_after_an_election_timeout() -> None:
    """§3.10: "If leadership transfer does not complete after about an election timeout, the prior
    leader aborts the transfer and resumes accepting client requests." """
    core = established()
    core.transfer_leadership("n2")
    for _ in range(ELECTION - 1):
        core.tick()
        accept(core, "n3")
    with pytest.raises(Busy):
        core.propose(b"x")
    core.ready()
    core.tick()
    assert "transfer_abort" in events(core.ready())

    index, _ = core.propose(b"x")
    accept(core, "n3", match=index)
    assert [e.command for e in core.ready().committed] == [b"x"]


def test_a_transfer_gives_up_the_lease() -> None:
    """§6.4.1 and §3.10: the target may be elected while others hear this leader, at any time until
    the term ends: also after the transfer was given up."""
    core = with_lease()
    assert core.status()["lease"]
    core.transfer_leadership("n2")
    core.read(1, lease=True)
    assert not core.ready().reads
    for _ in range(2 * ELECTION):
        core.tick()
        core.ready()
        accept(core, "n2", "n3")
    assert core.status()["transfer_target"] is None
    assert not core.status()["lease"]


def test_transfers_that_cannot_be() -> None:
    """§3.10: only a leader transfers, to another member."""
    with pytest.raises(NotLeader):
        follower(leader="n2").transfer_leadership("n3")
    core = established()
    with pytest.raises(ValueError, match="n9"):
        core.transfer_leadership("n9")
    core.transfer_leadership("n1")
    assert core.status()["transfer_target"] is None
    assert not core.ready()
