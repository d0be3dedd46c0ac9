"""What each way of acknowledging promises, and what naive promotion does to the promise."""

from __future__ import annotations

from random import Random

import pytest

from services.protocols.core import Busy, NotLeader, ReadGrant, ReadRefusal
from services.protocols.primary_backup import PrimaryBackup
from tests.protocols.primary_backup.cluster import Cluster


def started(size: int = 3, **options: object) -> Cluster:
    cluster = Cluster(size, **options)  # type: ignore[arg-type]
    cluster.run(4)
    return cluster


def test_the_first_node_is_primary_of_epoch_1() -> None:
    """A new cluster needs no election: the first node in id order is primary of epoch 1."""
    cluster = started()

    assert cluster.primaries() == ["n1"]
    assert cluster.core("n1").status()["role"] == "primary"
    assert cluster.core("n3").status() | {"peers": {}} == {
        "role": "backup",
        "term": 1,
        "leader": "n1",
        "commit_index": 0,
        "last_index": 0,
        "acknowledgement": "asynchronous",
        "promotion": "none",
        "peers": {},
    }


@pytest.mark.parametrize("acknowledgement", ["asynchronous", "semi_synchronous", "synchronous"])
def test_all_nodes_get_all_writes_in_order(acknowledgement: str) -> None:
    """Within one epoch backups hold prefixes of the primary's log; in peace, all of it."""
    cluster = started(acknowledgement=acknowledgement)
    commands = cluster.write("n1", 2000)
    cluster.run(4)

    assert cluster.acknowledged == commands
    assert cluster.states() == [commands] * 3


def test_backups_refuse_writes_and_reads() -> None:
    """Definite, with a hint; and with none when the primary is silent."""
    cluster = started()
    with pytest.raises(NotLeader) as refused:
        cluster.core("n2").propose(b"x")
    assert refused.value.leader == "n1"

    cluster.crash("n1")
    cluster.run(12)
    with pytest.raises(NotLeader) as refused:
        cluster.core("n2").read(1)
    assert refused.value.leader is None


def test_asynchronous_failover_loses_exactly_the_unreplicated_suffix() -> None:
    """Acknowledged when durable on the primary alone: what was not shipped yet is gone."""
    cluster = started(acknowledgement="asynchronous", promotion="naive")
    shipped = cluster.write("n1", 3)
    cluster.run(3)
    cluster.partition("n1", "n2 n3")
    lost = cluster.write("n1", 2)
    assert cluster.acknowledged == shipped + lost

    cluster.crash("n1")
    cluster.run(12)
    assert cluster.primaries() == ["n2"]
    kept = cluster.write("n2", 1)
    cluster.heal()
    cluster.restart("n1")
    assert cluster.primaries() == ["n1", "n2"]  # until someone tells it
    cluster.run(4)

    assert cluster.states() == [shipped + kept] * 3
    assert cluster.told("discard_suffix", "n1") == [
        {"after_index": 3, "entries": 2, "acknowledged": 2, "exact": True}
    ]


def semi_synchronous_failover(has_the_write: str) -> tuple[Cluster, list[str]]:
    """n1 ships one write to one backup only, acknowledges it and is cut off; n2 is promoted."""
    cluster = started(acknowledgement="semi_synchronous", promotion="naive")
    other = {"n2": "n3", "n3": "n2"}[has_the_write]
    cluster.partition(f"n1 {has_the_write}", other)
    commands = cluster.write("n1", 1)
    assert cluster.acknowledged == []  # not by the primary alone
    cluster.settle()
    assert cluster.acknowledged == commands
    cluster.partition("n1", "n2 n3")
    cluster.run(14)
    assert cluster.primaries() == ["n1", "n2"]
    cluster.heal()
    cluster.run(4)
    assert cluster.primaries() == ["n2"]
    return cluster, commands


def test_semi_synchronous_loses_nothing_when_the_backup_that_has_it_is_promoted() -> None:
    """The primary and one backup have every acknowledged write."""
    cluster, commands = semi_synchronous_failover(has_the_write="n2")

    assert cluster.states() == [commands] * 3
    assert cluster.told("discard_suffix") == []


def test_semi_synchronous_loses_it_when_the_other_one_is_promoted() -> None:
    """The lowest id is promoted, not the longest log: the promise needed a quorum to keep it."""
    cluster, commands = semi_synchronous_failover(has_the_write="n3")

    assert commands == cluster.acknowledged
    assert cluster.states() == [[]] * 3
    assert [f["acknowledged"] for f in cluster.told("discard_suffix", "n1")] == [1]


def test_synchronous_blocks_when_a_backup_is_gone() -> None:
    """All backups must have it: one is gone and nothing is acknowledged until it is back."""
    cluster = started(acknowledgement="synchronous")
    cluster.crash("n3")
    commands = cluster.write("n1", 2)
    cluster.run(50)
    assert cluster.acknowledged == []

    cluster.restart("n3")
    cluster.run(4)
    assert cluster.acknowledged == commands
    assert cluster.states() == [commands] * 3


def test_no_promotion_waits_for_the_primary() -> None:
    """promotion="none": backups tell that they miss heartbeats, once, and stay backups."""
    cluster = started(promotion="none")
    cluster.crash("n1")
    cluster.run(200)

    assert cluster.primaries() == []
    assert cluster.told("miss_heartbeats") == [{"primary": "n1", "epoch": 1}] * 2
    cluster.restart("n1")
    assert cluster.primaries() == ["n1"]


