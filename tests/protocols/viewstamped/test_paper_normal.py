"""*Viewstamped Replication Revisited*, §4.1 normal operation, §5.2 state transfer, §6.3 reads."""

from __future__ import annotations

import pytest

from services.protocols.core import Busy, Entry, NotLeader
from services.protocols.viewstamped import Limits
from services.protocols.viewstamped.messages import (
    Commit,
    GetState,
    NewState,
    Prepare,
    PrepareOk,
)
from tests.protocols.viewstamped.helpers import (
    ELECTION,
    HEARTBEAT,
    entries,
    founded,
    of,
    replica,
)


def test_a_request_is_prepared() -> None:
    """§4.1: "The primary advances op-number, adds the request to the end of the log […]. Then it
    sends a ⟨PREPARE v, m, n, k⟩ message to the other replicas"."""
    group = founded()
    core = group.cores["n1"]

    assert core.propose(b"x") == (1, 2)
    ready = core.ready()

    assert ready.persist == [Entry(1, 2, b"x")]
    assert [(m.dst, m.view, m.op_number, m.entries) for m in of(ready, Prepare)] == [
        ("n2", 2, 0, [Entry(1, 2, b"x")]),
        ("n3", 2, 0, [Entry(1, 2, b"x")]),
    ]
    assert ready.early == 2, "it asks the others to write, and promises nothing itself"
    assert not ready.committed


def test_requests_share_a_message() -> None:
    """§6.2, batching: the protocol runs once for a bunch of requests."""
    core = founded().cores["n1"]
    for number in range(5):
        core.propose(b"%d" % number)

    assert [len(m.entries) for m in of(core.ready(), Prepare)] == [5, 5]


def test_a_backup_waits_for_all_earlier_requests() -> None:
    """§4.1: "a backup won't accept a prepare with op-number n until it has entries for all earlier
    requests in its log […] (doing state transfer if necessary to get the missing information)"."""
    backup = replica(views=[2])
    backup.step(Prepare("n1", "n2", 2, 2, entries([2], first=3), 0, 0))
    ready = backup.ready()

    assert backup.log.last_index == 1
    assert [(m.dst, m.op_number) for m in of(ready, PrepareOk)] == [("n1", 1)]
    assert [(m.dst, m.op_number, m.op_view) for m in of(ready, GetState)] == [("n1", 1, 2)]

    backup.step(NewState("n1", "n2", 2, True, 1, 2, entries([2, 2], first=2), 3, 0))
    assert [m.op_number for m in of(backup.ready(), PrepareOk)] == [3]


def test_prepare_ok_says_that_all_earlier_ones_are_durable_too() -> None:
    """§4.1: "sends a ⟨PREPAREOK v, n, i⟩ message to the primary to indicate that this operation and
    all earlier ones have prepared locally"; here: are in the same Ready's `persist`."""
    backup = replica()
    for number in (1, 2, 3):
        backup.step(Prepare("n1", "n2", 2, number - 1, entries([2], first=number), 0, 0))
    ready = backup.ready()

    assert ready.persist == entries([2, 2, 2])
    assert [m.op_number for m in of(ready, PrepareOk)] == [3]
    assert ready.early == 0


@pytest.mark.parametrize(("size", "needed"), [(3, 1), (4, 2), (5, 2)])
def test_f_backups_commit(size: int, needed: int) -> None:
    """§4.1: "The primary waits for f PREPAREOK messages from different backups; at this point it
    considers the operation (and all earlier ones) to be committed."""
    core = founded(size).cores["n1"]
    core.propose(b"x")
    core.propose(b"y")
    core.ready()
    for number in range(needed):
        assert core.commit_number == 0
        for _ in range(2):  # the same one twice is still one
            core.step(PrepareOk(f"n{number + 2}", "n1", 2, 2, 0))

    assert core.commit_number == 2
    assert [entry.command for entry in core.ready().committed] == [b"x", b"y"]


