"""*Viewstamped Replication Revisited*, §4.2 view changes, and the liveness the paper leaves out."""

from __future__ import annotations

import pytest

from services.protocols.viewstamped import Limits, Status
from services.protocols.viewstamped.messages import (
    Commit,
    DoViewChange,
    GetState,
    NewState,
    Prepare,
    PrepareOk,
    StartView,
    StartViewChange,
    Truncate,
    ViewState,
)
from tests.protocols.viewstamped.helpers import (
    ELECTION,
    HEARTBEAT,
    LONGEST_TIMEOUT,
    Group,
    entries,
    events,
    founded,
    of,
    replica,
)


def do_view_change(
    src: str, dst: str, view: int, normal: int, op_number: int, commit: int = 0
) -> DoViewChange:
    return DoViewChange(src, dst, view, normal, op_number, commit, {})


def test_the_primary_is_chosen_round_robin() -> None:
    """§4: "The primary is chosen round-robin, starting with replica 1, as the system moves to new
    views." """
    core = replica(size=3)

    assert [core.primary(view) for view in range(2, 8)] == ["n1", "n2", "n3"] * 2


def test_a_replica_notices_by_its_own_timer() -> None:
    """§4.2: "A replica notices the need for a view change either based on its own timer"; what it
    sends to all others is a suspicion here, and it has not moved."""
    backup = replica("n3")
    for _ in range(LONGEST_TIMEOUT):
        assert not backup.ready().messages
        backup.tick()
    ready = backup.ready()

    assert [(m.dst, m.view, m.target) for m in of(ready, StartViewChange)] == [
        ("n1", 2, 3),
        ("n2", 2, 3),
    ]
    assert (backup.view, backup.status_, ready.persist) == (2, Status.NORMAL, [])
    backup.step(Prepare("n1", "n3", 2, 0, entries([2]), 0, 0))
    assert of(backup.ready(), PrepareOk), "the primary is heard again, all goes on"
    assert not backup.suspects


def test_f_others_move_a_replica_that_suspects() -> None:
    """§4.2: "When replica i receives STARTVIEWCHANGE messages for its view-number from f other
    replicas, it sends a ⟨DOVIEWCHANGE v, l, v', n, k, i⟩ message to the node that will be the
    primary in the new view. Here v is its view-number, […] v' is the view number of the latest view
    in which its status was normal, n is the op-number, and k is the commit-number"."""
    backup = replica("n3", [2, 2])
    for _ in range(LONGEST_TIMEOUT):
        backup.tick()
    backup.ready()
    backup.step(StartViewChange("n2", "n3", 2, 3, False))
    ready = backup.ready()

    assert of(ready, DoViewChange) == [do_view_change("n3", "n2", 3, 2, 2)]
    assert ready.persist == [ViewState(3, 2, {})], "on disk before it is sent"
    assert ready.early == 0


def test_who_hears_its_primary_is_not_moved() -> None:
    """A departure: a lease stands on f backups that stay (§6.3)."""
    backup = replica("n3")
    for view, src in ((3, "n2"), (9, "n1"), (9, "n2")):
        backup.step(StartViewChange(src, "n3", 2, view, False))

    assert not backup.ready()
    assert backup.view == 2


def test_a_silent_election_timeout_is_enough_to_agree_with_another() -> None:
    """Else a view change would wait for the longest timeout of a quorum, and not the shortest."""
    backup = replica("n3")
    for _ in range(ELECTION - 1):
        backup.tick()
    backup.step(StartViewChange("n2", "n3", 2, 3, False))
    assert backup.view == 2
    backup.tick()
    backup.step(StartViewChange("n2", "n3", 2, 3, False))
    assert backup.view == 3


def test_a_moved_replica_answers_the_old_view_no_more() -> None:
    """Else an operation could commit there that the DOVIEWCHANGE already sent does not know."""
    moved = replica("n3", [2], view=3, normal=2)
    moved.step(Prepare("n1", "n3", 2, 1, entries([2], first=2), 0, 0))

    assert not of(moved.ready(), PrepareOk)
    assert moved.log.last_index == 1


@pytest.mark.parametrize(
    ("own", "others", "best"),
    [
        ((2, [2, 2]), {"n1": (2, 2)}, "n2"),  # equal: its own needs no transfer
        ((2, [2, 2]), {"n1": (2, 3)}, "n1"),  # "the one among them with the largest n"
        ((2, [2, 2, 2]), {"n3": (5, 1)}, "n3"),  # "the largest v'"
        ((5, [2, 5]), {"n3": (2, 9)}, "n2"),
    ],
)
def test_the_new_log(
    own: tuple[int, list[int]], others: dict[str, tuple[int, int]], best: str
) -> None:
    """§4.2: the new primary "selects as the new log the one contained in the message with the
    largest v'; if several messages have the same v' it selects the one among them with the largest
    n"."""
    primary = replica("n2", own[1], view=6, normal=own[0])
    for _ in range(2 * HEARTBEAT):
        primary.tick()
    for src, (normal, op_number) in others.items():
        primary.step(do_view_change(src, "n2", 6, normal, op_number))
    ready = primary.ready()

    if best == "n2":
        assert primary.leading
        assert {m.dst for m in of(ready, StartView)} == {"n1", "n3"}
    else:
        assert [m.dst for m in of(ready, GetState)] == [best]
        assert not primary.leading


