"""The three rules that make a false suspicion harmless (`services/protocols/chain`).

Goal: each rule is needed, and kept. Method: chains in memory in which somebody who is well is taken
for failed; and what a server restarts from.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from services.protocols.chain import Chain, Limits
from services.protocols.chain.master import encode, unwrap
from services.protocols.chain.messages import (
    Acknowledge,
    Configuration,
    Forward,
    MasterEntry,
    MasterRecord,
    MasterSnapshot,
    Report,
)
from services.protocols.core import Busy, Entry, NotLeader, Snapshot
from services.protocols.raft.messages import HardState, InstallSnapshot
from tests.protocols.chain.helpers import ELECTION, HEARTBEAT, Group, granted, of, standing


def made(node: str = "n2", records: tuple[Any, ...] = (), size: int = 3) -> Chain:
    names = [f"n{i}" for i in range(1, size + 1)]
    peers = tuple(name for name in names if name != node)
    return Chain(node, peers, random=Random(0), records=records)


# ---- 1: one chain in an epoch -------------------------------------------------------------------


def test_the_first_chain_is_everybody() -> None:
    """In the order of their names; its epoch is its index in the master's log, behind a no-op."""
    group = standing(5)

    first = Configuration(2, ("n1", "n2", "n3", "n4", "n5"), ())
    assert all(config == first for config in group.chains().values())


def test_a_standing_chain_needs_no_master() -> None:
    """Nobody leads the master's Raft: updates go on while somebody is found who does."""
    group = standing(5)
    for core in group.cores.values():
        core.master.become_follower(core.master.term, None, "the leader has failed")
    group.propose("n1", "x")
    group.settle()

    assert group.applied["n1"] == ["x"]


def test_a_minority_decides_on_no_chain() -> None:
    """The two that are cut off go on as they were: without the others nothing is acknowledged."""
    group = standing(5)
    group.isolate("n1", "n2")
    group.propose("n1", "x")
    group.until(lambda: group.in_chain("n3", "n4", "n5"))
    group.run(3 * ELECTION)

    assert group.chain("n1") == group.names
    assert group.applied["n1"] == group.applied["n2"] == []


# ---- 2: epochs ----------------------------------------------------------------------------------


def test_a_message_of_another_epoch_is_ignored() -> None:
    """Of an earlier one, of a later one, and of who is not the predecessor."""
    records = (Configuration(5, ("n1", "n2", "n3"), ()),)
    for epoch, src in ((4, "n1"), (6, "n1"), (5, "n3")):
        core = made("n2", records)
        core.step(Forward(src, "n2", epoch, 0, 0, 0, [Entry(1, epoch, b"x")], 0))
        assert core.log.last_index == 0
    core = made("n2", records)
    core.step(Forward("n1", "n2", 5, 0, 0, 0, [Entry(1, 5, b"x")], 0))
    assert core.log.last_index == 1


def test_what_a_deposed_head_still_sends_changes_nothing() -> None:
    """Its updates are on their way when the next head gives their place to another."""
    group = standing()
    group.propose("n1", "old")
    late = of(group.take(), Forward)
    group.isolate("n1")
    group.until(lambda: group.in_chain("n2", "n3"))
    group.propose("n2", "new")
    group.settle()
    group.heal()
    group.deliver(late)

    assert group.log("n2") == group.log("n3") == group.applied["n3"] == ["new"]
    group.until(lambda: group.in_chain("n2", "n3", "n1"))
    assert group.log("n1") == ["new"]


def test_a_server_restarts_in_its_epoch() -> None:
    """It has promised: of the chain before, in which it was the tail, it acknowledges nothing."""
    group = standing()
    group.crash("n1")
    group.until(lambda: group.in_chain("n2", "n3"))
    group.crash("n3")
    group.start("n3")
    n3 = group.cores["n3"]

    assert (n3.epoch, n3.config.chain) == (group.cores["n2"].epoch, ("n2", "n3"))
    n3.step(Forward("n2", "n3", 2, 0, 0, 0, [Entry(1, 2, b"x")], 0))
    assert n3.log.last_index == 0


