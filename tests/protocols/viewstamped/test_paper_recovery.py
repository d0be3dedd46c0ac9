"""*Viewstamped Replication Revisited*, §4.3 recovery, its repair (Michael et al.), and founding."""

from __future__ import annotations

import pytest

from services.protocols.core import Snapshot
from services.protocols.viewstamped import Limits, Status, Viewstamped
from services.protocols.viewstamped.messages import (
    Commit,
    DoViewChange,
    Founding,
    Incarnation,
    Prepare,
    Recovery,
    RecoveryResponse,
    StartView,
    StartViewChange,
    ViewState,
)
from tests.protocols.viewstamped.helpers import (
    ELECTION,
    HEARTBEAT,
    Group,
    LongestTimeouts,
    entries,
    founded,
    of,
    replica,
)
from tests.simulation.zoo.viewstamped import EmptyMajorityFounds, NoCrashVector, WipedReplicaAnswers


def empty(node: str = "n3", size: int = 3) -> Viewstamped:
    peers = tuple(f"n{i}" for i in range(1, size + 1) if f"n{i}" != node)
    return Viewstamped(node, peers, random=LongestTimeouts(), nonce=500, election_ticks=ELECTION)


def response(
    src: str, nonce: int, life: int, view: int = 2, *, primary: bool = False, op_number: int = 0
) -> RecoveryResponse:
    op_view = 2 if op_number else 0
    return RecoveryResponse(src, "n3", nonce, life, view, 1, {}, primary, op_number, op_view, 0, {})


# ---- recovery -----------------------------------------------------------------------------------


def test_a_recovering_replica_asks_all_others() -> None:
    """§4.3: "The recovering replica, i, sends a ⟨RECOVERY i, x⟩ message to all other replicas,
    where x is a nonce." The name of the empty disk is on it before."""
    core = empty()
    ready = core.ready()

    assert core.status()["role"] == "recovering"
    assert ready.persist == [Incarnation(500)]
    assert [(m.dst, m.nonce, m.life) for m in of(ready, Recovery)] == [
        ("n1", 501, 0),
        ("n2", 501, 0),
    ]


def test_a_recovering_replica_does_not_take_part() -> None:
    """§4.3: "While a replica's status is recovering it does not participate in either the request
    processing protocol or the view change protocol"."""
    core = empty()
    core.ready()
    core.step(Prepare("n1", "n3", 2, 0, entries([2]), 0, 0))
    core.step(Commit("n1", "n3", 2, 0, 0, 1))
    core.step(StartView("n2", "n3", 3, 0, 0, 0))
    core.step(StartViewChange("n1", "n3", 2, 4, True))
    core.step(DoViewChange("n1", "n3", 4, 2, 0, 0, {}))
    assert not core.ready()

    for _ in range(5 * ELECTION):
        core.tick()
    assert {type(message) for message in core.ready().messages} == {Recovery}


def test_only_answers_to_its_own_nonce_count() -> None:
    """§4.3: "all containing the nonce it sent in its RECOVERY message": an answer to an earlier
    recovery may name a view that has been left since."""
    core = empty()
    core.ready()
    for src in ("n1", "n2"):
        core.step(response(src, 77, 0))
    assert not core.ready()

    for src in ("n1", "n2"):
        core.step(response(src, 501, 0))
    assert [(m.nonce, m.life) for m in of(core.ready(), Recovery)] == [(502, 1)] * 2


def test_the_primary_of_the_latest_view_must_answer() -> None:
    """§4.3: "including one from the primary of the latest view it learns of in these messages"."""
    core = empty(size=5)
    core.ready()
    for src in ("n1", "n2", "n4"):
        core.step(response(src, 501, 0))
    core.ready()
    core.step(response("n1", 502, 1, primary=True))  # of view 2
    core.step(response("n4", 502, 1))
    core.step(response("n5", 502, 1, view=3))  # whose primary is n2
    assert core.status_ is Status.RECOVERING
    core.step(response("n2", 502, 1, view=3, primary=True))

    assert (core.status_, core.view, core.lives) == (Status.NORMAL, 3, {"n3": 1})
    assert core.ready().persist == [ViewState(3, 3, {"n3": 1})]


