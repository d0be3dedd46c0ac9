"""What SWIM (Das, Gupta, Motivala 2002) and Demers et al. (1987) say, sentence by sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import ceil, log2
from random import Random
from typing import Any

import pytest

from services.protocols.gossip import Gossip
from services.protocols.gossip.messages import Incarnation, Ping, PingRequest, Rumours, Update
from services.protocols.quorum.messages import Stored


class Net:
    """Gossiping nodes; what is sent arrives at once, unless `lost` says no. Counts messages."""

    def __init__(self, count: int, *, seed: int = 1, **how: Any) -> None:
        names = [f"n{i}" for i in range(1, count + 1)]
        self.nodes = {
            name: Gossip(
                name,
                tuple(each for each in names if each != name),
                random=Random(f"{seed} {name}"),
                **{"anti_entropy_ticks": 0, **how},
            )
            for name in names
        }
        self.lost: Callable[[Any], bool] = lambda message: False
        self.sent: list[Any] = []

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            for node in self.nodes.values():
                node.tick()
            self.settle()

    def settle(self) -> None:
        """Deliver until nobody has anything to say."""
        while waiting := [each for node in self.nodes.values() for each in node.ready().messages]:
            self.sent += waiting
            for message in waiting:
                if not self.lost(message):
                    self.nodes[message.dst].step(message)

    def write(self, node: str, key: str, value: bytes | None = b"1", stamp: int = 1) -> None:
        self.nodes[node].write(1, key, value, stamp=stamp, context={})

    def ticks_until(self, condition: Callable[[], bool], most: int = 2_000) -> int:
        for ticks in range(most):
            if condition():
                return ticks
            self.tick()
        raise AssertionError(f"not within {most} ticks")


def between(*names: str) -> Callable[[Any], bool]:
    return lambda message: {message.src, message.dst} == set(names)


def test_a_member_that_k_others_can_reach_is_not_suspected() -> None:
    """SWIM §3.1: "M_i selects k members at random and sends each a ping-req(M_j) message", so that
    one bad link accuses nobody."""
    net = Net(5)
    net.lost = between("n1", "n2")
    net.tick(400)

    assert any(isinstance(each, PingRequest) for each in net.sent)
    statuses = {
        view.status for node in net.nodes.values() for view in node.membership.views.values()
    }
    assert statuses == {"alive"}


def test_a_dead_member_is_suspected_first_and_then_faulty_everywhere() -> None:
    """SWIM §4.2: "suspected" for a prespecified time-out, then declared faulty, and all hear it."""
    net = Net(7)
    net.lost = lambda message: "n7" in (message.src, message.dst)
    rest = [node.membership for name, node in net.nodes.items() if name != "n7"]
    first = net.ticks_until(lambda: any(each.status("n7") == "suspect" for each in rest))
    last = net.ticks_until(lambda: all(each.status("n7") == "faulty" for each in rest))

    assert first > 0
    assert last >= rest[0].suspicion_ticks


def test_each_member_is_probed_within_2n_minus_1_periods() -> None:
    """SWIM §4.3, round robin: "successive selections of the same target are at most 2n - 1 periods
    apart"."""
    net = Net(6, period_ticks=10)
    pings: list[str] = []
    for _ in range(120):
        net.sent.clear()
        net.tick(10)
        pings += [each.dst for each in net.sent if isinstance(each, Ping) and each.src == "n1"]

    for target in ("n2", "n3", "n4", "n5", "n6"):
        at = [number for number, each in enumerate(pings) if each == target]
        assert max(b - a for a, b in pairwise(at)) <= 2 * 5 - 1


@pytest.mark.parametrize(
    ("before", "news", "after"),
    [
        (("alive", 1), ("suspect", 1), ("suspect", 1)),
        (("suspect", 1), ("alive", 1), ("suspect", 1)),
        (("suspect", 1), ("alive", 2), ("alive", 2)),
        (("alive", 2), ("suspect", 1), ("alive", 2)),
        (("faulty", 1), ("suspect", 1), ("faulty", 1)),
        (("suspect", 1), ("suspect", 2), ("suspect", 2)),
    ],
)
def test_news_override_by_incarnation_and_status(
    before: tuple[Any, int], news: tuple[Any, int], after: tuple[Any, int]
) -> None:
    """SWIM §4.2's order of preference: Alive i over j < i, Suspect i over Alive j ≤ i, …"""
    membership = Net(3).nodes["n1"].membership
    for status, incarnation in (before, news):
        membership.hear(Update("n2", status, incarnation))

    view = membership.views["n2"]
    assert (view.status, view.incarnation) == after