def test_a_restarted_server_reads_nothing_before_its_log_is_confirmed() -> None:
    """It had acknowledged y, and its predecessor says again what was true before that."""
    group = standing()
    group.propose("n1", "x")
    group.settle()
    late = Forward("n1", "n2", 2, 0, 1, 2, [], 1)  # a heartbeat of now, which comes twice
    group.propose("n1", "y")
    group.settle()
    assert group.applied["n1"] == ["x", "y"]
    group.crash("n2")
    group.start("n2")
    group.deliver([late])
    assert not granted(group.read("n2"))
    group.run(2 * HEARTBEAT)

    assert [(name, answer.index) for name, answer in group.reads] == [("n2", 2)]


def test_who_forgot_how_far_the_logs_agree_is_reminded() -> None:
    """It had said that it has x. When it is back, all that it can tell is that its log is another
    one from some epoch on, and x is of that epoch, too."""
    group = standing(limits=Limits(caught_up_entries=0))  # who is near joins, and is asked anew
    group.propose("n1", "x")
    group.settle()
    group.isolate("n1")
    group.propose("n1", "nobody else has this")
    group.until(lambda: group.in_chain("n2", "n3"))
    group.propose("n2", "y")
    group.settle()
    group.crash("n1")
    group.disks["n1"].append(group.cores["n3"].config)
    group.heal()
    group.cores["n3"].step(Acknowledge("n1", "n3", group.cores["n3"].epoch, True, 1, 1))
    group.carry_out("n3")
    group.take()  # y on its way to n1 is lost
    group.start("n1")
    group.until(lambda: group.in_chain("n2", "n3", "n1"))

    assert group.log("n1") == ["x", "y"]


def test_a_head_that_nobody_hears_takes_no_updates() -> None:
    """It can't know whether it still is the head; its clients are told at once to ask elsewhere."""
    group = standing()
    group.isolate("n1")
    group.run(2 * ELECTION)

    assert group.cores["n1"].status()["role"] == "cut_off"
    assert group.cores["n1"].status()["leader"] is None
    with pytest.raises(NotLeader) as refused:
        group.cores["n1"].propose(b"x")
    assert refused.value.leader is None


# ---- 3: survivors -------------------------------------------------------------------------------


def test_who_has_not_synced_is_no_survivor() -> None:
    """n1 is new in the chain, and the others fail before it has what they acknowledged: it must not
    go on without them, however long they are away."""
    group = standing()
    group.crash("n1")
    group.until(lambda: group.in_chain("n2", "n3"))
    group.start("n1")
    group.until(lambda: "n1" in group.cores["n2"].config.chain)
    joined = group.cores["n2"].config
    assert joined.joining == ("n1",)
    n2 = group.cores["n2"]
    n2.on_report(Report("n3", "n2", n2.epoch, "n3", "silent"))

    chain, joining = n2.next_chain()
    assert chain[0] == "n2"
    assert "n1" in joining


def test_without_a_survivor_there_is_no_chain() -> None:
    """Two are outside and have nothing; the three that have everything are gone, until one of them
    is back: then that one is the head, and the others have to take over what it has."""
    group = standing(5)
    group.crash("n4", "n5")
    group.until(lambda: group.in_chain("n1", "n2", "n3"))
    group.propose("n1", "x")
    group.settle()
    group.crash("n1", "n2", "n3")
    group.start("n4")
    group.start("n5")
    group.run(5 * ELECTION)
    group.start("n2")
    group.until(lambda: all(group.chain(name)[0] == "n2" for name in ("n2", "n4", "n5")))
    group.until(lambda: all(group.cores[name].synced for name in ("n2", "n4", "n5")))
    group.run(HEARTBEAT)

    assert [group.applied[name] for name in ("n2", "n4", "n5")] == [["x"]] * 3


def test_the_chain_is_never_shorter_than_a_majority() -> None:
    """Of three n3 was away and lacks much, and n2 fails: n3 is taken in at once, and what comes
    meanwhile is not acknowledged before it has everything."""
    group = standing(limits=Limits(caught_up_entries=0))
    group.crash("n3")
    group.until(lambda: group.in_chain("n1", "n2"))
    group.propose("n1", "a")
    group.settle()
    group.crash("n2")
    group.propose("n1", "b")
    group.start("n3")
    group.until(lambda: group.in_chain("n1", "n3"))
    group.run(HEARTBEAT)

    assert group.applied["n1"] == group.applied["n3"] == ["a", "b"]


