"""The causally consistent store in the simulation: what must hold of it, and one seeded run.

Clients are sessions that move from node to node. What each has seen is counted here as well, by the
dots of what it was answered, whatever the tokens say: so of every write it is known what it depends
on. Checked whenever a write reaches a disk:

- *a dot names one write*;
- *nothing is seen before its cause*: what its writer's level heeds is on that disk already.

and whenever a read is answered: *a session never goes back*, for what it is shown is no older than
anything on that key among what its level heeds. Disks are lost as well, in some runs, though never
one that has something which no other has: a node comes back under its name. At the end all nodes
hold the same, the greatest version of each key of all that was written, every acknowledged write is
on every disk, and the clients' history is given to the labs' checkers (`histories.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from random import Random
from typing import Any

from services.protocols.causal import LEVELS, Causal, Level, Reply, Session, Write
from services.protocols.causal.messages import Applied, Base, VersionVector, Whole
from services.protocols.causal.sessions import covers, required
from services.protocols.clocks import merge
from tests.simulation.cluster import Cluster, Node, Trace, Violation
from tests.simulation.leaderless import LeaderlessNemesis, LeaderlessRun
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (3,) * 6 + (5,) * 4 + (2, 1)
KEYS = 4
MODES: tuple[tuple[Level, ...], ...] = (("causal",), ("session",), ("eventual",), LEVELS)

DOT = "a dot names one write"
CAUSE = "nothing is seen before its cause"
LOST = "acknowledged, never lost"
BACK = "a session never goes back"


@dataclass(slots=True)
class Asked:
    """One operation, as `labs.harness.history.Op` (which needs more than the standard library)."""

    process: int
    f: str
    key: str
    value: str | None
    invoke_ns: int
    index: int
    node: str
    return_ns: int | None = None
    type: str = "info"
    output: str | None = None
    version: int | None = None
    final: bool = False


@dataclass(slots=True)
class Client:
    """A session: one operation at a time. `seen`: what it was shown, as dots, by this file."""

    process: int
    node: str
    session: Session = field(default_factory=Session)
    seen: Session = field(default_factory=Session)
    pending: Pending | None = None


@dataclass(slots=True)
class Pending:
    """An operation that was not answered yet; `depends`: what it must not be seen before."""

    op: Asked
    at: tuple[str, int]  # node, incarnation
    depends: VersionVector


class CausalWorkload:
    """Sessions at any node; see `workload.Workload`, whose place it takes in a run."""

    def __init__(self, random: Random, levels: tuple[Level, ...], names: list[str]) -> None:
        self.random, self.levels = random, levels
        self.reads = random.choice((0.3, 0.5, 0.7))
        self.moves = random.choice((0.05, 0.3, 1.0))
        self.period_ms = random.choice((8, 20, 50))
        self.patience_ms = random.choice((60, 300))
        self.running = True
        self.answered = self.served = self.refused = 0
        self.acknowledged: dict[int, bytes] = {}
        self.dots: dict[int, tuple[str, int]] = {}  # of what was acknowledged
        self.depends: dict[bytes, VersionVector] = {}
        self.writes: dict[str, list[Write]] = {}  # by key: all that ever was on a disk
        self.ops: list[Asked] = []
        self.cluster: Cluster
        self._requests = self._processes = 0
        self.clients = [self._client(random.choice(names)) for _ in range(random.choice((2, 4, 6)))]

    def _client(self, node: str) -> Client:
        self._processes += 1
        return Client(self._processes, node)

    def start(self, cluster: Any) -> None:
        self.cluster = cluster
        for number in range(len(self.clients)):
            cluster.after(self.random.randrange(self.period_ms), self._operate, number)

    def _now_ns(self) -> int:
        # Within a millisecond of the simulation, in the order in which it happened.
        return self.cluster.now_ms * 1_000_000 + len(self.ops) % 1_000_000

    def _operate(self, number: int) -> None:
        if not self.running:
            return
        self.cluster.after(1 + self.random.randrange(2 * self.period_ms), self._operate, number)
        client = self.clients[number]
        if client.pending is not None:
            self._give_up(number)
            return
        if self.random.random() < self.moves:
            client.node = self.random.choice(self.cluster.names)
        node = self.cluster.nodes[client.node]
        if node.up and not node.paused:
            self._ask(node, client)

    def _ask(self, node: Node, client: Client) -> None:
        self._requests += 1
        request, key = self._requests, f"k{self.random.randrange(KEYS)}"
        is_read = self.random.random() < self.reads
        value = None if is_read else b"%d" % request
        f, text = ("read", None) if value is None else ("write", value.decode())
        op = Asked(client.process, f, key, text, self._now_ns(), request, node.name)
        self.ops.append(op)
        level = self.random.choice(self.levels)
        depends = required(level, client.seen, writes=not is_read)
        client.pending = Pending(op, (node.name, node.incarnation), depends)
        if value is not None:
            self.depends[value] = depends

        def ask(core: Any) -> None:
            how: dict[str, Any] = {"session": client.session, "level": level}
            if value is None:
                core.read(request, key, **how)
            else:
                core.write(request, key, value, **how)

        self.cluster.input(node, ask)

    def _give_up(self, number: int) -> None:
        """Its deadline has passed, or the node died: what is known of the operation?"""
        client = self.clients[number]
        assert client.pending is not None
        op, (name, incarnation) = client.pending.op, client.pending.at
        node = self.cluster.nodes[name]
        alive = node.incarnation == incarnation
        late = self.cluster.now_ms * 1_000_000 - op.invoke_ns > self.patience_ms * 1_000_000
        if alive and (not late or node.paused):
            return
        withdrawn = alive and self.cluster.input(node, lambda core: _withdraw(core, op))
        client.pending = None
        if withdrawn or op.f == "read":
            op.type, op.return_ns = "fail", self._now_ns()
            self.refused += 1
        else:
            self.clients[number] = self._client(client.node)

    def replied(self, node: Node, reply: Reply) -> None:
        """An answer has reached its client."""
        for client in self.clients:
            if client.pending is not None and client.pending.op.index == reply.request:
                break
        else:
            return  # it has given up
        pending, client.pending = client.pending, None
        op = pending.op
        core: Any = node.core
        client.session = reply.session
        write: Write | None = reply.write
        op.type, op.return_ns = "ok", self._now_ns()
        op.version = None if write is None else core.version(write)
        if op.f == "read":
            op.output = None if write is None or write.value is None else write.value.decode()
            self.served += 1
            self._check_read(node, op, write, pending.depends)
            client.seen = client.seen.after_reading(write)
        else:
            assert write is not None
            self.answered += 1
            assert write.value is not None
            self.acknowledged[reply.request], self.dots[reply.request] = write.value, write.dot
            client.seen = client.seen.after_writing(write)

    def _check_read(
        self, node: Node, op: Asked, found: Write | None, depends: VersionVector
    ) -> None:
        for write in self.writes.get(op.key, ()):
            known = write.number <= depends.get(write.origin, 0)
            if known and (found is None or found.version < write.version):
                raise Violation(BACK, f"{node.name} answers {found}, the session has seen {write}")

    def final_reads(self) -> None:
        """Every key at every node, once nothing happens any more."""
        for name, node in self.cluster.nodes.items():
            core: Any = node.core
            for key in sorted(core.states):
                write = core.states[key]
                self._processes += 1
                now = self._now_ns()
                read = Asked(
                    self._processes, "read", key, None, now, len(self.ops), name, now, "ok"
                )
                read.output, read.version = write.value.decode(), core.version(write)
                read.final = True
                self.ops.append(read)


def _withdraw(core: Any, op: Asked) -> bool:
    withdrawn: bool = core.withdraw(op.index)
    return withdrawn


class CausalObserver:
    """Implements `cluster.Observer`. `disks`: the dots on each node's disk."""

    def __init__(self, workload: CausalWorkload) -> None:
        self.workload = workload
        self.told: dict[str, int] = {}
        self.writes: dict[tuple[str, int], Write] = {}
        self.disks: dict[str, VersionVector] = {}
        self.wiped = 0

    def spare(self, node: Node) -> bool:
        """Has another disk all that is on this one? Then it may be lost, and is."""
        own = self.disks[node.name]
        spare = any(covers(its, own) for name, its in self.disks.items() if name != node.name)
        if spare:
            self.wiped += 1
            self.disks[node.name] = {}
        return spare

    def started(self, node: Node) -> None:
        _core(node).check_invariants()
        self.disks[node.name] = {}
        self._records(node, node.disk.records)

    def stepped(self, node: Node, ready: Any) -> None:
        self._records(node, ready.persist)
        for event in ready.events:
            self.told[event.name] = self.told.get(event.name, 0) + 1
        if ready.events or ready.persist:
            _core(node).check_invariants()

    def _records(self, node: Node, records: list[Any]) -> None:
        disk = self.disks[node.name]
        for record in records:
            if isinstance(record, Base | Whole):
                disk.update(merge(disk, record.applied))
            if not isinstance(record, Applied):
                continue
            write = record.write
            assert write.value is not None
            if write.dot not in self.writes:
                self.workload.writes.setdefault(write.key, []).append(write)
            known = self.writes.setdefault(write.dot, write)
            if (known.key, known.value) != (write.key, write.value):
                raise Violation(DOT, f"{write.dot} is {known}, at {node.name} {write}")
            depends = self.workload.depends[write.value]
            if not covers(disk, depends):
                raise Violation(CAUSE, f"{node.name} with {disk} applies {write.dot}, which "
                                f"depends on {depends}")  # fmt: skip
            disk[write.origin] = max(disk.get(write.origin, 0), write.number)

    def applied(self, node: Node, entry: Any) -> None:
        raise AssertionError("there is no log")

    restored = applied