def test_f_answers_are_too_few() -> None:
    """§4.3: "at least f + 1 RECOVERYRESPONSE messages from different replicas"."""
    core = empty(size=5)
    core.ready()
    for _ in range(3):
        core.step(response("n1", 501, 0, primary=True))
        core.step(response("n2", 501, 0))

    assert not core.ready()


def test_it_is_normal_when_it_has_the_whole_log() -> None:
    """§4.3: "Then it updates its state using the information from the primary, changes its status
    to normal, and the recovery protocol is complete." """
    group = founded(limits=Limits(entries_per_message=1))
    for number in range(4):
        group.propose("n1", f"w{number}")
        group.settle()
    group.crash("n3", wipe=True)
    group.start("n3")
    group.settle()

    assert group.cores["n3"].status_ is Status.NORMAL
    assert group.cores["n3"].log.last_index == 4
    group.run(HEARTBEAT)
    assert group.applied["n3"] == ["w0", "w1", "w2", "w3"]
    assert isinstance(group.disks["n3"][-1], ViewState)


def test_only_normal_replicas_answer() -> None:
    """§4.3: "A replica j replies to a RECOVERY message only when its status is normal." """
    changing = replica("n2", [2], view=3, normal=2)
    changing.step(Recovery("n3", "n2", 9, 0, 4))
    assert not changing.ready()

    normal = replica("n2", [2], view=2)
    normal.step(Recovery("n3", "n2", 9, 0, 4))
    [answer] = of(normal.ready(), RecoveryResponse)
    assert (answer.nonce, answer.view, answer.primary) == (9, 2, False)


def test_the_life_is_on_disk_before_the_answer() -> None:
    """Who forgot it in a crash would count a message from the life before."""
    normal = replica("n2", [2], view=2)
    normal.step(Recovery("n3", "n2", 9, 1, 4))
    ready = normal.ready()

    assert ready.persist == [ViewState(2, 2, {"n3": 1})]
    assert [m.life for m in of(ready, RecoveryResponse)] == [1]
    normal.step(Recovery("n3", "n2", 8, 1, 4))
    assert not normal.ready().persist, "again, and known"


@pytest.mark.parametrize("core", [Viewstamped, WipedReplicaAnswers])
def test_a_wiped_replica_is_no_witness(core: type[Viewstamped]) -> None:
    """n1 and n2 acknowledged x, n2 is wiped, n1 falls silent. n2 and n3, which never had x, must
    wait for n1 (the planted bug does not, and x is gone)."""
    group = founded(core=core) if core is Viewstamped else Group(core=core)
    group.run(2 * ELECTION)
    [leader] = group.primaries()
    never, wiped = (name for name in group.names if name != leader)
    group.isolate(never)
    group.propose(leader, "x")
    group.settle()
    assert group.applied[leader] == ["x"]
    group.heal()
    group.isolate(leader)
    group.crash(wiped, wipe=True)
    group.start(wiped)
    group.run(6 * ELECTION)
    if core is WipedReplicaAnswers:
        [other] = [name for name in group.primaries() if name != leader]
        assert group.cores[other].log.last_index == 0, "began without x"
        return
    assert not [name for name in group.primaries() if name != leader]
    group.heal()
    group.run(8 * ELECTION)
    assert set(map(tuple, group.applied.values())) == {("x",)}


def test_a_wiped_primary_recovers_from_its_successor() -> None:
    """Nobody but itself could answer for its view: the others have to leave that first."""
    group = founded()
    group.propose("n1", "x")
    group.settle()
    group.crash("n1", wipe=True)
    group.start("n1")
    group.settle()
    assert group.cores["n1"].status_ is Status.RECOVERING
    group.run(5 * ELECTION)

    assert group.primaries() in (["n2"], ["n3"])
    assert group.cores["n1"].status_ is Status.NORMAL
    assert group.applied["n1"] == ["x"]


