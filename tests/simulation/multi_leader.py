"""Many leaders in the simulation: what must hold of what each node has, and one seeded run.

The observer knows of every write which others its leader had, as sets: what the nodes believe by
their version vectors is compared with that. Checked whenever something is written to a disk:

- *a dot names one write*, whatever disks were wiped;
- *a node has a prefix of each log*, each write taken once, and all that its vector says;
- *a write is later than what its leader had*, however wrong the clocks are;
- *of what a node has, the last write stands*;
- *a conflict is two writes that had not seen each other*: those are told, and no others.

At the end all nodes are alike, and have every acknowledged write: all but those that were on no
disk but one that was wiped, which is what asynchronous replication does not promise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from services.protocols.core import Event, NotLeader
from services.protocols.leaderless import Disk
from services.protocols.multi_leader import MultiLeader, Reply, Write
from services.protocols.multi_leader.messages import Whole
from services.protocols.multi_leader.versions import Dot
from tests.simulation.cluster import Cluster, Node, Trace, Violation
from tests.simulation.leaderless import LeaderlessNemesis, LeaderlessRun
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (3,) * 8 + (4,) * 2 + (5,) * 3 + (2,) * 2 + (1,)
KEYS = 5

DOT = "a dot names one write"
PREFIX = "a node has a prefix of each log"
LATER = "a write is later than what its leader had"
STANDS = "of what a node has, the last write stands"
CONFLICT = "a conflict is two writes that had not seen each other"
LOST = "acknowledged, never lost"

Dots = set[Dot]


class Held:
    """What is on the disk of one node: by log how far, by key which writes."""

    def __init__(self) -> None:
        self.disk = ""
        self.vector: dict[str, int] = {}
        self.dots: dict[str, Dots] = {}

    def of(self, key: str) -> Dots:
        return self.dots.setdefault(key, set())

    def has(self, dot: Dot) -> bool:
        return any(dot in dots for dots in self.dots.values())


class MultiLeaderObserver:
    """Implements `cluster.Observer`. `gone`: writes that were on wiped disks alone."""

    def __init__(self) -> None:
        self.cluster: Cluster
        self.writes: dict[Dot, Write] = {}
        self.past: dict[Dot, frozenset[Dot]] = {}
        self.held: dict[str, Held] = {}
        self.gone: Dots = set()
        self.wipes = 0
        self.told: dict[str, int] = {}

    def wiped(self, node: Node) -> None:
        held, others = self.held[node.name], [
            held for name, held in self.held.items() if name != node.name
        ]  # fmt: skip
        for dots in held.dots.values():
            self.gone |= {dot for dot in dots if not any(other.has(dot) for other in others)}
        self.held[node.name] = Held()
        self.wipes += 1

    # ---- Observer ---------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        core = _core(node)
        self.held[node.name] = held = Held()
        for record in node.disk.records:
            self._take(held, record)
        core.check_invariants()
        self._same(node.name, held, core, set(held.dots))

    def stepped(self, node: Node, ready: Any) -> None:
        held, core = self.held[node.name], _core(node)
        expected: list[tuple[Dot, Dot]] = []
        refilled = False
        for record in ready.persist:
            expected += self._take(held, record)
            refilled = refilled or isinstance(record, Whole)
        told = []
        for event in ready.events:
            self.told[event.name] = self.told.get(event.name, 0) + 1
            if event.name == "conflict":
                told.append((_dot(event.fields["kept"]), _dot(event.fields["lost"])))
        for kept, lost in told:
            if kept in self.past[lost] or lost in self.past[kept]:
                raise Violation(CONFLICT, f"{node.name} tells of {kept} and {lost}: one saw the "
                                f"other")  # fmt: skip
        if not refilled and sorted(told) != sorted(expected):
            raise Violation(CONFLICT, f"{node.name} tells of {told}; it has met {expected}")
        keys = {record.key for record in ready.persist if isinstance(record, Write)}
        keys |= set(held.dots) if refilled else set()
        self._same(node.name, held, core, keys)
        if ready.persist and self.cluster.steps % 16 == 0:
            core.check_invariants()

    def applied(self, node: Node, entry: Any) -> None:
        raise AssertionError("there is nothing to apply")

    restored = applied

    # ---- the properties ---------------------------------------------------------------------

    def _take(self, held: Held, record: Any) -> list[tuple[Dot, Dot]]:
        """One record more is on the disk; which conflicts its node must tell of (kept, lost)."""
        if isinstance(record, Disk):
            held.disk = record.name
        elif isinstance(record, Whole):
            for dot, write in self.writes.items():
                states = [state for key, state in record.states if key == write.key]
                if any(state.covers(write) for state in states):
                    held.of(write.key).add(dot)
                claimed = dot[1] <= record.vector.get(dot[0], 0)
                if claimed and dot not in held.of(write.key) and dot not in self.gone:
                    raise Violation(PREFIX, f"{held.disk} claims {record.vector} without {dot}")
            for log, sequence in record.vector.items():
                held.vector[log] = max(sequence, held.vector.get(log, 0))
        else:
            return self._take_write(held, record)
        return []

    def _take_write(self, held: Held, write: Write) -> list[tuple[Dot, Dot]]:
        dot, dots = write.dot, held.of(write.key)
        known = self.writes.setdefault(dot, write)
        if (known.key, known.value, known.stamp) != (write.key, write.value, write.stamp):
            raise Violation(DOT, f"{dot} is {known}, and {write}")
        if write.sequence != held.vector.get(write.log, 0) + 1:
            raise Violation(PREFIX, f"{held.disk} takes {dot} after {held.vector}")
        held.vector[write.log] = write.sequence
        if write.log == held.disk and dot not in self.past:
            self.past[dot] = frozenset(dots)
            later = [each for each in dots if self.writes[each].stamp >= write.stamp]
            if later:
                raise Violation(LATER, f"{write}, whose leader had {self.writes[later[0]]}")
        expected = []
        if dot not in dots and dots:
            stood = max(dots, key=lambda each: self.writes[each].order)
            if stood not in self.past[dot]:
                lost, kept = sorted((stood, dot), key=lambda each: self.writes[each].order)
                expected.append((kept, lost))
        dots.update(self.past[dot], {dot})
        return expected

    def _same(self, who: str, held: Held, core: MultiLeader, keys: set[str]) -> None:
        for key in keys:
            latest, dots = core.state(key).latest, held.of(key)
            last = max(dots, key=lambda each: self.writes[each].order, default=None)
            if (latest and latest.dot) != last:
                raise Violation(STANDS, f"{who} shows {latest} of {key}, and has {last}")


def _dot(name: str) -> Dot:
    log, _, sequence = name.rpartition(":")
    return log, int(sequence)


def _core(node: Node) -> MultiLeader:
    core: Any = node.core
    assert isinstance(core, MultiLeader)
    return core


class MultiLeaderWorkload:
    """Clients at any node; see `workload.Workload`, whose place it takes in a run."""

    def __init__(self, random: Random, observer: MultiLeaderObserver, skew: dict[str, int]) -> None:
        self.random = random
        self.observer = observer
        self.skew_ms = skew
        self.reads = random.choice((0.1, 0.3, 0.6))
        self.deletes = random.choice((0.0, 0.2))
        self.period_ms = random.choice((4, 8, 20, 50))
        self.cluster: Cluster
        self.running = True
        self.answered = 0  # writes
        self.served = 0
        self.acknowledged: dict[int, bytes] = {}
        self.dots: dict[int, Dot] = {}
        self._requests = 0
        self._pending: dict[tuple[str, int, int], tuple[str, bytes | None, bool]] = {}

    def start(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.after(self.period_ms, self._operate)

    def _operate(self) -> None:
        if not self.running:
            return
        self.cluster.after(1 + self.random.randrange(2 * self.period_ms), self._operate)
        nodes = [node for node in self.cluster.nodes.values() if node.up and not node.paused]
        if not nodes:
            return
        node, key = self.random.choice(nodes), f"k{self.random.randrange(KEYS)}"
        is_read = self.random.random() < self.reads
        value = None if self.random.random() < self.deletes else b"%d" % (self._requests + 1)
        try:
            self._ask(node, key, value, is_read)
        except NotLeader as refused:
            leader = self.cluster.nodes[refused.leader or ""]
            if leader.up and not leader.paused:
                self._ask(leader, key, value, is_read)

    def _ask(self, node: Node, key: str, value: bytes | None, is_read: bool) -> None:
        self._requests += 1
        request = self._requests
        self._pending[node.name, node.incarnation, request] = key, value, is_read

        def ask(core: Any) -> None:
            if is_read:
                core.read(request, key)
            else:
                stamp = self.cluster.now_ms + self.skew_ms[node.name]
                core.write(request, key, value, stamp=stamp)

        self.cluster.input(node, ask)

    def replied(self, node: Node, reply: Reply) -> None:
        """An answer has reached its client."""
        at = node.name, node.incarnation, reply.request
        key, value, is_read = self._pending.pop(at)
        latest = reply.state.latest
        if is_read:
            self.served += 1
            dots = self.observer.held[node.name].of(key)
            if latest is not None and latest.dot not in dots:
                raise Violation(LOST, f"{node.name} answers {latest}, which is on no disk of its")
            return
        if latest is None or latest.value != value or latest.log != _core(node).disk:
            raise Violation(LATER, f"{node.name} was to write {value!r} to {key}, has {latest}")
        self.answered += 1
        self.acknowledged[reply.request] = value or b""
        self.dots[reply.request] = latest.dot


class MultiLeaderNemesis(LeaderlessNemesis):
    """Nobody leads alone; and disks can be lost with all that is on them."""

    def __init__(self, random: Random, *, wiped: Callable[[Node], None]) -> None:
        super().__init__(random, drift=0.3)
        self._wiped = wiped
        if random.random() < 0.5:
            self.faults.append("wipe")
        # How likely it loses its disk whom another begins to fetch everything from.
        self.wipe_source = random.choice((0.0, 0.0, 0.3))

    def _witness(self, node: Node, event: Event) -> None:
        super()._witness(node, event)
        if self.running and event.name == "fetch" and self.random.random() < self.wipe_source:
            source = self.cluster.nodes[event.fields["peer"]]
            self.cluster.after(self.random.randrange(60), self._wipe, source)

    def wipe(self) -> None:
        if len(self.cluster.names) > 1:
            self._wipe(self._someone())

    def _wipe(self, node: Node) -> None:
        if not self.running:
            return  # planned before the healing
        self._crash(node)
        self._wiped(node)
        node.disk.records.clear()


@dataclass(slots=True)
class Outcome:
    """What a run did; for the reader of a summary, and to see that runs do something at all."""

    seed: int
    steps: int
    acknowledged: int
    reads: int
    crashes: int
    conflicts: int
    wipes: int
    gone: int
    refills: int


class MultiLeaderRun(LeaderlessRun[Outcome]):
    """One seed: draw a topology, its leaders and their clocks, run, heal, demand convergence."""

    workload: MultiLeaderWorkload

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = self.random = Random(f"multi-leader {seed}")
        names = [f"n{number}" for number in range(1, random.choice(SIZES) + 1)]
        self.settings: dict[str, Any] = {
            "topology": random.choice(("all-to-all", "all-to-all", "ring")),
            "leaders": random.choice((0, 0, 0, 1, 2)),
            "have_ticks": random.choice((1, 3)),
            "look_ticks": random.choice((3, 10)),
            "log_writes_max": random.choice((3, 20, 10_000)),
            "fetch_keys_max": random.choice((1, 2, 128)),
        }
        furthest = random.choice((0, 5, 3_000))
        skew = {name: random.randint(0, furthest) for name in names}
        self.core = bug.core or MultiLeader
        self.invariants = MultiLeaderObserver()
        self.workload = MultiLeaderWorkload(random, self.invariants, skew)
        self.nemesis = MultiLeaderNemesis(random, wiped=self.invariants.wiped)
        self._build(names, 0.3, bug, trace)

    def _make_core(self, node: str, peers: tuple[str, ...], records: list[Any]) -> MultiLeader:
        random = Random(self.random.getrandbits(64))
        made: MultiLeader = self.core(node, peers, random=random, records=records, **self.settings)
        return made

    def outcome(self) -> Outcome:
        told = self.invariants.told
        return Outcome(
            self.seed,
            self.cluster.steps,
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            told.get("conflict", 0),
            self.invariants.wipes,
            len(self.invariants.gone),
            told.get("refilled", 0),
        )

    # ---- the end ----------------------------------------------------------------------------

    def _cores(self) -> list[MultiLeader]:
        return [_core(node) for node in self.cluster.nodes.values()]

    def _converged(self) -> bool:
        first, *others = self._cores()
        return all(
            other.states == first.states and other.vector == first.vector for other in others
        )

    def _check_end(self) -> None:
        for name, held in self.invariants.held.items():
            for dot in self.workload.dots.values():
                if not held.has(dot) and dot not in self.invariants.gone:
                    raise Violation(
                        LOST, f"{name} has nothing of {self.invariants.writes.get(dot)}"
                    )
        for node in self.cluster.nodes.values():
            node.disk.sync()
            core = _core(node)
            peers = tuple(name for name in self.cluster.names if name != node.name)
            for records in (node.disk.records, core.image()):
                again = self._make_core(node.name, peers, records)
                here, there = ((each.states, each.vector, each.disk, each.status()["digest"])
                               for each in (core, again))  # fmt: skip
                if here != there:
                    raise Violation("durability", f"{node.name} would restart as {again.status()}")
