"""Raft in the simulation: the properties of figure 3 over the whole cluster, and one seeded run.

How the properties are checked after *every* step without walking every log every time: a step
changes one node, and what it changed in the log is what it persists. So for each entry persisted
it is enough to compare it, and the term before it, with what any node ever had at that index and
term: by induction from the front of the log that is log matching. Likewise commitments are
compared with one table of what was ever committed at an index. At the end of a run the logs are
compared entry by entry, and with what the disks hold, which does not rest on that induction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from services.protocols.core import Entry, Ready, Snapshot
from services.protocols.raft import Limits, Raft, Role
from tests.simulation.cluster import Cluster, Machine, Node, Trace, Violation
from tests.simulation.committed import DURABILITY, SAFETY, Commitment, CommittedLog, LogRun
from tests.simulation.nemesis import Nemesis
from tests.simulation.workload import Workload
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (3,) * 8 + (5,) * 5 + (4, 2, 1)


class RaftInvariants(CommittedLog):
    """Implements `cluster.Observer`."""

    word, machine, only_log = "term", Machine, SAFETY

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster
        self.leaders: dict[int, str] = {}  # term → the node that led it
        self._led: dict[str, tuple[int, int, int, int]] = {}  # incarnation, term, last entry
        self._terms: dict[str, int] = {}
        self.installed = 0  # snapshots that came from a leader

    # ---- Observer ---------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        raft = _raft(node)
        raft.check_invariants()
        self._led.pop(node.name, None)
        self._terms[node.name] = raft.term
        # A crash in the middle of a write left a part of it that nobody has seen yet.
        self.log_matching(raft, node.disk.records)

    def stepped(self, node: Node, ready: Ready) -> None:
        raft = _raft(node)
        if ready.persist:
            self.log_matching(raft, ready.persist)
        if raft.role is Role.LEADER:
            self._leader(node, raft, ready.persist)
        if raft.commit_index > len(self.committed):
            self._commit(raft)
        term = self._terms[node.name]
        if raft.term != term:
            assert raft.term > term, f"{node.name}: the term went back"
            self._terms[node.name] = raft.term
        if ready.events:
            self.installed += any(event.name == "install_snapshot" for event in ready.events)
        if ready.events or self.cluster.steps % 16 == 0:
            raft.check_invariants()

    # ---- figure 3 ---------------------------------------------------------------------------

    def term_at(self, core: Raft, index: int) -> int | None:
        return core.log.term(index)

    def _leader(self, node: Node, raft: Raft, records: list[Any]) -> None:
        first = self.leaders.setdefault(raft.term, node.name)
        if first != node.name:
            raise Violation("election safety", f"{first} and {node.name} lead term {raft.term}")
        log = raft.log
        before = self._led.get(node.name)
        if before is None or before[:2] != (node.incarnation, raft.term):
            self._leader_completeness(raft, 1)
        else:
            self._append_only(raft, records, *before[2:])
        self._led[node.name] = (node.incarnation, raft.term, log.last_index, log.last_term)

    def _append_only(self, raft: Raft, records: list[Any], last_index: int, last_term: int) -> None:
        log = raft.log
        if log.last_index < last_index or log.term(last_index) not in (None, last_term):
            raise Violation(
                "leader append-only",
                f"the log of {raft.node} ended with index {last_index} of term {last_term}; now "
                f"it ends with {log.last_index}, and has term {log.term(last_index)} there",
            )
        if not records or any(isinstance(record, Snapshot) for record in records):
            return  # which writes the log anew
        for record in records:
            if isinstance(record, Entry) and record.index <= last_index:
                raise Violation(
                    "leader append-only", f"{raft.node} wrote {record}, and had {last_index}"
                )

    def _leader_completeness(self, raft: Raft, first_index: int) -> None:
        """The log of a leader holds all that was committed in earlier terms."""
        log = raft.log
        for index in range(max(first_index, log.offset), len(self.committed) + 1):
            known = self.committed[index - 1] if index else None
            if known is None or known.in_term >= raft.term:
                continue
            if log.term(index) != known.term:
                raise Violation(
                    "leader completeness",
                    f"{raft.node} leads term {raft.term} with term {log.term(index)} at index "
                    f"{index}, where {known} was committed",
                )

    def _commit(self, raft: Raft) -> None:
        first_index = len(self.committed) + 1
        for index in range(first_index, raft.commit_index + 1):
            assert index > raft.log.offset, f"{raft.node} commits {index}, which nobody had"
            entry = raft.log.entry(index)
            self.committed.append(Commitment(entry.term, entry.command, raft.term))
        for node in self.cluster.nodes.values():
            if node.up and (other := _raft(node)).role is Role.LEADER and other.term > raft.term:
                self._leader_completeness(other, first_index)


def _raft(node: Node) -> Raft:
    assert isinstance(node.core, Raft)
    return node.core


@dataclass(slots=True)
class Outcome:
    """What a run did; for the reader of a summary, and to see that runs do something at all."""

    seed: int
    steps: int
    terms: int
    committed: int
    acknowledged: int
    reads: int
    crashes: int
    snapshots: int


class RaftRun(LogRun[Outcome]):
    """One seed: draw a cluster and its troubles, run them, heal, demand convergence."""

    shipped = Raft

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = Random(f"raft {seed}")
        self.random = random
        names = [f"n{number}" for number in range(1, random.choice(SIZES) + 1)]
        self.election_ticks = random.choice((6, 8, 10))
        self.heartbeat_ticks = random.choice((1, 2, 3))
        self.limits = Limits(
            entries_per_message=random.choice((1, 1, 3, 64)),
            bytes_per_message=random.choice((12, 100_000)),
            messages_in_flight=random.choice((1, 2, 16)),
            snapshot_chunk_bytes=random.choice((7, 20, 1_000)),
            kept_entries=random.choice((0, 3, 20)),
            waiting_reads=random.choice((4, 1_000)),
            uncommitted_bytes=random.choice((30, 10_000)),
        )
        self.core = bug.core or Raft
        self.invariants = RaftInvariants()
        self.workload = Workload(
            random,
            period_ms=random.choice((8, 20, 50)),
            reads=random.choice((0.1, 0.3, 0.6, 0.9)),
            leases=random.choice((0.0, 0.5, 1.0)),
        )
        # With leases clocks may be off by up to 10 % each way, which is inside what the lease
        # allows for. Everything else must hold with any clocks.
        trusting = self.workload.leases > 0
        drift = bug.clock_drift if trusting else random.choice((0.1, 0.6))
        self.nemesis = Nemesis(random, drift=drift)
        if self.nemesis.theme == "regicide":
            # Figure 8 has room for few bystanders, and its old entry must arrive by itself.
            names = names[:3]
            self.limits = replace(self.limits, entries_per_message=1)
        self._build(names, drift, bug, trace)

    def outcome(self) -> Outcome:
        return Outcome(
            self.seed,
            self.cluster.steps,
            max(self.invariants.leaders, default=0),
            len(self.invariants.committed),
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            self.invariants.installed,
        )

    # ---- the end ----------------------------------------------------------------------------

    def _converged(self) -> bool:
        cores = [_raft(node) for node in self.cluster.nodes.values()]
        last_index = cores[0].log.last_index
        return all(
            core.log.last_index == core.applied_index == last_index for core in cores
        ) and any(core.role is Role.LEADER for core in cores)

    def _entries(self, core: Raft) -> list[Entry]:
        return core.log.between(core.log.offset, core.log.last_index)

    def _check_restart(self, core: Raft, again: Raft) -> None:
        log = again.log
        # Not the vote: what comes of losing that is for election safety to show.
        same = (again.term, log.last_index) == (core.term, core.log.last_index)
        after = max(log.offset, core.log.offset)
        if not same or log.between(after, log.last_index) != core.log.between(
            after, log.last_index
        ):
            raise Violation(DURABILITY, f"{core.node} would restart as {again.status()}")