def test_a_recovery_that_was_cut_short_begins_anew() -> None:
    """What it had fetched is on disk without a ViewState: it holds no promise, and is dropped."""
    group = founded(limits=Limits(entries_per_message=1))
    for number in range(4):
        group.propose("n1", f"w{number}")
        group.settle()
    group.crash("n3", wipe=True)
    group.start("n3")
    while group.cores["n3"].log.last_index < 2:
        group.arrive(group.take())
    group.crash("n3")
    group.start("n3")
    assert (group.cores["n3"].status_, group.cores["n3"].log.last_index) == (Status.RECOVERING, 0)
    group.run(4 * HEARTBEAT)

    assert group.applied["n3"] == ["w0", "w1", "w2", "w3"]
    group.crash("n3")
    group.start("n3")
    assert group.cores["n3"].log.last_index == 4


def test_each_recovery_is_a_life() -> None:
    """And everybody normal knows of it."""
    group = founded()
    for life in (1, 2, 3):
        group.crash("n3", wipe=True)
        group.start("n3")
        group.run(2 * HEARTBEAT)
        assert {core.lives["n3"] for core in group.cores.values()} == {life}


@pytest.mark.parametrize("core", [Viewstamped, NoCrashVector])
def test_promises_of_an_old_life_do_not_count(core: type[Viewstamped]) -> None:
    """Michael et al. 2017: n3 promises view 3, is wiped, recovers into view 2, from replicas that
    have not heard of view 3, and acknowledges x there. Then its old DOVIEWCHANGE arrives."""
    group = founded(core=core)
    group.cut = {("n1", "n3")}
    group.tick("n3", count=2 * ELECTION)
    group.cores["n3"].step(StartViewChange("n2", "n3", 2, 3, False))
    group.carry_out("n3")
    [slow, *_] = group.take(lambda message: isinstance(message, DoViewChange))
    group.take()
    group.heal()
    group.crash("n3", wipe=True)
    group.start("n3")
    group.run(2 * HEARTBEAT)
    assert (group.cores["n3"].status_, group.cores["n3"].view) == (Status.NORMAL, 2)

    group.propose("n1", "x")
    group.take(lambda message: message.dst == "n2")
    group.settle()
    assert group.applied["n1"] == ["x"]

    group.isolate("n1")
    group.take()
    group.tick("n2", "n3", count=2 * ELECTION)
    group.settle(lambda message: isinstance(message, StartViewChange))
    assert group.cores["n2"].view == 3
    group.arrive([slow])
    if core is NoCrashVector:
        assert group.cores["n2"].leading
        assert group.cores["n2"].log.last_index == 0, "view 3 has begun without x"
        return
    assert not group.cores["n2"].leading
    group.settle()
    assert group.cores["n2"].leading
    assert group.cores["n2"].log.last_index == 1


# ---- founding -----------------------------------------------------------------------------------


def test_a_group_begins_by_itself() -> None:
    """All disks are empty, twice over: all enter the founding view, and a quorum the next."""
    group = Group(5)
    group.settle()

    assert group.primaries() == ["n1"], "no time has passed"
    assert {core.view for core in group.cores.values()} == {2}
    assert any(isinstance(record, Founding) for record in group.disks["n4"])


def test_a_group_does_not_begin_without_all() -> None:
    """Who is missing may be the one that still has what a quorum acknowledged."""
    group = Group(3)
    group.isolate("n3")
    group.in_flight.clear()
    group.run(20 * ELECTION)
    assert set(group.statuses().values()) == {Status.RECOVERING}

    group.heal()
    group.run(4 * HEARTBEAT)
    assert group.primaries()


