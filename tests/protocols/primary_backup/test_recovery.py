"""Restarts, snapshots, and a network that loses, repeats, delays and reorders."""

from __future__ import annotations

import os
from random import Random

import msgspec
import pytest

from services.protocols.core import Entry, Snapshot
from services.protocols.primary_backup import (
    MESSAGES,
    RECORDS,
    Acknowledge,
    HardState,
    Heartbeat,
    InstallSnapshot,
    PrimaryBackup,
    Replicate,
    Truncate,
)
from services.protocols.primary_backup.log import chain
from tests.protocols.primary_backup.cluster import Cluster


def test_everything_acknowledged_survives_a_restart_of_all() -> None:
    """Records are persisted before messages and replies: power off, power on, all is there."""
    cluster = Cluster(3)
    commands = cluster.write("n1", 10)
    cluster.run(4)
    for name in cluster.nodes:
        cluster.restart(name)
    cluster.run(4)

    assert cluster.states() == [commands] * 3


def test_the_epoch_survives_a_restart() -> None:
    """A promoted primary that forgot its epoch would make the same (index, epoch) twice."""
    cluster = Cluster(3, promotion="naive")
    cluster.crash("n1")
    cluster.run(60)
    cluster.restart("n2")
    cluster.restart("n3")

    assert cluster.primaries() == ["n2"]
    assert [cluster.core(n).epoch for n in ("n2", "n3")] == [2, 2]


def test_compaction_bounds_records_and_survives_a_restart() -> None:
    """A Snapshot record resets storage; what follows it in the same list is all that is needed."""
    cluster = Cluster(3, catch_up_entries=0)
    commands = cluster.write("n1", 10)
    cluster.run(4)
    cluster.nodes["n1"].compact()
    commands += cluster.write("n1", 2)
    assert [type(r) for r in cluster.nodes["n1"].records] == [Snapshot, HardState, Entry, Entry]

    cluster.restart("n1")
    assert cluster.nodes["n1"].state == commands
    cluster.run(4)
    assert cluster.states() == [commands] * 3


def test_a_backup_far_behind_gets_the_snapshot() -> None:
    """What it needs is compacted: it installs the primary's snapshot and goes on from there."""
    cluster = Cluster(3, catch_up_entries=0)
    cluster.run(2)
    cluster.crash("n3")
    commands = cluster.write("n1", 10)
    cluster.run(4)
    cluster.nodes["n1"].compact()
    commands += cluster.write("n1", 2)
    cluster.restart("n3")
    cluster.run(6)

    assert cluster.told("install_snapshot", "n3") == [{"last_index": 10}]
    assert cluster.states() == [commands] * 3
    cluster.restart("n3")
    cluster.run(4)
    assert cluster.nodes["n3"].state == commands


def test_a_backup_a_little_behind_needs_no_snapshot() -> None:
    """`catch_up_entries` below the snapshot stay in memory for it."""
    cluster = Cluster(3, catch_up_entries=5)
    cluster.run(2)
    cluster.partition("n1 n2", "n3")
    commands = cluster.write("n1", 4)
    cluster.settle()
    cluster.nodes["n1"].compact()
    cluster.heal()
    cluster.run(16)

    assert cluster.told("install_snapshot") == []
    assert cluster.states() == [commands] * 3


def test_histories_that_part_before_the_snapshot_start_from_nothing() -> None:
    """The old primary compacted what the new one never had: its snapshot is of no use."""
    cluster = Cluster(3, promotion="naive", catch_up_entries=0)
    before = cluster.write("n1", 2)
    cluster.run(4)
    cluster.partition("n1", "n2 n3")
    cluster.write("n1", 5)
    cluster.nodes["n1"].compact()
    cluster.run(15)
    kept = cluster.write("n2", 1)
    cluster.heal()
    cluster.run(6)

    assert cluster.states() == [before + kept] * 3
    (told,) = cluster.told("discard_suffix", "n1")
    assert not told["exact"]
    cluster.restart("n1")
    cluster.run(4)
    assert cluster.nodes["n1"].state == before + kept


def test_the_state_machine_is_rebuilt_from_the_snapshot() -> None:
    """Discarded entries were applied: restore the last snapshot, then deliver what is kept."""
    cluster = Cluster(3, promotion="naive")
    before = cluster.write("n1", 4)
    cluster.run(4)
    cluster.nodes["n1"].compact()
    before += cluster.write("n1", 2)
    cluster.run(4)
    cluster.partition("n1", "n2 n3")
    cluster.write("n1", 3)
    cluster.run(15)
    cluster.heal()
    cluster.run(4)

    assert cluster.told("install_snapshot") == []
    assert cluster.states() == [before] * 3
    assert Truncate(6) in cluster.nodes["n1"].records