def _core(node: Node) -> Causal:
    core: Any = node.core
    assert isinstance(core, Causal)
    return core


@dataclass(slots=True)
class Outcome:
    """What a run did; for the reader of a summary, and to see that runs do something at all."""

    seed: int
    steps: int
    levels: tuple[Level, ...]
    acknowledged: int
    reads: int
    refused: int
    crashes: int
    waits: int
    resends: int
    wiped: int
    refills: int


class CausalRun(LeaderlessRun[Outcome]):
    """One seed: draw nodes, level and replication, run, heal, demand convergence, check."""

    workload: CausalWorkload

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = self.random = Random(f"causal {seed}")
        names = [f"n{number}" for number in range(1, random.choice(SIZES) + 1)]
        # One for all requests, or each request its own.
        self.levels: tuple[Level, ...] = random.choice((*MODES, MODES[0]))
        self.resend_ticks = random.choice((3, 10))
        self.anti_entropy_ticks = random.choice((0, 5, 30))
        self.core = bug.core or Causal
        self.workload = workload = CausalWorkload(random, self.levels, names)
        self.invariants = CausalObserver(workload)
        # (Drawn apart, so that the other runs are those that they were.)
        wipes = bug.persist_before_send and Random(f"wipes {seed}").random() < 0.2
        spare = self.invariants.spare if wipes and self.anti_entropy_ticks else None
        self.nemesis = LeaderlessNemesis(random, drift=0.3, spare=spare)
        self._build(names, 0.3, bug, trace)

    def _make_core(self, node: str, peers: tuple[str, ...], records: list[Any]) -> Causal:
        return self.core(
            node,
            peers,
            random=Random(self.random.getrandbits(64)),
            records=records,
            resend_ticks=self.resend_ticks,
            anti_entropy_ticks=self.anti_entropy_ticks,
        )

    def outcome(self) -> Outcome:
        told, workload = self.invariants.told, self.workload
        return Outcome(
            *(self.seed, self.cluster.steps, self.levels, len(workload.acknowledged)),
            *(workload.served, workload.refused, self.crashes),
            *(told.get("wait_for_session", 0), told.get("resend", 0)),
            *(self.invariants.wiped, told.get("refilled", 0)),
        )

    # ---- the end ----------------------------------------------------------------------------

    def _cores(self) -> list[Causal]:
        return [_core(node) for node in self.cluster.nodes.values()]

    def _converged(self) -> bool:
        first = self._cores()[0]
        return all(core.applied == first.applied and not core.waiting for core in self._cores())

    def _check_end(self) -> None:
        writes, workload = self.invariants.writes, self.workload
        newest: dict[str, Write] = {}
        for write in writes.values():
            if write.key not in newest or write.version > newest[write.key].version:
                newest[write.key] = write
        for node in self.cluster.nodes.values():
            core = _core(node)
            for request, dot in workload.dots.items():
                if not covers(core.applied, {dot[0]: dot[1]}):
                    value = workload.acknowledged[request]
                    raise Violation(LOST, f"{node.name} with {core.applied} lacks {value!r}, {dot}")
            held = {key: write.dot for key, write in core.states.items()}
            wanted = {key: write.dot for key, write in newest.items()}
            if held != wanted:
                raise Violation("convergence", f"{node.name} holds {held}, not {wanted}")
            node.disk.sync()
            for records in (node.disk.records, core.image()):
                again = self._make_core(node.name, core.peers, records)
                if (again.states, again.applied) != (core.states, core.applied):
                    raise Violation("durability", f"{node.name} restarts as {again.status()}")
        workload.final_reads()
        if find_spec("msgspec") is not None and not self.invariants.wiped:
            # The labs' checkers need it; test_replay.py runs this file with the standard library
            # alone, and then what was checked above is all. (And where disks were lost, a version
            # is a number for two writes now and then: see `Causal.version`.)
            from tests.simulation.histories import check

            check(workload.ops, self.levels)
