"""Many leaders, step by step: who hears of what by which way, and what is told of a conflict."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from services.protocols.core import NotLeader
from services.protocols.multi_leader import MultiLeader, Write
from services.protocols.multi_leader.messages import Ship, States


class World:
    """Nodes n1 … and what is on their disks; messages arrive in order, unless `cut` or `lost`."""

    def __init__(self, count: int, **how: Any) -> None:
        self.names = [f"n{number}" for number in range(1, count + 1)]
        self.how = {"have_ticks": 1, "look_ticks": 3, **how}
        self.chance = Random(1)
        self.disks: dict[str, list[Any]] = {name: [] for name in self.names}
        self.cores: dict[str, MultiLeader] = {}
        self.sent: list[Any] = []
        self.cut: set[frozenset[str]] = set()
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        for name in self.names:
            self.start(name)
        self.run()

    def start(self, name: str) -> None:
        peers = [other for other in self.names if other != name]
        self.cores[name] = MultiLeader(
            name, peers, random=self.chance, records=self.disks[name], **self.how
        )

    def wipe(self, name: str) -> None:
        self.disks[name] = []
        self.start(name)

    def write(self, name: str, value: str | None, *, at: int, key: str = "k") -> None:
        self.cores[name].write(1, key, None if value is None else value.encode(), stamp=at)
        self.carry_out(name)

    def carry_out(self, name: str) -> list[Any]:
        out = self.cores[name].ready()
        self.disks[name] += out.persist
        self.events += [(name, event.name, event.fields) for event in out.events]
        self.sent += out.messages
        return out.messages

    def run(self, ticks: int = 12) -> None:
        for _ in range(ticks):
            for name, core in self.cores.items():
                core.tick()
                self.carry_out(name)
            while self.sent:
                message = self.sent.pop(0)
                if frozenset((message.src, message.dst)) not in self.cut:
                    self.cores[message.dst].step(message)
                    self.carry_out(message.dst)
        for core in self.cores.values():
            core.check_invariants()

    def separate(self, here: str, there: Iterable[str]) -> None:
        self.cut = {frozenset((here, other)) for other in there}

    def values(self, key: str = "k") -> list[bytes | None]:
        latest = [core.state(key).latest for core in self.cores.values()]
        return [each and each.value for each in latest]

    def conflicts(self) -> list[int]:
        return [core.conflicts for core in self.cores.values()]


def test_what_a_leader_takes_the_others_hear_of() -> None:
    """It is acknowledged before anybody else has it, and then all do."""
    world = World(3)
    world.write("n2", "a", at=10)
    assert world.values() == [None, b"a", None]
    world.run()

    assert world.values() == [b"a"] * 3
    assert world.conflicts() == [0, 0, 0]


def test_two_sides_write_one_key_and_the_last_write_wins() -> None:
    """Every node settles it alike, and tells of it once, with the value that is gone."""
    world = World(3)
    world.separate("n1", ["n2", "n3"])
    world.write("n1", "early", at=10)
    world.write("n3", "late", at=11)
    world.run()
    world.cut = set()
    world.run()

    assert world.values() == [b"late"] * 3
    assert world.conflicts() == [1, 1, 1]
    (told,) = world.cores["n2"].status()["recent_conflicts"]
    assert told["value"] == "early"


def test_to_overwrite_what_one_has_seen_is_no_conflict() -> None:
    """Though the leader's clock is far behind: it dates by all that it has."""
    world = World(2)
    world.write("n1", "a", at=1_000_000)
    world.run()
    world.write("n2", "b", at=5)
    world.run()

    assert world.values() == [b"b"] * 2
    assert world.conflicts() == [0, 0]


def test_a_deletion_outlives_a_write_that_comes_late() -> None:
    """The tombstone is a write like any other."""
    world = World(2)
    world.separate("n1", ["n2"])
    world.write("n1", "old", at=10)
    world.write("n2", None, at=20)
    world.cut = set()
    world.run()

    assert [core.state("k").latest is not None for core in world.cores.values()] == [True] * 2
    assert world.values() == [None] * 2