def test_a_suspect_refutes_with_a_greater_incarnation() -> None:
    """SWIM §4.2: "only M_i can increment its incarnation number"; on disk before it says so."""
    node = Net(3).nodes["n1"]
    node.ready()
    node.membership.hear(Update("n1", "suspect", 1))

    assert node.membership.incarnation == 2
    assert Incarnation(2) in node.ready().persist


def test_the_load_of_a_member_does_not_grow_with_the_group() -> None:
    """SWIM §1: "constant message load per group member": pings of a period, whatever n."""
    loads = {}
    for count in (5, 25):
        net = Net(count, period_ticks=10)
        net.tick(500)
        loads[count] = sum(isinstance(each, Ping) for each in net.sent) / count / 50

    assert loads[5] == loads[25] == 1.0


@pytest.mark.parametrize("spread", ["push", "pull", "push-pull"])
@pytest.mark.parametrize("count", [5, 25])
def test_a_rumour_is_everywhere_within_a_few_times_log_n_rounds(spread: Any, count: int) -> None:
    """Demers §1.4: "O(log n)" rounds, in expectation; here the median of 20 writes."""
    took = []
    for seed in range(20):
        net = Net(count, seed=seed, spread=spread, fanout=2, stop_after=4)
        net.write("n1", "k")
        took.append(net.ticks_until(partial(_ended, net)))

    assert sorted(took)[10] <= 3 * ceil(log2(count + 1))


def test_a_rumour_dies_out_and_may_have_missed_somebody() -> None:
    """Demers §1.4: "there is a nonzero probability that the epidemic dies out" with some ignorant;
    and the more stubborn the tellers, the fewer."""
    missed = {}
    for stop_after in (1, 4):
        missed[stop_after] = 0
        for seed in range(40):
            net = Net(25, seed=seed, fanout=1, stop_after=stop_after)
            net.write("n1", "k")
            net.ticks_until(partial(_cooled, net))
            missed[stop_after] += sum("k" not in node.states for node in net.nodes.values())

    assert missed[1] > missed[4] >= 0
    assert missed[1] > 0


def test_anti_entropy_reaches_whom_the_rumour_has_missed() -> None:
    """Demers §1.5: "rumor mongering must be backed up by anti-entropy"."""
    net = Net(5, anti_entropy_ticks=10)
    net.lost = lambda message: "n5" in (message.src, message.dst)
    net.write("n1", "k")
    net.ticks_until(lambda: not _hot(net))
    assert "k" not in net.nodes["n5"].states

    net.lost = lambda message: isinstance(message, Rumours)
    net.ticks_until(lambda: _everywhere(net))


def test_a_deleted_value_is_not_brought_back() -> None:
    """Demers §2, death certificates: the node that was away has the old value, and yields."""
    net = Net(3, anti_entropy_ticks=10)
    net.write("n1", "k", b"old", stamp=1)
    net.ticks_until(lambda: _everywhere(net))
    net.lost = lambda message: "n3" in (message.src, message.dst)
    net.write("n1", "k", None, stamp=2)
    net.tick(100)
    net.lost = lambda message: False
    net.ticks_until(lambda: len({str(node.state("k")) for node in net.nodes.values()}) == 1)

    assert [version.value for version in net.nodes["n3"].state("k").versions] == [None]


def test_a_restart_takes_up_what_is_on_disk_and_a_new_incarnation() -> None:
    """Whoever took this node for faulty in its last life shall not do so in this one."""
    node = Net(3).nodes["n1"]
    node.write(1, "k", b"1", stamp=1, context={})
    records = node.ready().persist
    assert any(isinstance(record, Stored) for record in records)
    again = Gossip("n1", ("n2", "n3"), random=Random(2), records=records)

    assert again.state("k") == node.state("k")
    assert again.membership.incarnation == node.membership.incarnation + 1


def _everywhere(net: Net) -> bool:
    return all("k" in node.states for node in net.nodes.values())


def _cooled(net: Net) -> bool:
    return not _hot(net)


def _ended(net: Net) -> bool:
    return _everywhere(net) or not _hot(net)


def _hot(net: Net) -> bool:
    return any(node.mill.hot for node in net.nodes.values())