def test_the_commit_number_comes_with_the_next_message() -> None:
    """§4.1: "Normally the primary informs backups about the commit when it sends the next PREPARE
    message […]. However, if the primary does not receive a new client request in a timely way, it
    instead informs the backups of the latest commit by sending them a ⟨COMMIT v, k⟩ message"."""
    group = founded()
    group.propose("n1", "x")
    group.settle()
    assert group.applied == {"n1": ["x"], "n2": [], "n3": []}

    group.propose("n1", "y")
    group.settle()
    assert group.applied["n2"] == ["x"]

    group.tick("n1", count=HEARTBEAT)
    assert {type(message) for message in group.in_flight} == {Commit}
    group.settle()
    assert group.applied["n2"] == group.applied["n3"] == ["x", "y"]


def test_messages_of_earlier_views_are_dropped() -> None:
    """§4: "Replicas only process normal protocol messages containing a view-number that matches the
    view-number they know. If the sender is behind, the receiver drops the message."""
    backup = replica("n3", [2], view=3)
    backup.step(Prepare("n1", "n3", 2, 1, entries([2], first=2), 1, 0))
    backup.step(Commit("n1", "n3", 2, 2, 1, 1))

    assert not backup.ready()
    assert (backup.log.last_index, backup.commit_number) == (1, 0)


def test_a_later_view_is_entered_by_state_transfer() -> None:
    """§4: "If the sender is ahead, the replica performs a state transfer: it requests information
    it is missing from the other replicas and uses this information to bring itself up to date
    before processing the message."""
    backup = replica("n3", [2])
    backup.step(Commit("n2", "n3", 3, 1, 1, 1))
    ready = backup.ready()

    assert backup.status()["role"] == "view_change"
    assert [(m.dst, m.view, m.op_number) for m in of(ready, GetState)] == [("n2", 3, 1)]
    assert not of(ready, PrepareOk)


def test_a_lost_last_prepare_is_noticed() -> None:
    """A departure: COMMIT carries the op-number, for no PREPARE follows that would show the gap."""
    group = founded()
    group.propose("n1", "x")
    group.take(lambda message: message.dst == "n3")
    group.settle()
    group.run(HEARTBEAT)

    assert group.applied["n3"] == ["x"]


def test_what_the_network_repeats_does_no_harm() -> None:
    """Every message arrives three times, in any order; each operation is executed once."""
    group = founded()
    for number in range(20):
        group.propose("n1", f"{number}")
        group.arrive(list(reversed(group.take() * 3)))
    group.run(3 * HEARTBEAT)

    assert group.applied["n3"] == [f"{number}" for number in range(20)]


def test_an_answer_that_brings_nothing_new_is_not_answered() -> None:
    """Where the network repeats messages, one question would become a storm of them."""
    backup = replica(views=[2])
    backup.step(Commit("n1", "n2", 2, 9, 0, 0))
    assert len(of(backup.ready(), GetState)) == 1
    for _ in range(10):  # the primary has restarted, and has less than it once had sent
        backup.step(NewState("n1", "n2", 2, True, 1, 2, [], 1, 0))

    assert not of(backup.ready(), GetState)


def test_a_checkpoint_replaces_what_is_gone() -> None:
    """§5.1, §5.2: who has a checkpoint keeps no log before it; the application state comes instead,
    in pieces."""
    group = founded(limits=Limits(kept_entries=0, snapshot_chunk_bytes=3))
    group.isolate("n3")
    for number in range(5):
        group.propose("n1", f"w{number}")
        group.settle()
    group.cores["n1"].compact(5, " ".join(group.applied["n1"]).encode())
    group.carry_out("n1")
    group.heal()
    group.run(6 * HEARTBEAT)

    assert ("n3", "install_snapshot") in group.events
    assert group.applied["n3"] == [f"w{number}" for number in range(5)]
    assert group.cores["n3"].log.last_index == 5