def test_what_a_dead_leader_told_one_the_others_hear_from_that_one() -> None:
    """n1 loses its disk having told n2 alone; n2 relays it, to n1's new disk as well."""
    world = World(3)
    world.separate("n1", ["n3"])
    world.write("n1", "a", at=10)
    world.sent = [message for message in world.sent if message.dst == "n2"]
    while world.sent:
        world.cores["n2"].step(world.sent.pop(0))
        world.carry_out("n2")
        world.sent = [message for message in world.sent if message.src == "n1"]
    world.wipe("n1")
    world.cut = set()
    world.run()

    assert world.values() == [b"a"] * 3
    old, new = sorted({write.log for write in world.disks["n2"] if isinstance(write, Write)}), (
        world.cores["n1"].disk
    )  # fmt: skip
    assert new not in old, "a new disk begins a log of its own"


def test_a_ring_passes_the_news_on_and_stops_at_a_gap() -> None:
    """Each ships to the next alone: with one link cut the node behind it hears nothing."""
    world = World(4, topology="ring")
    world.write("n1", "a", at=10)
    world.run()
    assert world.values() == [b"a"] * 4

    world.separate("n2", ["n3"])
    world.write("n1", "b", at=20)
    world.run()
    assert world.values() == [b"b", b"b", b"a", b"a"]
    world.cut = set()
    world.run()
    assert world.values() == [b"b"] * 4


def test_a_wiped_node_is_refilled_piece_by_piece() -> None:
    """The logs no longer have it; and a restart from disk has all of it again."""
    world = World(3, log_writes_max=2, fetch_keys_max=2)
    for number in range(7):
        world.write("n1", f"v{number}", at=10 + number, key=f"k{number}")
    world.run()
    assert world.cores["n2"].logs[world.cores["n1"].disk].base > 0
    world.wipe("n3")
    pieces = 0
    for _ in range(10):
        world.run(1)
    pieces = sum(name == "n3" and event == "refilled" for name, event, _ in world.events)
    assert pieces == 1
    assert world.cores["n3"].states == world.cores["n1"].states
    world.start("n3")
    assert world.cores["n3"].states == world.cores["n1"].states
    assert world.cores["n3"].vector == world.cores["n1"].vector


def test_what_is_kept_for_one_that_is_away_is_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few large writes are as much as many small ones; it fetches the states when it is back."""
    monkeypatch.setattr("services.protocols.multi_leader.logs.LOG_BYTES_MAX", 10_000)
    world = World(3)
    world.separate("n3", ["n1", "n2"])
    for number in range(20):
        world.write("n1", "x" * 2_000, at=10 + number, key=f"k{number}")
    world.run()
    for name in ("n1", "n2"):
        log = world.cores[name].logs[world.cores["n1"].disk]
        assert 0 < sum(len(write.value or b"") for write in log.writes) <= 10_000
    world.cut = set()
    world.run(30)
    assert world.cores["n3"].states == world.cores["n1"].states


def test_large_writes_travel_in_several_messages() -> None:
    """A frame has a limit: a thousand writes of the largest size must not make one frame."""
    world = World(2)
    world.separate("n1", ["n2"])
    for number in range(20):
        world.write("n1", "x" * 200_000, at=10 + number, key=f"k{number}")
    world.cut = set()
    world.cores["n1"].neighbours["n2"].sent.clear()
    ships = [message for message in world.carry_out("n1") if isinstance(message, Ship)]
    world.run()

    assert [len(ship.writes) for ship in ships] == [5, 5, 5, 5]
    assert world.cores["n2"].vector == world.cores["n1"].vector


def test_followers_point_to_a_leader() -> None:
    """`leaders=1`: a single leader; definite, and with a hint."""
    world = World(3, leaders=1)
    with pytest.raises(NotLeader) as refused:
        world.cores["n3"].write(1, "k", b"a", stamp=1)
    assert refused.value.leader == "n1"

    world.write("n1", "a", at=10)
    world.run()
    assert world.values() == [b"a"] * 3


def test_stale_and_strange_messages_change_nothing() -> None:
    """Sent twice, out of order, asked by nobody, or from a stranger."""
    world = World(2)
    world.write("n1", "a", at=10)
    (ship,) = [message for message in world.sent if isinstance(message, Ship)]
    world.run()
    core = world.cores["n2"]
    before = dict(core.states), core.vector
    first = ship.writes[0]
    later = Write(first.log, 9, "k", b"z", first.stamp, {})
    for message in (
        ship,
        Ship("n1", "n2", [later]),
        Ship("n9", "n2", [later]),
        States("n1", "n2", "disk", 0, "", [], {"x": 5}, True),
    ):
        core.step(message)

    assert (core.states, core.vector) == before