def test_an_equally_long_log_is_not_the_same() -> None:
    """Found by the simulation: the log that was chosen had as many entries as one's own."""
    primary = replica("n2", [2, 2], view=6, normal=2)
    for _ in range(2 * HEARTBEAT):
        primary.tick()
    primary.step(do_view_change("n3", "n2", 6, 5, 2, 2))
    assert not primary.leading

    primary.ready()
    primary.step(NewState("n3", "n2", 6, False, 1, 2, [], 2, 2))
    primary.step(NewState("n3", "n2", 6, True, 1, 2, entries([5], first=2), 2, 2))
    assert primary.leading
    assert [entry.term for entry in primary.ready().committed] == [2, 5]


def test_a_quorum_of_do_view_change_begins_the_view() -> None:
    """§4.2: "When the new primary receives f + 1 DOVIEWCHANGE messages from different replicas
    (including itself)"; it "sets its commit-number to the largest such number it received"."""
    primary = replica("n2", [2, 2], view=3, normal=2, size=5)
    for _ in range(2 * HEARTBEAT):
        primary.tick()
    for _ in range(3):  # the same one again is not another one
        primary.step(do_view_change("n1", "n2", 3, 2, 1, 1))
    assert not primary.leading
    primary.step(do_view_change("n5", "n2", 3, 2, 2, 2))

    assert primary.leading
    assert primary.commit_number == 2
    assert primary.last_normal_view == 3


def test_backups_take_over_the_log() -> None:
    """§4.2: "they replace their log with the one in the message […]. If there are non-committed
    operations in the log, they send a ⟨PREPAREOK v, n, i⟩ message to the primary"."""
    backup = replica("n3", [2, 2, 2], view=3, normal=2)
    backup.step(StartView("n2", "n3", 3, 2, 2, 0))
    ready = backup.ready()

    assert ready.persist == [Truncate(2), ViewState(3, 3, {})]
    assert [(m.view, m.op_number) for m in of(ready, PrepareOk)] == [(3, 2)]
    assert "become_backup" in events(ready)


def test_nothing_is_thrown_away_before_its_replacement_is_known_to_differ() -> None:
    """§5.2 lets a replica drop all after its commit-number first. If it crashed then, with the
    new log not here yet, what it had acknowledged would be gone from the quorum that had it."""
    backup = replica("n3", [2, 2, 2], view=3, normal=2)
    backup.step(StartView("n2", "n3", 3, 4, 3, 0))
    ready = backup.ready()
    assert (backup.log.last_index, ready.persist) == (3, [])

    backup.step(NewState("n2", "n3", 3, True, 3, 2, entries([3], first=4), 4, 0))
    assert backup.ready().persist == [*entries([3], first=4), ViewState(3, 3, {})]


def test_logs_are_cut_where_they_part() -> None:
    """n3 has two operations of view 2 that nobody else has, and view 3 others in their place."""
    backup = replica("n3", [2, 2, 2], view=3, normal=2)
    backup.step(StartView("n2", "n3", 3, 3, 3, 0))
    [asked] = of(backup.ready(), GetState)
    assert (asked.op_number, asked.op_view) == (3, 2)
    backup.step(NewState("n2", "n3", 3, False, 1, 2, [], 3, 0))
    [asked] = of(backup.ready(), GetState)
    assert (asked.op_number, asked.op_view) == (1, 2)
    backup.step(NewState("n2", "n3", 3, True, 1, 2, entries([3, 3], first=2), 3, 0))

    assert [entry.term for entry in backup.log.between(0, 3)] == [2, 3, 3]
    assert backup.status_ is Status.NORMAL


def test_logs_that_met_before_a_checkpoint() -> None:
    """Found by the simulation: the only entry left that could be common was younger than asked."""
    source = founded(limits=Limits(kept_entries=0))
    for number in range(3):
        source.propose("n1", f"w{number}")
        source.settle()
    core = source.cores["n1"]
    core.compact(3, b"w0 w1 w2")
    core.ready()
    core.step(GetState("n3", "n1", 2, 3, 1, 0, 0))  # n3 has an entry of view 1 there

    assert "send_snapshot" in events(core.ready())


def test_what_was_prepared_by_a_quorum_survives() -> None:
    """§4.2: an operation is in the logs of f + 1 replicas when it commits, and one of these is
    among any f + 1 that change the view."""
    group = founded(5)
    group.propose("n1", "x")
    group.take(lambda message: message.dst in ("n2", "n3"))
    group.settle()
    assert group.applied["n1"] == ["x"]
    group.crash("n1")
    group.run(4 * ELECTION)

    assert group.primaries()
    assert {tuple(log) for name, log in group.applied.items() if name != "n1"} == {("x",)}


