"""Gossip in the simulation: what must hold of views, rumours and replicas, and one seeded run.

Checked after each step:

- *only a member raises its incarnation*, and *a new life has a new incarnation*: none is said of a
  member that it had not on its disk, and it restarts with one that nobody has heard of;
- *a view moves forward*: by (incarnation, alive < suspect < faulty), as long as a node lives;
- *news is sent a bounded number of times* by a node, λ·⌈log2(n + 1)⌉;
- *a rumour is told until others know it*, or for its number of rounds;
- *a replica never goes back*: what a disk has of a key covers what it had; a dot names one write.

Disks are lost as well here, in some runs, though never one that has something which no other has.

At the end, healed, all replicas are alike, with the last write of each key (or, where siblings are
kept, with every acknowledged write or what replaced it), and all see all others alive. Then one is
killed: the others call it faulty (*completeness*), and nobody else (*accuracy*).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from services.protocols.gossip import Gossip
from services.protocols.gossip.membership import RANK
from services.protocols.gossip.messages import Feedback, Incarnation, Update
from services.protocols.leaderless import Disk
from services.protocols.quorum import Siblings
from services.protocols.quorum.core import Conflicts
from services.protocols.quorum.messages import Stored
from services.protocols.quorum.versions import latest
from tests.simulation.cluster import Node, Trace, Violation
from tests.simulation.leaderless import LeaderlessNemesis, LeaderlessRun
from tests.simulation.quorum import (
    DOT,
    LOST,
    Knowledge,
    QuorumWorkload,
    covers,
)
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (1, 2, 3, 3, 5, 5, 5, 7)

RAISED = "only a member raises its incarnation"
NEW_LIFE = "a new life has a new incarnation"
FORWARD = "a view moves forward"
BOUNDED = "news is sent a bounded number of times"
TOLD = "a rumour is told until others know it"
BACK = "a replica never goes back"
LAST = "the last write wins"
COMPLETE = "who is gone is found out"
ACCURATE = "nobody is found out who is there"
DETECTION_MS = 8_000


class LastWrites(Knowledge):
    """What was written where the last write wins; a tombstone is a write like others."""

    def check(self, who: str, key: str, state: Siblings) -> None:
        dots = self.dots.setdefault(key, {})
        for version in state.versions:
            value = version.value or b""
            if dots.setdefault(version.dot, value) != value:
                raise Violation(DOT, f"{version.dot} of {key} is {dots[version.dot]!r}, {who}")

    def known(self, state: Siblings) -> frozenset[bytes]:
        return frozenset(version.value or b"" for version in state.versions)


class GossipObserver:
    """Implements `cluster.Observer`. `incarnations`: the greatest on each disk."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.told: dict[str, int] = {}
        self.disks: dict[str, dict[str, Siblings]] = {}
        self.acknowledged: dict[str, Siblings] = {}  # by key: what the last write makes of it
        self.faulty: list[tuple[str, str]] = []  # who called whom so
        self._incarnations: dict[str, int] = {}
        self._announced: dict[str, int] = {}
        self._views: dict[str, dict[str, Update]] = {}
        self._sent: dict[str, dict[tuple[str, str, int], int]] = {}
        self._hot: dict[str, dict[str, int]] = {}
        self._fed_back: set[tuple[str, str]] = set()
        self.wiped = 0

    def spare(self, node: Node) -> bool:
        """Has another disk all that is on this one? Then it may be lost, and is."""
        merge = _core(node).merge
        others = [disk for name, disk in self.disks.items() if name != node.name]
        spare = all(
            any(key in disk and merge(disk[key], state) == disk[key] for disk in others)
            for key, state in self.disks[node.name].items()
        )
        if spare:
            self.wiped += 1
            self.disks[node.name] = {}
            self._announced[node.name] = 0
        return spare

    def copies(self, key: str, state: Siblings) -> int:
        return sum(covers(disk.get(key, Siblings()), state) for disk in self.disks.values())

    def started(self, node: Node) -> None:
        core = _core(node)
        core.check_invariants()
        if core.membership.incarnation <= self._announced.get(node.name, 0):
            raise Violation(
                NEW_LIFE, f"{node.name} starts as {core.membership.incarnation}, as it was before"
            )
        before, self.disks[node.name] = self.disks.get(node.name, {}), {}
        self._states(node, node.disk.records)
        for key, state in before.items():
            if not covers(core.state(key), state):
                raise Violation(BACK, f"{node.name} restarts with {core.state(key)} of {key}")
        self._views[node.name], self._sent[node.name] = dict(core.membership.views), {}
        self._hot[node.name] = {}

    def stepped(self, node: Node, ready: Any) -> None:
        self._states(node, ready.persist)
        for event in ready.events:
            self.told[event.name] = self.told.get(event.name, 0) + 1
            if event.name == "faulty":
                self.faulty.append((node.name, event.fields["member"]))
        for message in ready.messages:
            self._look_at(node, message)
        self._look_at_views(node)
        self._look_at_rumours(node)
        if ready.events or ready.persist:
            _core(node).check_invariants()

    def _states(self, node: Node, records: list[Any]) -> None:
        disk = self.disks[node.name]
        for record in records:
            if isinstance(record, Incarnation):
                known = self._incarnations.get(node.name, 0)
                self._incarnations[node.name] = max(known, record.number)
                continue
            if isinstance(record, Disk):
                continue
            assert isinstance(record, Stored)
            self.knowledge.check(node.name, record.key, record.state)
            if not covers(record.state, disk.get(record.key, Siblings())):
                raise Violation(BACK, f"{node.name} goes back to {record.state} of {record.key}")
            disk[record.key] = record.state

    def _look_at(self, node: Node, message: Any) -> None:
        if isinstance(message, Feedback):
            self._fed_back.update((message.dst, key) for key in message.known)
        sent = self._sent[node.name]
        for update in getattr(message, "updates", ()):
            if update.incarnation > self._incarnations.get(update.member, 0):
                raise Violation(RAISED, f"{node.name} says {update}")
            if update.member == node.name:
                self._announced[node.name] = max(
                    self._announced.get(node.name, 0), update.incarnation
                )
                continue  # in each message
            if update.member == message.dst and update.status != "alive":
                continue  # an accusation goes to the accused as often as it is spoken to
            name = update.member, update.status, update.incarnation
            sent[name] = sent.get(name, 0) + 1
            if sent[name] > _core(node).membership.sends_max:
                raise Violation(BOUNDED, f"{node.name} sends {update} {sent[name]} times")

    def _look_at_views(self, node: Node) -> None:
        before, views = self._views[node.name], _core(node).membership.views
        for member, view in views.items():
            was = before[member]
            if (view.incarnation, RANK[view.status]) < (was.incarnation, RANK[was.status]):
                raise Violation(FORWARD, f"{node.name} takes {view} after {was}")
        self._views[node.name] = dict(views)

    def _look_at_rumours(self, node: Node) -> None:
        mill = _core(node).mill
        for key, since in self._hot[node.name].items():
            dropped = key not in mill.hot and bool(_core(node).peers)
            if not dropped or (node.name, key) in self._fed_back:
                continue
            if mill.round - since < mill.rounds_max:
                raise Violation(TOLD, f"{node.name} drops {key} after {mill.round - since} rounds")
        for key, hot in mill.hot.items():
            if self._hot[node.name].get(key) != hot.round:
                self._fed_back.discard((node.name, key))
        self._hot[node.name] = {key: hot.round for key, hot in mill.hot.items()}

    def applied(self, node: Node, entry: Any) -> None:
        raise AssertionError("there is no log")

    restored = applied