def test_an_overtaken_message_discards_nothing() -> None:
    """A heartbeat sent before two writes arrives after them: what it does not know of stays."""
    cluster = Cluster(2, acknowledgement="synchronous")
    cluster.run(4)
    for _ in range(2):
        cluster.core("n1").tick()
    cluster.collect()
    (late,) = [m for m in cluster.in_flight if m.dst == "n2"]
    cluster.in_flight.clear()
    commands = cluster.write("n1", 2)
    cluster.settle()
    cluster.core("n2").step(late)
    cluster.settle()

    assert cluster.acknowledged == commands
    assert cluster.core("n2").history.log.last_index == 2


def test_a_late_snapshot_discards_nothing() -> None:
    """It was sent twice, and the second copy arrives when the backup has compacted beyond it."""
    cluster = Cluster(2, acknowledgement="synchronous", catch_up_entries=0)
    cluster.run(2)
    commands = cluster.write("n1", 3)
    cluster.run(2)
    cluster.nodes["n1"].compact()
    cluster.restart("n2", wipe=True)
    snapshot = None
    for _ in range(60):
        if cluster.in_flight:
            if isinstance(cluster.in_flight[0], InstallSnapshot):
                snapshot = cluster.in_flight[0]
            cluster.deliver()
        else:
            cluster.core("n1").tick()
            cluster.collect()
    assert snapshot is not None
    commands += cluster.write("n1", 2)
    cluster.run(4)
    cluster.nodes["n2"].compact()
    cluster.core("n2").step(snapshot)
    cluster.run(4)

    assert cluster.acknowledged == commands
    assert cluster.states() == [commands] * 2
    assert cluster.told("discard_suffix") == []


def test_a_backup_applies_only_what_it_compared() -> None:
    """The primary's commit_index may lie beyond what this message proves to be the same."""
    core = PrimaryBackup(
        "n3",
        ("n1", "n2"),
        random=Random(0),
        records=[HardState(1, 0), Entry(1, 1, b"a"), Entry(2, 1, b"of n1 alone")],
    )
    digest = chain(0, [Entry(1, 1, b"a")])[-1]
    core.step(Replicate("n2", "n3", 2, 1, digest, [], last_index=2, commit_index=2))

    assert [entry.command for entry in core.ready().committed] == [b"a"]


def test_acknowledgements_of_an_older_epoch_do_not_count() -> None:
    """They speak of another log: n2 had acknowledged index 1 to n1 when n1 was primary before."""
    core = PrimaryBackup(
        "n1",
        ("n2", "n3"),
        random=Random(0),
        records=[HardState(4, 0)],  # 1 and 4 are n1's epochs
        acknowledgement="semi_synchronous",
    )
    core.propose(b"x")
    core.step(Acknowledge("n2", "n1", 1, True, 1, 0, 1, 1))
    assert core.ready().committed == []
    core.step(Acknowledge("n2", "n1", 4, True, 1, 0, 1, 4))
    assert [entry.command for entry in core.ready().committed] == [b"x"]


def test_strangers_and_messages_for_others_are_ignored() -> None:
    """What the network can do is no bug: nothing changes, nothing is answered."""
    cluster = Cluster(2)
    cluster.run(2)
    core = cluster.core("n2")
    core.step(Heartbeat("n9", "n2", 9))
    core.step(Heartbeat("n1", "n1", 9))
    core.step(Acknowledge("n1", "n2", 1, True, 99, 0, 99, 1))

    assert core.epoch == 1
    assert not core.ready()


def test_messages_and_records_pass_the_codec() -> None:
    """Plain dataclasses: what goes out is what comes in."""
    entry, snapshot = Entry(1, 1, b"\x00x"), Snapshot(1, 1, b"\xff")
    examples = [
        Heartbeat("a", "b", 1),
        Replicate("a", "b", 1, 0, 0, [entry], 1, 1),
        Acknowledge("a", "b", 1, True, 1, 0, 1, 1),
        InstallSnapshot("a", "b", 1, snapshot, 7, 0),
        snapshot,
        HardState(1, 0),
        Truncate(3),
        entry,
    ]
    for example in examples:
        packed = msgspec.msgpack.encode(example)
        assert msgspec.msgpack.decode(packed, type=type(example)) == example

    assert [type(example) for example in examples] == [*MESSAGES, *RECORDS]
    with pytest.raises(TypeError, match="not a record"):
        PrimaryBackup("a", ("b",), random=Random(0), records=[examples[0]])