def test_naive_promotion_in_a_partition_gives_two_primaries() -> None:
    """Split brain: 2/3, both sides acknowledge; healed, the old primary's suffix is discarded."""
    cluster = started(5, promotion="naive")
    before = cluster.write("n1", 2)
    cluster.run(3)
    cluster.partition("n1 n2", "n3 n4 n5")
    cluster.run(15)
    assert cluster.primaries() == ["n1", "n3"]

    lost = cluster.write("n1", 4)
    kept = cluster.write("n3", 3)
    cluster.run(4)
    assert cluster.acknowledged == before + lost + kept
    assert cluster.nodes["n2"].state == before + lost  # applied, and yet to be taken back
    cluster.heal()
    cluster.run(4)

    assert cluster.primaries() == ["n3"]
    assert cluster.states() == [before + kept] * 5
    told = {"after_index": 2, "entries": 4, "acknowledged": 4, "exact": True}
    assert cluster.told("discard_suffix", "n1") == [told]
    assert cluster.told("discard_suffix", "n2") == [told]
    assert cluster.told("become_backup", "n1") == [{"epoch": 3, "primary": "n3"}]


def test_the_isolated_primary_goes_on_with_reads_from_the_past() -> None:
    """read() needs no round trip: the old primary answers while the new one has moved on."""
    cluster = started(3, promotion="naive")
    cluster.partition("n1", "n2 n3")
    cluster.run(15)
    cluster.write("n2", 1)
    cluster.core("n1").read(7)
    cluster.collect()

    assert cluster.nodes["n1"].reads == [ReadGrant(7, 0)]
    assert cluster.nodes["n2"].applied_index == 1


def test_two_at_once_take_different_epochs() -> None:
    """A tie is impossible: the numbers are dealt out by id. All follow the higher epoch."""
    cluster = started(3, promotion="naive")
    cluster.partition("n1", "n2", "n3")
    cluster.run(15)

    assert cluster.primaries() == ["n1", "n2", "n3"]
    assert [cluster.core(n).epoch for n in ("n1", "n2", "n3")] == [1, 2, 3]
    cluster.heal()
    cluster.run(4)
    assert cluster.primaries() == ["n3"]


def test_a_fresh_cluster_waits_for_its_first_primary_to_start() -> None:
    """Processes do not come up at once: a backup that is first does not take over at once."""
    cluster = Cluster(3, promotion="naive")
    cluster.crash("n1")
    cluster.in_flight.clear()
    cluster.run(45)
    assert cluster.primaries() == []
    cluster.run(10)
    assert cluster.primaries() == ["n2"]


def test_reads_after_a_restart_wait_for_what_was_acknowledged() -> None:
    """A restarted primary does not know what it had acknowledged; its read must not miss it."""
    cluster = started(acknowledgement="semi_synchronous")
    commands = cluster.write("n1", 3)
    cluster.settle()
    assert cluster.acknowledged == commands

    cluster.restart("n1")
    cluster.core("n1").read(1)
    cluster.collect()
    assert cluster.nodes["n1"].reads == []
    cluster.run(4)
    assert cluster.nodes["n1"].reads == [ReadGrant(1, 3)]


def test_waiting_reads_are_refused_when_it_steps_down() -> None:
    """A read never waits for an index that now means something else."""
    cluster = started(acknowledgement="semi_synchronous", promotion="naive")
    cluster.partition("n1", "n2 n3")
    cluster.write("n1", 1)
    cluster.restart("n1")
    cluster.core("n1").read(1)
    cluster.run(15)
    cluster.heal()
    cluster.run(4)

    assert cluster.nodes["n1"].reads == [ReadRefusal(1, "n2")]


def test_a_primary_without_its_disk_empties_its_backups() -> None:
    """Redis warns of it: the primary restarts empty, and the backups make themselves equal."""
    cluster = started()
    old = cluster.write("n1", 5)
    cluster.run(3)
    cluster.restart("n1", wipe=True)
    new = cluster.write("n1", 1)  # (1, epoch 1) again, for another command
    cluster.run(6)

    assert cluster.acknowledged == old + new
    assert cluster.states() == [new] * 3
    assert cluster.told("lose_log", "n1") == [{"epoch": 1, "last_index": 1}]
    assert sum(f["acknowledged"] for f in cluster.told("discard_suffix", "n2")) == 5


def test_too_many_unacknowledged_writes_are_refused() -> None:
    """Everything is bounded: Busy is definite, and ends with the next acknowledgement."""
    cluster = started(acknowledgement="synchronous", uncommitted_max=3)
    cluster.partition("n1", "n2 n3")
    cluster.write("n1", 3)
    with pytest.raises(Busy):
        cluster.core("n1").propose(b"x")

    cluster.heal()
    cluster.run(20)
    cluster.write("n1", 1)


def test_impossible_settings_are_refused() -> None:
    """Names are checked where they come in."""
    for wrong, message in (
        ({"acknowledgement": "some"}, "acknowledgement 'some'"),
        ({"promotion": "quorum"}, "promotion 'quorum'"),
        ({"heartbeat_ticks": 20}, "heartbeats every 20"),
    ):
        with pytest.raises(ValueError, match=message):
            PrimaryBackup("n1", ("n2",), random=Random(0), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a backup"):
        PrimaryBackup("n1", (), random=Random(0), acknowledgement="semi_synchronous")
