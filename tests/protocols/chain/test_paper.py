"""Chain replication by the sentences of the paper, §3, and of CRAQ.

Goal: a reader of the paper finds here what became of it. Method: whole chains in memory, messages
delivered by hand where their order matters.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from services.protocols.chain import Limits
from services.protocols.chain.messages import Acknowledge, Confirm, Forward
from services.protocols.core import Busy, NotLeader, ReadRefusal
from tests.protocols.chain.helpers import ELECTION, Group, granted, is_masters, of, standing


def hist(group: Group, *names: str) -> list[list[str]]:
    return [group.log(name) for name in names]


def test_an_update_enters_at_the_head() -> None:
    """§3: "Each update request is directed to the head of the chain." (Others say who that is.)"""
    group = standing()
    for name in ("n2", "n3"):
        with pytest.raises(NotLeader) as refused:
            group.cores[name].propose(b"x")
        assert refused.value.leader == "n1"

    assert group.cores["n1"].propose(b"x") == (1, 2)


def test_state_changes_are_forwarded_until_the_tail_has_them() -> None:
    """§3: "state changes are forwarded along a reliable FIFO link to the next element of the chain
    (where it is handled and forwarded), and so on until the request is handled by the tail"."""
    group = standing(4)
    group.propose("n1", "x")
    hops = []
    while forwards := of(group.take(), Forward):
        hops += [(message.src, message.dst) for message in forwards if message.entries]
        group.deliver(forwards)

    assert hops == [("n1", "n2"), ("n2", "n3"), ("n3", "n4")]


def test_update_propagation_invariant() -> None:
    """§3: for i ≤ j, Hist_j is a prefix of Hist_i, whenever one of three updates has moved on."""
    group = standing(4)
    group.propose("n1", "a")
    for command in ("b", "c", ""):
        logs = hist(group, *group.names)
        for before, after in pairwise(logs):
            assert before[: len(after)] == after
        group.deliver(group.take())
        if command:
            group.propose("n1", command)

    assert hist(group, *group.names) == [["a", "b", "c"], ["a", "b", "c"], ["a", "b"], ["a"]]


def test_nothing_is_acknowledged_before_the_tail_has_it() -> None:
    """§3: "The reply for every request is generated and sent by the tail"; here the reply is the
    head's, and comes with the tail's acknowledgement, which all servers pass back."""
    group = standing(4)
    group.propose("n1", "x")
    for _ in range(3):
        assert not any(group.applied.values())
        group.deliver(group.take())
    assert group.applied == {"n1": [], "n2": [], "n3": [], "n4": ["x"]}
    acknowledged = []
    while taken := of(group.take(), Acknowledge):
        acknowledged += [(message.src, message.dst, message.stable) for message in taken]
        group.deliver(taken)

    assert acknowledged == [("n4", "n3", 1), ("n3", "n2", 1), ("n2", "n1", 1)]
    assert group.applied["n1"] == ["x"]


def test_a_write_takes_two_messages_a_hop() -> None:
    """Forward and acknowledgement: 2(n - 1), however many updates go at once."""
    for size in (2, 3, 5):
        group = standing(size)
        group.propose("n1", "a", "b", "c")
        sent = 0
        while taken := group.take():
            sent += len(taken)
            group.deliver(taken)
        assert group.applied["n1"] == ["a", "b", "c"]
        assert sent == 2 * (size - 1)


def test_failure_of_the_head() -> None:
    """§3: its successor becomes the new head; requests that only the failed head had are lost, and
    nobody was told that they were done."""
    group = standing()
    group.propose("n1", "a")
    group.settle()
    group.propose("n1", "lost")
    group.take()
    group.crash("n1")
    group.until(lambda: group.in_chain("n2", "n3"))
    group.propose("n2", "b")
    group.settle()

    assert group.applied["n3"] == group.applied["n2"] == ["a", "b"]


def test_failure_of_the_tail() -> None:
    """§3: its predecessor becomes the new tail; what that has and the old tail had not, is
    acknowledged thereby."""
    group = standing()
    group.isolate("n3")
    group.propose("n1", "x")
    group.settle()
    assert group.applied["n1"] == group.applied["n2"] == []
    group.until(lambda: group.in_chain("n1", "n2"))
    group.settle()

    assert group.applied["n1"] == group.applied["n2"] == ["x"]


def test_failure_of_another_server() -> None:
    """§3, Inprocess Requests Invariant: what a server has forwarded to one that fails it can still
    send to the next; "Sent_i" is what is not known to be at the successor."""
    group = standing(4)
    group.propose("n1", "a", "b")
    group.deliver(group.take())
    group.crash("n3")
    group.until(lambda: group.in_chain("n1", "n2", "n4"))
    group.settle()

    assert [group.applied[name] for name in ("n1", "n2", "n4")] == [["a", "b"]] * 3