def test_digests_tell_where_commands_begin_and_end() -> None:
    """The same bytes cut at another place, or of another epoch, are another history."""
    histories = (
        [Entry(1, 1, b"x"), Entry(2, 1, b"y1z")],
        [Entry(1, 1, b"x1y"), Entry(2, 1, b"z")],
        [Entry(1, 1, b"x"), Entry(2, 2, b"y1z")],
    )
    assert len({chain(0, history)[-1] for history in histories}) == 3


def one_step(cluster: Cluster, *, wipes: bool) -> None:
    """Anything that may happen: a tick, a write, a message treated well or badly, a crash …"""
    random = cluster.random
    name = random.choice(list(cluster.nodes))
    node = cluster.nodes[name]
    action = random.random()
    if cluster.in_flight and action < 0.55:
        position = random.choice((0, random.randrange(len(cluster.in_flight))))
        cluster.deliver(position, keep=random.random() < 0.1)
    elif cluster.in_flight and action < 0.58:
        del cluster.in_flight[random.randrange(len(cluster.in_flight))]
    elif not node.up:
        cluster.restart(name, wipe=wipes and random.random() < 0.2)
    elif action < 0.83:
        node.core.tick()
    elif action < 0.95:
        if node.core.is_primary:
            cluster.write(name, random.randint(1, 4))
    elif action < 0.97:
        node.compact()
    elif action < 0.98:
        cluster.crash(name)
    elif action < 0.99:
        names = [n for n in cluster.nodes if random.random() < 0.5]
        cluster.partition(" ".join(names), " ".join(n for n in cluster.nodes if n not in names))
    else:
        cluster.heal()
    cluster.collect()
    del cluster.in_flight[:-200]


def heal_everything(cluster: Cluster) -> None:
    cluster.heal()
    for name, node in cluster.nodes.items():
        if not node.up:
            cluster.restart(name)
    cluster.run(80)


CASES = [
    (acknowledgement, promotion, wipes)
    for acknowledgement in ("asynchronous", "semi_synchronous", "synchronous")
    for promotion in ("none", "naive")
    for wipes in (False, True)
]


@pytest.mark.parametrize(("acknowledgement", "promotion", "wipes"), CASES)
def test_random_runs(acknowledgement: str, promotion: str, wipes: bool) -> None:
    """Anything happens, in any order; invariants hold after every step; healed, all nodes have the
    log of the highest epoch; without promotion (and with all disks) no acknowledged write is lost.
    """
    given = os.environ.get("SEED", "")
    for seed in [int(given)] if given else range(12):
        cluster = Cluster(
            3,
            seed=seed,
            acknowledgement=acknowledgement,
            promotion=promotion,
            catch_up_entries=seed % 3 * 4,
        )
        replay = f"SEED={seed} python -m pytest {__file__} -k test_random_runs"
        try:
            for _ in range(600):
                one_step(cluster, wipes=wipes)
                cluster.check_invariants()
            heal_everything(cluster)
            cluster.check_invariants()
            check_agreement(cluster)
            if promotion == "none" and not wipes:
                check_nothing_lost(cluster)
        except Exception as error:
            error.add_note(f"replay: {replay}")
            raise


def check_agreement(cluster: Cluster) -> None:
    (primary,) = cluster.primaries()
    cores = [node.core for node in cluster.nodes.values()]
    epochs = {core.epoch for core in cores}
    assert epochs == {cluster.core(primary).epoch}
    assert len({core.history.log.last_index for core in cores}) == 1
    last_index = cores[0].history.log.last_index
    assert len({core.history.log.digest(last_index) for core in cores}) == 1
    assert cluster.states() == [cluster.nodes[primary].state] * len(cores)
    assert len(cluster.nodes[primary].state) == last_index


def check_nothing_lost(cluster: Cluster) -> None:
    for state in cluster.states():
        assert [c for c in state if c in set(cluster.acknowledged)] == sorted(
            cluster.acknowledged, key=lambda c: int(c[1 : c.index("@")])
        )
    assert cluster.told("discard_suffix") == []
