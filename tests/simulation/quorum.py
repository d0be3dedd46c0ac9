"""Quorums without a leader in the simulation: what must hold of all replicas, and one seeded run.

Values are unique, and the clients remember what they had read when they wrote: so of every write
it is known which others it replaced, whatever the replicas' version vectors say. Checked whenever
a state is written to a disk or answered to a client:

- *a dot names one write*;
- *nothing is forgotten that was not replaced*: a value that a state covers and does not hold was
  replaced by one that the state covers, too, and whose writer had seen it;
- *acknowledged means W copies*, on disks of homes or of those that stand in for them, and a hint
  stays until its owner has what it says;
- *a read meets each acknowledged write*, with strict quorums of R + W > N.

Disks are lost as well here, in some runs, though never one that has something which no other has: a
node comes back under its name, and must give out no dot again. (What W copies and R + W > N promise
is a promise of disks that stay: in these runs it is not asked for.)

At the end all homes of a key are alike, no hint is left, and every acknowledged write is there or
was replaced. With last-write-wins, which gives this up, only the replicas' agreement is demanded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from services.protocols.core import NotLeader
from services.protocols.leaderless import Disk
from services.protocols.quorum import Quorum, Reply, Siblings
from services.protocols.quorum.core import Conflicts
from services.protocols.quorum.messages import Hinted, Stored
from tests.simulation.cluster import Cluster, Node, Trace, Violation
from tests.simulation.leaderless import LeaderlessNemesis, LeaderlessRun
from tests.simulation.zoo.bug import CORRECT, Bug

# nodes, replicas
SIZES = ((3, 3),) * 6 + ((5, 3),) * 6 + ((5, 5),) * 2 + ((4, 2), (1, 1))
KEYS = 4

DOT = "a dot names one write"
FORGOTTEN = "nothing is forgotten that was not replaced"
LOST = "acknowledged, never lost"
MEETS = "a read meets each acknowledged write"
HINTS = "a hint stays until its owner has it"
COPIES = "acknowledged means W copies"
NEVER_EMPTY = "what was written is never nothing"


@dataclass(slots=True)
class Write:
    """What the clients know of one: `seen` are the values that its writer had read, and theirs."""

    key: str
    seen: frozenset[bytes]
    acknowledged: bool = False


class Knowledge:
    """What was written, under which dot, and what each write replaced."""

    def __init__(self, *, promised: bool) -> None:
        self.promised = promised
        self.writes: dict[bytes, Write] = {}
        self.dots: dict[str, dict[tuple[str, int], bytes]] = {}

    def check(self, who: str, key: str, state: Siblings) -> None:
        """`state` of `key`, on a disk or in an answer of `who`."""
        dots = self.dots.setdefault(key, {})
        if state.context and not state.versions:
            raise Violation(NEVER_EMPTY, f"{who} has {state} of {key}")
        for version in state.versions:
            assert version.value is not None
            known = dots.setdefault(version.dot, version.value)
            if known != version.value:
                raise Violation(DOT, f"{version.dot} of {key} is {known!r}, at {who} {version}")
        if self.promised:
            # Who replaced a value had seen all that it replaced: it is enough to ask those held.
            accounted = self.known(state)
            for dot, value in dots.items():
                if state.covers(dot) and value not in accounted:
                    raise Violation(FORGOTTEN, f"{who} has {state} of {key} and not {value!r}")

    def known(self, state: Siblings) -> frozenset[bytes]:
        """The values of a state and all that they replaced."""
        held = [version.value for version in state.versions if version.value is not None]
        return frozenset(held).union(*(self.writes[value].seen for value in held))

    def require(self, invariant: str, who: str, values: Iterable[bytes], state: Siblings) -> None:
        """Each of the acknowledged `values` is in `state`, or was replaced by what is."""
        missing = set(values) - self.known(state) if self.promised else set()
        if missing:
            raise Violation(invariant, f"{who} has {state} and nothing of {sorted(missing)}")


def covers(state: Siblings, other: Siblings) -> bool:
    """Does `state` know all that `other` knows?"""
    return all(state.covers(dot) for dot in other.context.items())


class QuorumObserver:
    """Implements `cluster.Observer`. `disks`: what every node has of each key, and for whom."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.told: dict[str, int] = {}
        self.disks: dict[str, dict[tuple[str, str], Siblings]] = {}
        self.wiped: set[str] = set()

    def spare(self, node: Node) -> bool:
        """Has another home all that is on this disk? Then it may be lost, and is.

        (A hint may be given up the next moment, for what this disk has said before.)
        """
        merge = _core(node).merge
        homes = [(name, disk) for name, disk in self.disks.items() if name != node.name]
        spare = all(
            any((its := disk.get((home, key))) is not None and merge(its, state) == its
                for home, disk in homes)
            for (_, key), state in self.disks[node.name].items()
        )  # fmt: skip
        if spare:
            self.wiped.add(node.name)
            self.disks[node.name] = {}
        return spare

    def copies(self, key: str, state: Siblings) -> int:
        """How many disks have all of `state`."""
        return sum(
            any(of == key and covers(its, state) for (_, of), its in disk.items())
            for disk in self.disks.values()
        )

    def started(self, node: Node) -> None:
        _core(node).check_invariants()
        self.disks[node.name] = {}
        self._states(node, node.disk.records)

    def stepped(self, node: Node, ready: Any) -> None:
        self._states(node, ready.persist)
        for event in ready.events:
            self.told[event.name] = self.told.get(event.name, 0) + 1
        if ready.events or ready.persist:
            _core(node).check_invariants()

    def _states(self, node: Node, records: list[Any]) -> None:
        disk = self.disks[node.name]
        for record in records:
            if isinstance(record, Disk):
                continue
            owner = record.owner if isinstance(record, Hinted) else node.name
            assert isinstance(record, Stored | Hinted)
            self.knowledge.check(node.name, record.key, record.state)
            if record.state.context:
                disk[owner, record.key] = record.state
                continue
            hint = disk.pop((owner, record.key))
            own = self.disks[owner].get((owner, record.key))
            if owner not in self.wiped and (own is None or not covers(own, hint)):
                raise Violation(HINTS, f"{node.name} gives up {hint}, {owner} has {own}")

    def applied(self, node: Node, entry: Any) -> None:
        raise AssertionError("there is no log")

    restored = applied