def test_as_many_as_a_majority_leaves_can_fail_one_after_the_other() -> None:
    """§3: as long as one server is left the paper goes on. Here a majority has to be: it decides on
    chains, and has all that is acknowledged."""
    group = standing(5)
    left = list(group.names)
    for name in ("n1", "n5"):
        group.crash(name)
        left.remove(name)
        group.until(lambda: group.in_chain(*left))
        group.propose(left[0], name)
        group.settle()
        assert group.applied[left[-1]][-1] == name
    group.crash("n2")
    group.run(5 * ELECTION)

    assert group.chain("n3") == ("n2", "n3", "n4")


def test_a_server_joins_as_the_tail() -> None:
    """§3, extending a chain: a server is added behind the tail, once it has what that has."""
    group = standing()
    group.crash("n1")
    group.until(lambda: group.in_chain("n2", "n3"))
    group.propose("n2", "a", "b")
    group.settle()
    group.start("n1")
    group.until(lambda: group.in_chain("n2", "n3", "n1"))

    assert group.log("n1") == ["a", "b"]
    group.until(lambda: group.cores["n1"].config.joining == ())


def test_it_is_sent_the_state_where_the_log_is_gone() -> None:
    """§3, extending a chain: the state is forwarded to the new server; here in chunks."""
    group = standing(limits=Limits(kept_entries=0, snapshot_chunk_bytes=2))
    group.crash("n3")
    group.until(lambda: group.in_chain("n1", "n2"))
    group.propose("n1", "a", "b", "c")
    group.settle()
    for name in ("n1", "n2"):
        group.cores[name].compact(2, b"a b")
        group.carry_out(name)
    group.start("n3")
    group.until(lambda: group.in_chain("n1", "n2", "n3"))
    group.run(3)

    assert group.applied["n3"] == ["a", "b", "c"]
    assert ("n3", "install_snapshot") in group.events
    group.crash("n3")
    group.start("n3")
    assert (group.applied["n3"], group.log("n3")) == (["a", "b"], ["c"])


def test_a_retry_at_the_new_head_is_ordered_again() -> None:
    """§3: a client may not know whether a request was done, and sends it again. That both are the
    same is for the state machine to see: its table has the same rows on every server."""
    group = standing()
    group.propose("n1", "k7:x+=1")
    group.settle()
    group.crash("n1")
    group.until(lambda: group.in_chain("n2", "n3"))
    group.propose("n2", "k7:x+=1")
    group.settle()

    assert group.applied["n2"] == group.applied["n3"] == ["k7:x+=1", "k7:x+=1"]


# ---- reads --------------------------------------------------------------------------------------


def test_any_member_answers_reads() -> None:
    """CRAQ §2.3: reads are apportioned over the chain; a clean server answers by itself (and here,
    with a majority's word that there is no later chain)."""
    group = standing()
    group.propose("n1", "x")
    group.settle()
    for name in group.names:
        (answer,) = group.read(name)
        assert granted([answer])
        assert answer.index == 1


def test_a_dirty_server_waits_until_it_is_clean() -> None:
    """CRAQ §2.3: a server that has updates which the tail may not have can't tell by itself."""
    group = standing()
    group.propose("n1", "x")
    forwards = of(group.take(), Forward)
    assert not granted(group.read("n1"))
    group.deliver(forwards)
    group.settle()

    assert [(name, answer.index) for name, answer in group.reads] == [("n1", 1)]


def test_a_tail_that_was_excluded_answers_no_read() -> None:
    """§3: "Each query request is directed to the tail of the chain and processed there". One that
    is cut off from the chain, and not from its clients, must not."""
    group = standing()
    group.isolate("n3")
    group.until(lambda: group.in_chain("n1", "n2"))
    group.propose("n1", "x")
    group.settle()
    assert group.cores["n3"].role == "tail"
    assert not granted(group.read("n3"))
    group.heal()
    group.until(lambda: group.chain("n3") != group.names)

    assert [type(answer) for _, answer in group.reads] == [ReadRefusal]


def test_a_server_that_knows_of_a_later_chain_does_not_confirm() -> None:
    """Also when it only has it in the master's log, and does not know yet that it is decided."""
    group = standing()
    group.cut |= {("n1", "n3"), ("n3", "n1")}
    n2 = group.cores["n2"]
    group.until(lambda: n2.newest_epoch() > n2.epoch or n2.epoch > 2)
    group.take()
    n2.step(Confirm("n3", "n2", 2, 1))
    group.carry_out("n2")

    assert group.take(lambda message: not is_masters(message) and message.dst == "n3") == []


def test_one_round_of_questions_serves_all_reads_that_wait() -> None:
    """As many reads as come while one is under way; and they are bounded."""
    group = standing(limits=Limits(waiting_reads=3))
    n3 = group.cores["n3"]
    n3.read(1)
    group.carry_out("n3")
    n3.read(2)
    n3.read(3)
    with pytest.raises(Busy):
        n3.read(4)
    group.carry_out("n3")
    assert len(of(group.in_flight, Confirm)) == 2
    group.settle()

    assert [answer.read_id for _, answer in group.reads] == [1, 2, 3]
