"""Multi-Paxos in the simulation: the papers' invariants over the whole cluster, and one seeded run.

*Ghosts.* What no node of a real system can see, the observer can: every acceptance that is on some
disk, hence what is *chosen* (accepted in one ballot by a majority) in the very step in which it
becomes so, before anybody has learned it. Decisions are then held against what is chosen, and
acceptances and proposals of higher ballots as well. A step changes one node, and what it accepts it
persists, so it is enough to look at the records of each step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from services.protocols.core import Entry, Event, Ready, Snapshot
from services.protocols.paxos import Limits, Paxos, Role
from services.protocols.paxos.messages import Accepted as AcceptedRecord
from services.protocols.paxos.messages import P2a
from tests.simulation.cluster import Cluster, Node, Trace, Violation
from tests.simulation.committed import DURABILITY, Commitment, CommittedLog, LogRun
from tests.simulation.nemesis import Nemesis
from tests.simulation.sessions import RetryingWorkload, SessionMachine
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (3,) * 8 + (5,) * 5 + (4, 2, 1)

Value = tuple[int, bytes]  # the ballot in which a command was first proposed, and the command


class PaxosInvariants(CommittedLog):
    """Implements `cluster.Observer`. (A commitment's term is the ballot of its first proposal.)"""

    word = "ballot"
    safety, complete, matching, snapshots = "R1", "R2", "R1", "R3"

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster
        self.leaders: dict[int, str] = {}  # ballot → the node that was active in it
        self.proposed: dict[tuple[int, int], Value] = {}  # (ballot, slot) →
        self.accepted: dict[int, dict[int, Value]] = {}  # slot → ballot →
        self.acceptors: dict[tuple[int, int], set[str]] = {}  # (ballot, slot) → who
        self.chosen: dict[int, tuple[int, Value]] = {}  # slot → the lowest such ballot, and value
        self._highest: dict[str, dict[int, int]] = {}  # node → slot → ballot it accepted in
        self._ballots: dict[str, int] = {}
        self._decided: dict[str, int] = {}
        self.installed = 0  # snapshots that came from another node
        self.adopted = 0  # values of earlier ballots that a new leader proposed again
        self.no_ops = 0  # gaps that a new leader filled

    # ---- Observer ---------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        paxos = _paxos(node)
        paxos.check_invariants()
        if paxos.ballot < self._ballots.get(node.name, 0):
            raise Violation(
                "A1",
                f"{node.name} had adopted {self._ballots[node.name]}, and restarts with "
                f"{paxos.ballot}",
            )
        self._ballots[node.name] = paxos.ballot
        self._decided[node.name] = paxos.slots.decided
        self._kept(paxos)
        # A crash in the middle of a write left a part of it that nobody has seen yet.
        self._accept(node.name, node.disk.records)

    def stepped(self, node: Node, ready: Ready) -> None:
        paxos = _paxos(node)
        self._adopt(paxos, ready)
        self._propose(ready)
        self._accept(node.name, ready.persist)
        if paxos.role is Role.LEADER:
            first = self.leaders.setdefault(paxos.ballot, node.name)
            if first != node.name:
                raise Violation(
                    "one leader in a ballot", f"{first} and {node.name} lead {paxos.ballot}"
                )
        if paxos.slots.decided > len(self.committed):
            self._decide(paxos)
        if paxos.slots.decided < self._decided[node.name]:
            raise Violation("R4", f"{node.name} had decided {self._decided[node.name]} slots")
        self._decided[node.name] = paxos.slots.decided
        for event in ready.events:
            self._count(event)
        if ready.events or self.cluster.steps % 16 == 0:
            paxos.check_invariants()

    def applied(self, node: Node, entry: Entry) -> None:
        if entry.index > len(self.committed):
            raise Violation("R2", f"{node.name} applies {entry}, which nobody has decided")
        super().applied(node, entry)

    def _count(self, event: Event) -> None:
        if event.name == "become_leader":
            self.adopted += event.fields["adopted"]
            self.no_ops += event.fields["no_ops"]
        elif event.name == "install_snapshot":
            self.installed += 1

    # ---- acceptors --------------------------------------------------------------------------

    def _adopt(self, paxos: Paxos, ready: Ready) -> None:
        """A1 and A2, within the life of a process."""
        before = self._ballots[paxos.node]
        if paxos.ballot < before:
            raise Violation("A1", f"{paxos.node} had adopted {before}, and adopts {paxos.ballot}")
        for record in ready.persist:
            if isinstance(record, AcceptedRecord) and not (
                record.ballot >= before or any(isinstance(r, Snapshot) for r in ready.persist)
            ):
                raise Violation("A2", f"{paxos.node} had adopted {before}, and records {record}")
        self._ballots[paxos.node] = paxos.ballot

    def _accept(self, name: str, records: list[Any]) -> None:
        for record in records:
            if isinstance(record, AcceptedRecord):
                for entry in record.entries:
                    self._accept_one(name, record.ballot, entry)

    def _accept_one(self, name: str, ballot: int, entry: Entry) -> None:
        slot, value = entry.index, (entry.term, entry.command)
        known = self.accepted.setdefault(slot, {}).setdefault(ballot, value)
        if known != value:
            raise Violation(
                "A4", f"{name} accepts {value} in ballot {ballot}, slot {slot}; others {known}"
            )
        self._higher("A5", ballot, slot, value)
        by = self.acceptors.setdefault((ballot, slot), set())
        by.add(name)
        highest = self._highest.setdefault(name, {})
        highest[slot] = max(ballot, highest.get(slot, 0))
        first = self.chosen.get(slot)
        if len(by) > len(self.cluster.names) // 2 and (first is None or ballot < first[0]):
            self.chosen[slot] = (ballot, value)
            for other, what in self.accepted[slot].items():
                self._higher("A5", other, slot, what)

    def _kept(self, paxos: Paxos) -> None:
        """A3: what it accepted it still has, or that of a higher ballot, or a decision."""
        for slot, ballot in self._highest.get(paxos.node, {}).items():
            held = paxos.slots.accepted.get(slot)
            if slot > paxos.slots.decided and (held is None or held.ballot < ballot):
                raise Violation(
                    "A3", f"{paxos.node} had accepted in ballot {ballot}, slot {slot}; now {held}"
                )

    def _higher(self, invariant: str, ballot: int, slot: int, value: Value) -> None:
        """What a majority has accepted in a ballot is the only value in higher ones."""
        first = self.chosen.get(slot)
        if first is not None and ballot > first[0] and value != first[1]:
            raise Violation(
                invariant,
                f"{value} in ballot {ballot}, slot {slot}, where a majority accepted {first[1]} "
                f"in ballot {first[0]}",
            )

    # ---- leaders ----------------------------------------------------------------------------

    def _propose(self, ready: Ready) -> None:
        for message in ready.messages:
            if not isinstance(message, P2a):
                continue
            for entry in message.entries:
                slot, value = entry.index, (entry.term, entry.command)
                known = self.proposed.setdefault((message.ballot, slot), value)
                if known != value:
                    raise Violation(
                        "C1", f"{message.src} proposes {value} in slot {slot}, and {known} before"
                    )
                self._higher("C2", message.ballot, slot, value)

    # ---- replicas ---------------------------------------------------------------------------

    def _decide(self, paxos: Paxos) -> None:
        slots = paxos.slots
        for slot in range(len(self.committed) + 1, slots.decided + 1):
            if slot <= slots.offset:
                raise Violation("R2", f"{paxos.node} has {slot} in a snapshot; nobody decided it")
            entry = slots.decision(slot)
            value = (entry.term, entry.command)
            if slot not in self.chosen or self.chosen[slot][1] != value:
                raise Violation(
                    "R1",
                    f"{paxos.node} decides {value} in slot {slot}, where "
                    + (f"{self.chosen[slot]} is" if slot in self.chosen else "nothing is")
                    + " accepted by a majority",
                )
            self.committed.append(Commitment(*value, paxos.ballot))


def _paxos(node: Node) -> Paxos:
    assert isinstance(node.core, Paxos)
    return node.core


@dataclass(slots=True)
class Outcome:
    """What a run did; for the reader of a summary, and to see that runs do something at all."""

    seed: int
    steps: int
    leaders: int
    decided: int
    acknowledged: int
    reads: int
    crashes: int
    snapshots: int
    adopted: int
    no_ops: int


class PaxosRun(LogRun[Outcome]):
    """One seed: draw a cluster and its troubles, run them, heal, demand convergence."""

    machine, shipped = SessionMachine, Paxos

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = Random(f"paxos {seed}")
        self.random = random
        names = [f"n{number}" for number in range(1, random.choice(SIZES) + 1)]
        self.election_ticks = random.choice((6, 8, 10))
        self.heartbeat_ticks = random.choice((1, 2, 3))
        self.limits = Limits(
            window=random.choice((1, 2, 5, 64)),
            entries_per_message=random.choice((1, 1, 3, 64)),
            bytes_per_message=random.choice((12, 100_000)),
            snapshot_chunk_bytes=random.choice((20, 50, 5_000)),
            kept_entries=random.choice((0, 3, 20)),
            waiting_reads=random.choice((4, 1_000)),
            uncommitted_bytes=random.choice((30, 10_000)),
        )
        self.core = bug.core or Paxos
        self.invariants = PaxosInvariants()
        self.workload = RetryingWorkload(
            random,
            period_ms=random.choice((4, 8, 20, 50)),
            reads=random.choice((0.1, 0.3, 0.6, 0.9)),
            leases=random.choice((0.0, 0.5, 1.0)),
        )
        # With leases clocks may be off by up to 10 % each way, which is inside what the lease
        # allows for. Everything else must hold with any clocks.
        trusting = self.workload.leases > 0
        drift = 0.1 if trusting else random.choice((0.1, 0.6))
        self.nemesis = Nemesis(random, drift=drift)
        if self.nemesis.theme == "regicide":
            names = names[: random.choice((3, 5))]
            self.limits = replace(self.limits, entries_per_message=1)
        self._build(names, drift, bug, trace)

    def outcome(self) -> Outcome:
        return Outcome(
            self.seed,
            self.cluster.steps,
            len(self.invariants.leaders),
            len(self.invariants.committed),
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            self.invariants.installed,
            self.invariants.adopted,
            self.invariants.no_ops,
        )

    # ---- the end ----------------------------------------------------------------------------

    def _converged(self) -> bool:
        """(Followers may hold pvalues beyond: of leaders that were gone before a majority had
        accepted, and that the present one has no need to know of.)"""
        cores = [_paxos(node) for node in self.cluster.nodes.values()]
        decided = max(core.slots.decided for core in cores)
        leaders = [core for core in cores if core.role is Role.LEADER]
        return (
            all(core.applied_index == decided for core in cores)
            and bool(leaders)
            and max(leaders, key=lambda core: core.ballot).next_slot == decided + 1
        )

    def _entries(self, core: Paxos) -> list[Entry]:
        return core.slots.between(core.slots.offset, core.slots.decided)

    def _check_restart(self, core: Paxos, again: Paxos) -> None:
        """A restart keeps every acceptance that is not known to be decided, and the decisions."""
        # Not the promise: that is A1, checked at each restart.
        here, there = core.slots, again.slots
        kept = {
            slot: pvalue.entry
            for slot, pvalue in there.accepted.items()
            if slot not in here.accepted
        }
        found = {entry.index: entry for entry in there.between(there.offset, there.decided)}
        for entry in here.between(max(here.offset, there.offset), here.decided):
            if {**kept, **found}.get(entry.index) != entry:
                raise Violation(DURABILITY, f"{core.node} would restart without {entry}")
        for slot, pvalue in here.accepted.items():
            if there.accepted.get(slot) != pvalue:
                raise Violation(DURABILITY, f"{core.node} would restart without {pvalue}")