class GossipWorkload(QuorumWorkload):
    """Clients at any node; where the last write wins, some of the writes are deletions."""

    def replied(self, node: Node, reply: Any) -> None:
        pending = self._pending[node.name, node.incarnation, reply.request]
        super().replied(node, reply)
        if pending.value is not None:
            observer: Any = self.cluster._observer
            known = observer.acknowledged.get(pending.key, Siblings())
            observer.acknowledged[pending.key] = latest(known, reply.state)


def _core(node: Node) -> Gossip:
    core: Any = node.core
    assert isinstance(core, Gossip)
    return core


@dataclass(slots=True)
class Outcome:
    """What a run did; for the reader of a summary, and to see that runs do something at all."""

    seed: int
    nodes: int
    steps: int
    spread: str
    acknowledged: int
    reads: int
    crashes: int
    suspicions: int
    faulty: int
    refutations: int
    exchanges: int
    wiped: int


class GossipRun(LeaderlessRun[Outcome]):
    """One seed: draw a cluster and how it gossips, run, heal, demand convergence, kill one."""

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = self.random = Random(f"gossip {seed}")
        nodes = random.choice(SIZES)
        names = [f"n{number}" for number in range(1, nodes + 1)]
        self.conflicts: Conflicts = "siblings" if random.random() < 0.4 else "last-write-wins"
        self.how: dict[str, Any] = {
            "spread": random.choice(("push", "pull", "push-pull")),
            "fanout": random.choice((1, 2, 3)),
            "stop": random.choice(("feedback", "feedback", "blind")),
            "gossip_ticks": random.choice((1, 3)),
            "anti_entropy_ticks": random.choice((10, 30)),
            "period_ticks": random.choice((8, 12)),
            "proxies": random.choice((1, 3)),
            "suspicion_periods": random.choice((1, 3)),
        }
        # Blind, a rumour has all its rounds: so the invariant about them is one.
        self.how["stop_after"] = 2 if self.how["stop"] == "feedback" else 4 * nodes.bit_length()
        self.core = bug.core or Gossip
        siblings = self.conflicts == "siblings"
        self.knowledge = Knowledge(promised=True) if siblings else LastWrites(promised=False)
        self.invariants = GossipObserver(self.knowledge)
        # (Drawn apart, so that the other runs are those that they were.)
        wipes = bug.persist_before_send and Random(f"wipes {seed}").random() < 0.2
        self.workload = GossipWorkload(
            random,
            self.knowledge,
            reads=random.choice((0.1, 0.3, 0.6)),
            meets=False,
            write_quorum=0 if wipes else 1,  # its own disk, which may be lost meanwhile
            copies=self.invariants.copies,
            deletes=0.0 if siblings else 0.3,
        )
        spare = self.invariants.spare if wipes else None
        self.nemesis = LeaderlessNemesis(random, drift=0.3, spare=spare)
        self._build(names, 0.3, bug, trace)

    def _make_core(self, node: str, peers: tuple[str, ...], records: list[Any]) -> Gossip:
        return self.core(
            node,
            peers,
            random=Random(self.random.getrandbits(64)),
            records=records,
            conflicts=self.conflicts,
            **self.how,
        )

    def outcome(self) -> Outcome:
        told = self.invariants.told
        return Outcome(
            self.seed,
            len(self.cluster.names),
            self.cluster.steps,
            self.how["spread"],
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            told.get("suspect", 0),
            told.get("faulty", 0),
            told.get("refute", 0),
            told.get("anti_entropy", 0),
            self.invariants.wiped,
        )

    # ---- the end ----------------------------------------------------------------------------

    def _cores(self) -> list[Gossip]:
        return [_core(node) for node in self.cluster.nodes.values()]

    def _converged(self) -> bool:
        first, *others = self._cores()
        return (
            not any(core.mill.hot for core in self._cores())
            and all(core.states == first.states for core in others)
            and all(
                view.status == "alive"
                for core in self._cores()
                for view in core.membership.views.values()
            )
        )

    def _check_end(self) -> None:
        for core in self._cores():
            for key, last in self.invariants.acknowledged.items():
                if self.conflicts == "last-write-wins":
                    if latest(core.state(key), last) != core.state(key):
                        raise Violation(LAST, f"{core.node} has {core.state(key)} of {key}: {last}")
                    continue
                written = self.knowledge.writes.items()
                values = [each for each, of in written if of.key == key and of.acknowledged]
                self.knowledge.require(LOST, core.node, values, core.state(key))
        for node in self.cluster.nodes.values():
            node.disk.sync()
            peers = tuple(name for name in self.cluster.names if name != node.name)
            again = self._make_core(node.name, peers, node.disk.records)
            if again.states != _core(node).states:
                raise Violation("durability", f"{node.name} would restart as {again.status()}")
        if len(self.cluster.names) > 1:
            self._kill_one()

    def _kill_one(self) -> None:
        cluster, named = self.cluster, len(self.invariants.faulty)
        victim = self.random.choice(cluster.names)
        cluster.crash(cluster.nodes[victim])
        others = [core for core in self._cores() if core.node != victim]
        deadline_ms = cluster.now_ms + DETECTION_MS
        while any(core.membership.status(victim) != "faulty" for core in others):
            if cluster.now_ms >= deadline_ms:
                views = {core.node: core.membership.status(victim) for core in others}
                raise Violation(COMPLETE, f"{victim} is down, and {views} after {DETECTION_MS} ms")
            cluster.run(cluster.now_ms + 100)
        wrong = [pair for pair in self.invariants.faulty[named:] if pair[1] != victim]
        if wrong:
            raise Violation(ACCURATE, f"{victim} is down, called faulty are {wrong}")