@pytest.mark.parametrize("core", [Viewstamped, EmptyMajorityFounds])
def test_an_empty_majority_proves_nothing(core: type[Viewstamped]) -> None:
    """n4 and n5 were never told of the group, n3 is wiped: three of five are empty, and x is
    acknowledged. (The planted bug begins again, without x.)"""
    group = Group(5)
    group.settle(lambda message: message.dst in ("n1", "n2", "n3") or not _tells(message))
    group.run(HEARTBEAT)
    for late in ("n4", "n5"):
        group.crash(late, wipe=True)  # as if it had never been told
    [leader] = group.primaries()
    group.propose(leader, "x")
    group.settle()
    assert group.applied[leader] == ["x"]
    group.isolate("n1")
    group.isolate("n2")
    group.crash("n3", wipe=True)
    group.make = core
    for name in ("n3", "n4", "n5"):
        group.start(name)
    group.run(10 * ELECTION)

    begun = {name for name in ("n3", "n4", "n5") if group.cores[name].view}
    assert begun == ({"n3", "n4", "n5"} if core is EmptyMajorityFounds else set())


def _tells(message: object) -> bool:
    return isinstance(message, RecoveryResponse) and bool(message.founding)


def test_who_was_not_told_joins_later() -> None:
    """The founding names its disk, so it was empty then and has promised nothing since."""
    group = Group(3)
    group.settle(lambda message: message.dst != "n3" or not isinstance(message, RecoveryResponse))
    group.take()
    assert group.cores["n3"].status_ is Status.RECOVERING
    group.crash("n3")
    group.start("n3")  # its disk keeps its name
    group.isolate("n1")
    group.run(4 * ELECTION)

    assert group.primaries() in (["n2"], ["n3"]), "with n2 alone there would be no quorum"


def test_all_wiped_begin_again() -> None:
    """Everything is lost, and visibly so: no other answer would be true."""
    group = founded()
    group.propose("n1", "x")
    group.settle()
    for name in group.names:
        group.crash(name, wipe=True)
    group.in_flight.clear()
    for name in group.names:
        group.start(name)
    group.run(HEARTBEAT)

    assert group.primaries() == ["n1"]
    assert set(map(tuple, group.applied.values())) == {()}


def test_more_than_f_wiped_stand_still() -> None:
    """They cannot know what was acknowledged; one that still knows is no quorum."""
    group = founded()
    group.propose("n1", "x")
    group.settle()
    for name in ("n2", "n3"):
        group.crash(name, wipe=True)
        group.start(name)
    group.run(20 * ELECTION)

    assert not group.primaries()


# ---- restart ------------------------------------------------------------------------------------


def test_any_prefix_of_the_records_can_be_restarted_from() -> None:
    """A torn write leaves a prefix. (A write that begins with a Snapshot is whole or not there.)"""
    group = founded(limits=Limits(kept_entries=0))
    for number in range(4):
        group.propose("n1", f"w{number}")
        group.settle()
    group.cores["n2"].compact(2, b"w0 w1")
    group.carry_out("n2")
    group.propose("n1", "w4")
    group.run(3 * ELECTION)
    records = group.disks["n2"]
    assert isinstance(records[0], Snapshot)
    first = next(i for i, record in enumerate(records) if isinstance(record, ViewState))
    for count in range(first + 1, len(records) + 1):
        core = Viewstamped(
            "n2", ("n1", "n3"), random=LongestTimeouts(), nonce=9, records=records[:count]
        )
        core.check_invariants()


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([Incarnation(1), ViewState(2, 2, {}), *entries([2], first=2)], "entry 2 does not follow"),
        ([Incarnation(1), ViewState(2, 2, {}), *entries([3])], "log of view 3 but view-number 2"),
        (["nonsense"], "not a record"),
    ],
)
def test_records_that_cannot_be_are_refused(records: list[object], error: str) -> None:
    """The driver turns it into one clear line; a replica that guessed would be worse."""
    with pytest.raises(ValueError, match=error):
        Viewstamped("n2", ("n1", "n3"), random=LongestTimeouts(), nonce=9, records=records)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"nonce": 0}, "a nonce"),
        ({"nonce": 1, "heartbeat_ticks": 11}, "heartbeat_ticks"),
        ({"nonce": 1, "lease_ticks": 20}, "lease_ticks"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(options: dict[str, int], error: str) -> None:
    """At once, by name."""
    with pytest.raises(ValueError, match=error):
        Viewstamped("n2", ("n1", "n3"), random=LongestTimeouts(), **options)