def test_pieces_of_a_checkpoint_that_came_by_itself_are_not_asked_for() -> None:
    """Found by the simulation: the entries arrived late, the pieces were asked for ever after."""
    group = founded(limits=Limits(kept_entries=0, snapshot_chunk_bytes=3))
    for number in range(3):
        group.propose("n1", f"w{number}")
    late = group.take(lambda message: message.dst == "n3")
    group.settle()
    group.cores["n1"].compact(3, b"w0 w1 w2")
    group.tick("n1", count=HEARTBEAT)
    for _ in range(4):  # COMMIT, GETSTATE, a first piece, and the question for the second
        group.arrive(group.take())
    group.arrive(late)
    group.propose("n1", "w3")
    group.take(lambda message: isinstance(message, Prepare) and message.dst == "n3")
    group.run(6 * HEARTBEAT)

    assert group.applied["n3"] == ["w0", "w1", "w2", "w3"]


def test_a_retry_takes_another_op_number() -> None:
    """§4's client table is the state machine's here (`sessions.py`): the core proposes a repeated
    request again, and `apply` answers it from the table."""
    group = founded()
    group.propose("n1", "key7:x+=1", "key7:x+=1")
    group.settle()

    assert group.applied["n1"] == ["key7:x+=1", "key7:x+=1"]


def test_who_does_not_lead_refuses() -> None:
    """Requests are the primary's to take (§4.1); the others name it."""
    group = founded(limits=Limits(uncommitted_bytes=4))
    with pytest.raises(NotLeader) as refused:
        group.cores["n2"].propose(b"x")
    assert refused.value.leader == "n1"

    group.cores["n1"].propose(b"1234")
    with pytest.raises(Busy):
        group.cores["n1"].propose(b"5")


# ---- reads (§6.3) -------------------------------------------------------------------------------


def test_a_read_waits_for_a_quorum() -> None:
    """A COMMIT round that begins after the read was asked for, answered by f backups."""
    group = founded()
    assert group.read("n1")

    group.isolate("n1")
    assert not group.read("n1")


def test_a_deposed_primary_reads_nothing() -> None:
    """§6.3: a primary on the wrong side of a partition does not know of the later view."""
    group = founded()
    group.isolate("n1")
    group.run(3 * ELECTION)
    assert [name for name in group.primaries() if name != "n1"]

    with pytest.raises(NotLeader):
        group.cores["n1"].read(7, lease=True)


def test_a_lease_needs_no_round_trip() -> None:
    """§6.3: the primary "processes reads unilaterally only if it holds valid leases from f other
    replicas"."""
    group = founded()
    group.run(HEARTBEAT)
    assert group.cores["n1"].has_lease()
    group.isolate("n1")
    assert group.read("n1", lease=True)

    group.tick("n1", count=ELECTION * 3 // 4)
    assert not group.cores["n1"].has_lease()


def test_a_lease_is_over_before_a_new_view_can_start() -> None:
    """§6.3: "a new view will start only after leases at f + 1 participants in the previous view
    expire"."""
    group = founded()
    group.run(HEARTBEAT)
    group.isolate("n1")
    while not group.primaries()[1:] and group.cores["n1"].leading:
        group.run(1)
        assert not (group.cores["n1"].has_lease() and len(group.primaries()) > 1)


def test_a_new_primary_reads_nothing_until_its_log_is_committed() -> None:
    """The old primary may have answered for operations that the new one only holds."""
    group = founded()
    group.propose("n1", "x")
    group.take(lambda message: message.dst == "n3")
    group.settle()
    assert group.applied["n1"] == ["x"]
    group.isolate("n1")
    group.tick("n2", "n3", count=2 * ELECTION)
    group.settle(lambda message: not isinstance(message, PrepareOk))
    [leader] = [name for name in group.primaries() if name != "n1"]
    core = group.cores[leader]
    assert (core.log.last_index, core.commit_number) == (1, 0)

    core.read(7)
    group.carry_out(leader)
    assert not group.reads
    group.settle()
    assert [answer.index for _, answer in group.reads] == [1]