def test_an_unreachable_next_primary_is_skipped() -> None:
    """§4.2: if the next primary is down as well, the timer strikes again in the view change."""
    group = founded(5)
    group.crash("n1")
    group.crash("n2")
    group.run(8 * ELECTION)

    assert group.primaries() == ["n3"]
    group.propose("n3", "x")
    group.run(2 * HEARTBEAT)
    assert group.applied["n5"] == ["x"]


@pytest.mark.parametrize("deaf", ["n2", "n3"])
def test_a_replica_that_hears_nobody_deposes_nobody(deaf: str) -> None:
    """One-way deaf: it suspects for ever, in the same view, and the others do not mind."""
    group = founded(3)
    group.cut = {("n1", deaf), ("n2", deaf), ("n3", deaf)}
    for _ in range(20):
        group.run(ELECTION)
        assert group.primaries() == ["n1"]
    assert {core.view for core in group.cores.values()} == {2}


def test_a_primary_that_hears_nobody_resigns() -> None:
    """Its COMMITs arrive, so nobody suspects it; and nothing would ever commit."""
    group = founded(3)
    group.cut = {("n2", "n1"), ("n3", "n1")}
    group.run(ELECTION + 1)
    assert not group.cores["n1"].leading
    group.run(3 * ELECTION)

    assert group.primaries() in (["n2"], ["n3"])


def test_a_primary_that_resigns_need_not_be_waited_for() -> None:
    """STARTVIEWCHANGE from the primary of one's own view is as good as its silence."""
    group = founded(3)
    group.crash("n1")
    group.start("n1")
    group.settle()

    assert group.primaries() == ["n2"], "no time has passed"
    assert ("n1", "step_down") not in group.events, "it had not led in this life"


def test_a_restarted_primary_does_not_lead_its_view_again() -> None:
    """A PREPARE had left before it was on the primary's disk: op-number 1 of view 2 is taken."""
    restarted = replica("n1", [], view=2)
    assert restarted.resigned
    assert not restarted.leading

    restarted.step(StartViewChange("n2", "n1", 2, 3, False))
    assert restarted.view == 3


def test_the_view_number_survives_a_restart() -> None:
    """§4.2 with a disk: n3 promised view 3 its log, and must not help view 2 after a restart."""
    group = founded(3)
    group.isolate("n1")
    group.tick("n2", "n3", count=2 * ELECTION)
    group.settle(lambda message: isinstance(message, StartViewChange))
    assert group.cores["n3"].view == 3
    group.crash("n3")
    group.start("n3")

    assert group.cores["n3"].view == 3
    assert group.cores["n3"].status_ is Status.VIEW_CHANGE


def test_a_replica_that_moved_alone_is_met() -> None:
    """It moved by suspicions that came too late; it cannot come back, so the others come to it."""
    group = founded(3)
    group.isolate("n3")
    group.tick("n3", count=2 * ELECTION)
    group.cores["n3"].step(StartViewChange("n2", "n3", 2, 3, False))
    group.carry_out("n3")
    assert group.cores["n3"].view == 3
    group.heal()
    group.run(4 * ELECTION)

    assert {core.status_ for core in group.cores.values()} == {Status.NORMAL}
    assert group.cores["n3"].view > 2


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_all_stop_and_start_again(size: int) -> None:
    """A departure from the paper, which would lose everything here: disks."""
    group: Group = founded(size)
    group.propose("n1", "x")
    group.run(HEARTBEAT)
    for name in group.names:
        group.crash(name)
    for name in group.names:
        group.start(name)
    group.run(4 * ELECTION)

    [leader] = group.primaries()
    group.propose(leader, "y")
    group.run(HEARTBEAT)
    assert set(map(tuple, group.applied.values())) == {("x", "y")}


def test_a_commit_of_a_later_view_deposes() -> None:
    """The old primary comes back, hears the new one, and its uncommitted operation goes."""
    group = founded(3)
    group.isolate("n1")
    group.propose("n1", "lost")
    group.run(3 * ELECTION)
    [leader] = group.primaries()
    group.propose(leader, "kept")
    group.run(HEARTBEAT)
    group.heal()
    group.run(3 * ELECTION)

    assert set(map(tuple, group.applied.values())) == {("kept",)}
    assert any(name == "n1" and event == "truncate_log" for name, event in group.events)


def test_nothing_is_early_while_the_view_number_is_unwritten() -> None:
    """A primary that could forget to have led could lead the same view again."""
    primary = replica("n2", [2], view=3, normal=2)
    for _ in range(2 * HEARTBEAT):
        primary.tick()
    primary.step(do_view_change("n1", "n2", 3, 2, 1))
    primary.propose(b"x")
    ready = primary.ready()

    assert of(ready, Prepare)
    assert ready.early == 0
    primary.propose(b"y")
    assert primary.ready().early == 2


def test_unknown_and_misdirected_messages_are_ignored() -> None:
    """From no member, for somebody else, or of no kind of ours."""
    backup = replica("n3", [2])
    backup.step(Commit("n9", "n3", 7, 0, 0, 0))
    backup.step(Commit("n1", "n2", 7, 0, 0, 0))
    backup.step(ViewState(9, 9, {}))  # a record is no message
    backup.step(StartView("n1", "n3", 3, 1, 2, 0))  # view 3 is n2's to start

    assert not backup.ready()