@dataclass(slots=True)
class Client:
    """Reads and writes, and remembers of each key what it read last."""

    context: dict[str, dict[str, int]] = field(default_factory=dict)
    seen: dict[str, frozenset[bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class Pending:
    """An operation that was not answered yet. `floor`: what was acknowledged when it began."""

    client: Client
    key: str
    value: bytes | None
    floor: frozenset[bytes]


class QuorumWorkload:
    """Clients at any node; see `workload.Workload`, whose place it takes in a run."""

    def __init__(
        self,
        random: Random,
        knowledge: Knowledge,
        *,
        reads: float,
        meets: bool,
        write_quorum: int,
        copies: Callable[[str, Siblings], int],
        deletes: float = 0.0,
    ) -> None:
        self.random = random
        self.knowledge = knowledge
        self.write_quorum = write_quorum
        self.copies = copies
        self.reads, self.deletes = reads, deletes
        self.meets = meets  # R + W > N, strictly
        self.period_ms = random.choice((4, 8, 20, 50))
        self.clients = [Client() for _ in range(random.choice((1, 3, 6)))]
        self.cluster: Cluster
        self.running = True
        self.answered = 0  # writes
        self.served = 0
        self.acknowledged: dict[int, bytes] = {}
        self._requests = 0
        self._pending: dict[tuple[str, int, int], Pending] = {}

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
        node, client = self.random.choice(nodes), self.random.choice(self.clients)
        key = f"k{self.random.randrange(KEYS)}"
        is_read = self.random.random() < self.reads
        for _ in range(2):  # at the node, then at a home
            try:
                self._ask(node, client, key, is_read)
            except NotLeader as refused:
                node = self.cluster.nodes[refused.leader or ""]
                if not node.up or node.paused:
                    return
            else:
                return

    def _ask(self, node: Node, client: Client, key: str, is_read: bool) -> None:
        self._requests += 1
        request = self._requests
        value = None if is_read else b"%d" % request
        floor = frozenset(
            value for value in self.acknowledged.values() if self.knowledge.writes[value].key == key
        )
        blind = self.random.random() < 0.3
        context = {} if blind else client.context.get(key, {})
        seen = frozenset() if blind else client.seen.get(key, frozenset())
        deleted = self.deletes > 0 and self.random.random() < self.deletes
        at = node.name, node.incarnation, request
        self._pending[at] = Pending(client, key, value, floor)

        def ask(core: Any) -> None:
            if value is None:
                core.read(request, key)
            else:
                self.knowledge.writes[value] = Write(key, seen)
                written = None if deleted else value
                core.write(request, key, written, stamp=self.cluster.now_ms, context=context)

        try:
            self.cluster.input(node, ask)
        except NotLeader:
            del self._pending[at]
            if value is not None:
                del self.knowledge.writes[value]
            raise

    def replied(self, node: Node, reply: Reply) -> None:
        """An answer has reached its client."""
        pending = self._pending.pop((node.name, node.incarnation, reply.request))
        if not reply.done:
            return
        who, key = f"a client of {node.name}", pending.key
        self.knowledge.check(who, key, reply.state)
        if pending.value is not None:
            self.answered += 1
            self.acknowledged[reply.request] = pending.value
            self.knowledge.writes[pending.value].acknowledged = True
            self.knowledge.require(LOST, who, [pending.value], reply.state)
            copies = self.copies(key, reply.state)
            if copies < self.write_quorum:
                raise Violation(COPIES, f"{pending.value!r} of {key} is on {copies} disks")
        else:
            self.served += 1
            if self.meets:
                self.knowledge.require(MEETS, who, pending.floor, reply.state)
        pending.client.context[key] = reply.state.context
        pending.client.seen[key] = self.knowledge.known(reply.state)


def _core(node: Node) -> Quorum:
    core: Any = node.core
    assert isinstance(core, Quorum)
    return core


@dataclass(slots=True)
class Outcome:
    """What a run did; for the reader of a summary, and to see that runs do something at all."""

    seed: int
    steps: int
    promised: bool
    meets: bool
    acknowledged: int
    reads: int
    crashes: int
    siblings: int
    hints: int
    repairs: int
    exchanges: int
    wiped: int


class QuorumRun(LeaderlessRun[Any]):
    """One seed: draw N, R, W and what settles conflicts, run, heal, demand convergence."""

    name = "quorum"
    clients: type[QuorumWorkload] = QuorumWorkload

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = self.random = Random(f"{self.name} {seed}")
        nodes, self.replicas = random.choice(SIZES)
        names = [f"n{number}" for number in range(1, nodes + 1)]
        self.read_quorum = random.randint(1, self.replicas)
        self.write_quorum = random.randint(1, self.replicas)
        self.sloppy = random.random() < 0.4
        self.conflicts: Conflicts = "siblings" if random.random() < 0.8 else "last-write-wins"
        self.fallback_ticks = random.choice((2, 5))
        self.anti_entropy_ticks = random.choice((5, 30))
        self.read_repair = random.random() < 0.7
        self.core = bug.core or Quorum
        self.promised = self.conflicts == "siblings"
        self.knowledge = self._nothing_known()
        self.invariants = QuorumObserver(self.knowledge)
        overlap = self.read_quorum + self.write_quorum > self.replicas
        # (Drawn apart, so that the other runs are those that they were.)
        wipes = bug.persist_before_send and Random(f"wipes {seed}").random() < 0.2
        self.meets = overlap and not self.sloppy and self.promised and not wipes
        self.workload = self.clients(
            random,
            self.knowledge,
            reads=random.choice((0.1, 0.3, 0.6)),
            meets=self.meets,
            write_quorum=0 if wipes else self.write_quorum,
            copies=self.invariants.copies,
        )
        spare = self.invariants.spare if wipes else None
        self.nemesis = LeaderlessNemesis(random, drift=0.3, spare=spare)
        self._build(names, 0.3, bug, trace)

    def _nothing_known(self) -> Knowledge:
        return Knowledge(promised=self.promised)

    def _make_core(self, node: str, peers: tuple[str, ...], records: list[Any]) -> Quorum:
        return self.core(
            node,
            peers,
            random=Random(self.random.getrandbits(64)),
            records=records,
            replicas=self.replicas,
            read_quorum=self.read_quorum,
            write_quorum=self.write_quorum,
            sloppy=self.sloppy,
            conflicts=self.conflicts,
            timeout_ticks=20,
            fallback_ticks=self.fallback_ticks,
            handoff_ticks=10,
            anti_entropy_ticks=self.anti_entropy_ticks,
            read_repair=self.read_repair,
        )

    def outcome(self) -> Outcome:
        told = self.invariants.told
        return Outcome(
            self.seed,
            self.cluster.steps,
            self.promised,
            self.meets,
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            sum(
                len(state.versions) > 1 for core in self._cores() for state in core.states.values()
            ),
            told.get("hint", 0),
            told.get("read_repair", 0),
            told.get("anti_entropy", 0),
            len(self.invariants.wiped),
        )

    # ---- the end ----------------------------------------------------------------------------

    def _cores(self) -> list[Quorum]:
        return [_core(node) for node in self.cluster.nodes.values()]

    def _keys(self) -> list[str]:
        return sorted({key for core in self._cores() for key in core.states})

    def _homes(self, key: str) -> list[Quorum]:
        cores = {core.node: core for core in self._cores()}
        return [cores[home] for home in self._cores()[0].homes(key)]

    def _converged(self) -> bool:
        if any(core.hints or core.operations for core in self._cores()):
            return False
        return all(
            home.state(key) == self._homes(key)[0].state(key)
            for key in self._keys()
            for home in self._homes(key)
        )

    def _check_end(self) -> None:
        writes = self.knowledge.writes
        for key in self._keys():
            acknowledged = [
                value for value, write in writes.items() if write.key == key and write.acknowledged
            ]
            for home in self._homes(key):
                state = home.state(key)
                self.knowledge.check(home.node, key, state)
                self.knowledge.require(LOST, home.node, acknowledged, state)
        self._check_disks()

    def _check_disks(self) -> None:
        for node in self.cluster.nodes.values():
            node.disk.sync()
            again = self._make_core(node.name, self._peers(node), node.disk.records)
            if again.states != _core(node).states or again.hints != _core(node).hints:
                raise Violation("durability", f"{node.name} would restart as {again.status()}")

    def _peers(self, node: Node) -> tuple[str, ...]:
        return tuple(name for name in self.cluster.names if name != node.name)
