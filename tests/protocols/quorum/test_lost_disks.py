"""A node whose disk was lost comes back under its own name: none of its dots is given out twice.

Goal: two writes never share a dot, whatever disks were lost, so that none of them is taken for the
other. Method: replicas whose messages a test delivers by hand; a wiped one starts without records.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from services.protocols.gossip import Gossip
from services.protocols.quorum import Quorum, Reply, Siblings
from services.protocols.quorum.data import Increment, Insert, key_for

Core = Quorum | Gossip


def quorum(node: str, records: list[Any], seed: int) -> Core:
    peers = tuple({"n1", "n2", "n3"} - {node})
    how: dict[str, Any] = {"replicas": 3, "read_quorum": 2, "write_quorum": 2}
    return Quorum(node, peers, random=Random(seed), records=records, **how)


def gossip(node: str, records: list[Any], seed: int) -> Core:
    peers = tuple({"n1", "n2", "n3"} - {node})
    return Gossip(node, peers, random=Random(seed), records=records, conflicts="siblings")


class Replicas:
    """n1, n2 and n3, all of them homes of each key."""

    def __init__(self, make: Any) -> None:
        self.make = make
        self.starts = 0
        self.disks: dict[str, list[Any]] = {}
        self.cores: dict[str, Any] = {}
        self.replies: dict[int, Reply] = {}
        self.held: list[Any] = []
        for node in ("n1", "n2", "n3"):
            self.wipe(node)

    def wipe(self, node: str) -> None:
        self.disks[node] = []
        self.restart(node)

    def restart(self, node: str) -> None:
        self.starts += 1  # chance is never the same at two starts
        self.cores[node] = self.make(node, list(self.disks[node]), self.starts)
        self.settle()

    def settle(self, *, lost: frozenset[str] = frozenset()) -> None:
        """Carry out and deliver until nothing is on its way; nothing reaches those `lost`."""
        while self._carry_out() or self.held:
            held, self.held = self.held, []
            for message in held:
                if message.dst not in lost and message.dst in self.cores:
                    self.cores[message.dst].step(message)

    def _carry_out(self) -> bool:
        found = [(node, core.ready()) for node, core in self.cores.items()]
        for node, ready in found:
            self.disks[node] += ready.persist
            self.held += ready.messages
            self.replies |= {reply.request: reply for reply in ready.replies}
            self.cores[node].check_invariants()
        return any(ready for _, ready in found)

    def tick(self, count: int) -> None:
        for _ in range(count):
            for core in self.cores.values():
                core.tick()
            self.settle()

    def write(self, node: str, value: bytes, *, lost: frozenset[str] = frozenset()) -> None:
        self.cores[node].write(len(self.replies) + 1, "x", value, stamp=1, context={})
        self.settle(lost=lost)

    def values(self, node: str) -> list[bytes | None]:
        return [version.value for version in self.cores[node].state("x").versions]


@pytest.mark.parametrize("make", [quorum, gossip])
def test_a_write_after_the_loss_is_not_taken_for_one_before(make: Any) -> None:
    """n1 writes, all have it; n1's disk is lost, and it accepts another write before it has heard
    from anybody. Both were acknowledged, and neither has seen the other: both stand everywhere."""
    made = Replicas(make)
    made.write("n1", b"before")
    made.tick(100)
    assert made.values("n3") == [b"before"]

    made.wipe("n1")
    made.cores["n1"].write(100, "x", b"after", stamp=1, context={})
    made.tick(100)

    assert [sorted(made.values(node)) for node in made.cores] == [[b"after", b"before"]] * 3


def test_what_a_late_message_brings_back_is_not_taken_for_the_new_write() -> None:
    """The dot of a write that only a message on its way still has: it arrives when n1 has lost its
    disk and written again. Last-write-wins would keep one here and the other there, for ever."""
    made = Replicas(quorum)
    made.cores["n1"].write(1, "x", b"before", stamp=1, context={})
    late = [message for message in made.cores["n1"].ready().messages if message.dst == "n3"]
    made.wipe("n1")
    made.write("n1", b"after", lost=frozenset({"n3"}))
    for message in late:
        made.cores["n3"].step(message)
    made.tick(100)

    assert [sorted(made.values(node)) for node in made.cores] == [[b"after", b"before"]] * 3


@pytest.mark.parametrize("make", [quorum, gossip])
def test_a_counter_loses_no_increment_after_the_loss(make: Any) -> None:
    """Its entry of a counter is a disk's: n1 added 5, then on a new disk 3; 8 in all."""
    made, key = Replicas(make), key_for("counter", "likes")
    made.cores["n1"].update(1, key, Increment(5))
    made.tick(100)
    made.wipe("n1")
    made.cores["n1"].update(2, key, Increment(3))
    made.settle()
    made.tick(100)

    for core in made.cores.values():
        assert core.state(key).data.counter.value == 8


@pytest.mark.parametrize("make", [quorum, gossip])
def test_two_elements_of_a_sequence_never_share_an_identifier(make: Any) -> None:
    """n1 inserts "a"; on a new disk, which knows of no element, it inserts "b"."""
    made, key = Replicas(make), key_for("sequence", "text")
    made.cores["n1"].update(1, key, Insert(b'"a"'))
    made.tick(100)
    made.wipe("n1")
    made.cores["n1"].update(2, key, Insert(b'"b"'))
    made.settle()
    made.tick(100)

    for core in made.cores.values():
        assert sorted(core.state(key).data.sequence.value) == [b'"a"', b'"b"']


@pytest.mark.parametrize("make", [quorum, gossip])
def test_a_restart_keeps_the_disk_and_its_count(make: Any) -> None:
    """From the log as from an image: a new name at every start would let the vectors grow."""
    made = Replicas(make)
    made.write("n1", b"1")
    disk = made.cores["n1"].disk
    made.restart("n1")
    made.write("n1", b"2")
    assert (made.cores["n1"].disk, made.cores["n1"].state("x").context) == (disk, {disk: 2})
    made.disks["n1"] = made.cores["n1"].image()
    made.restart("n1")
    assert (made.cores["n1"].disk, made.values("n1")) == (disk, [b"1", b"2"])


def test_the_name_is_on_the_disk_before_anybody_hears_of_it() -> None:
    """In the same write as the first dot, or an earlier one: else it would be lost with a crash,
    and the write survive under a name that counts on."""
    core = quorum("n1", [], 1)
    core.write(1, "x", b"1", stamp=1, context={})
    first = core.ready().persist[0]
    assert (type(first).__name__, first.name) == ("Disk", core.disk)
    assert Siblings({core.disk: 1}).covers((core.disk, 1))