def test_two_neighbours_that_do_not_hear_each_other_are_separated() -> None:
    """The master hears both. The head says that n2 is silent; behind n3 it is heard again."""
    group = standing()
    group.cores["n3"].master.campaign()
    group.carry_out("n3")
    group.cores["n3"].master.start_election(transfer=True)
    group.carry_out("n3")
    group.settle()
    assert group.cores["n1"].master.leader == "n3"
    group.cut |= {("n1", "n2"), ("n2", "n1")}
    group.until(lambda: group.in_chain("n1", "n3", "n2"))
    group.propose("n1", "x")
    group.settle()
    group.run(HEARTBEAT)

    assert [group.applied[name] for name in group.names] == [["x"]] * 3


# ---- records ------------------------------------------------------------------------------------


def test_a_snapshot_keeps_what_is_needed_beside_it() -> None:
    """Storage drops what came before: epoch, the master's term, vote and log, and later updates."""
    group = standing(limits=Limits(configurations=2))
    group.propose("n1", "a", "b")
    group.settle()
    group.cores["n1"].compact(1, b"a")
    group.carry_out("n1")
    before = group.cores["n1"]
    group.crash("n1")
    group.start("n1")
    after = group.cores["n1"]

    assert isinstance(group.disks["n1"][0], Snapshot)
    assert (after.config, after.log.last_index) == (before.config, 2)
    assert (after.master.term, after.master.vote) == (before.master.term, before.master.vote)
    assert after.master.log.last_index == before.master.log.last_index


def test_a_torn_write_of_the_masters_snapshot_costs_nothing() -> None:
    """It was written, what came behind it was not: all that it does not cover is still there."""
    kept: list[MasterRecord] = [HardState(3, "n1"), *(MasterEntry(i, 2, b"") for i in (1, 2, 3))]
    snapshot = MasterSnapshot(2, 2, b"state")

    assert unwrap([*kept, snapshot]) == [
        HardState(3, "n1"),
        Snapshot(2, 2, b"state"),
        Entry(3, 2, b""),
    ]
    # It came from another leader, whose log is another: nothing of this one's is of use.
    other = MasterSnapshot(3, 3, b"state")
    assert unwrap([*kept, other]) == [HardState(3, "n1"), Snapshot(3, 3, b"state")]


def test_the_masters_log_is_bounded() -> None:
    """However often the chain changes."""
    group = standing(limits=Limits(configurations=3))
    for _ in range(6):
        group.crash("n3")
        group.until(lambda: group.in_chain("n1", "n2"))
        group.start("n3")
        group.until(lambda: group.in_chain("n1", "n2", "n3"))

    for core in group.cores.values():
        log = core.master.log
        assert log.last_index > 12
        assert log.last_index - log.snapshot_index <= 4


@pytest.mark.parametrize("records", [(Entry(2, 1, b"x"),), (object(),)])
def test_impossible_records_are_refused(records: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"does not follow|not a record"):
        made(records=records)


def test_what_is_in_process_is_bounded() -> None:
    """Busy is definite: nothing was taken in."""
    group = Group(1, limits=Limits(uncommitted_bytes=4))
    group.until(lambda: group.in_chain("n1"))
    core = group.cores["n1"]
    core.propose(b"abcd")
    with pytest.raises(Busy):
        core.propose(b"e")
    group.carry_out("n1")
    core.propose(b"e")
    group.carry_out("n1")

    assert group.applied["n1"] == ["abcd", "e"]


def test_a_chain_that_came_in_a_snapshot_is_known_at_once() -> None:
    """Before `ready()` hands it over: a question may come in the same moment."""
    group = standing()
    n2 = group.cores["n2"]
    later = encode(Configuration(7, ("n1", "n3"), ()))
    n2.step(InstallSnapshot("n1", "n2", n2.master.term, 9, n2.master.term, 0, later, True))

    assert (n2.epoch, n2.newest_epoch()) == (2, 7)
    n2.ready()
    assert (n2.epoch, n2.in_chain) == (7, False)
