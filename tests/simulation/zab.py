"""Zab in the simulation: the properties of the paper over the whole ensemble, and one seeded run.

The properties (DSN 2011 §III) are about what is delivered; that two histories which hold the same
zxid are equal up to it is what they rest on, and is checked where it can first go wrong: when
entries are persisted. How this is checked after *every* step without walking every history every
time: see raft.py. By the end of a run histories, states and disks are compared as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from services.protocols.core import Entry, Event, Ready, Snapshot
from services.protocols.zab import Limits, Phase, State, Zab
from tests.simulation.cluster import Cluster, Node, Trace, Violation
from tests.simulation.committed import DURABILITY, Commitment, CommittedLog, LogRun
from tests.simulation.nemesis import Nemesis
from tests.simulation.sessions import RetryingWorkload, SessionMachine
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (3,) * 8 + (5,) * 5 + (4, 2, 1)


class ZabNemesis(Nemesis):
    """Reacts to Zab's words for what it knows under Raft's: a promise is a vote.

    And strikes those that are being synchronised: half of what can go wrong in Zab begins there.
    """

    def __init__(self, random: Random, *, drift: float) -> None:
        super().__init__(random, drift=drift)
        self.crash_learner = random.choice((0.0, 0.1, 0.4))

    def _witness(self, node: Node, event: Event) -> None:
        if event.name == "accept_epoch":
            super()._witness(node, Event("grant_vote", {"pre_vote": False}))
        super()._witness(node, event)
        if (
            event.name in ("accept_epoch", "accept_leader", "truncate_log", "become_candidate")
            and self.random.random() < self.crash_learner
        ):
            self.random.choice((self._crash_soon, self._doom, self._doom_soon))(node)


class ZabInvariants(CommittedLog):
    """Implements `cluster.Observer`. (A commitment's term is the epoch of its zxid.)"""

    word = "epoch"
    safety = snapshots = "total order"
    complete, matching = "agreement", "prefix of histories"

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster
        self.leaders: dict[int, str] = {}  # epoch → the node that opened it
        self._led: dict[str, tuple[int, int, int]] = {}  # incarnation, epoch, last counter
        self._epochs: dict[str, tuple[int, int]] = {}
        self.installed = 0  # snapshots that came from a leader
        self.truncated = 0

    # ---- Observer ---------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        zab = _zab(node)
        zab.check_invariants()
        self._led.pop(node.name, None)
        epochs = zab.accepted_epoch, zab.current_epoch
        # Whether it forgot a promise is not asked: what comes of that is for the primaries to show.
        self._epochs[node.name] = epochs
        # A crash in the middle of a write left a part of it that nobody has seen yet.
        self.log_matching(zab, node.disk.records)

    def stepped(self, node: Node, ready: Ready) -> None:
        zab = _zab(node)
        if ready.persist:
            self.log_matching(zab, ready.persist)
        if _opened(zab):
            self._leader(node, zab, ready.persist)
        if zab.commit_index > len(self.committed):
            self._commit(zab)
        epochs = zab.accepted_epoch, zab.current_epoch
        before = self._epochs[node.name]
        assert epochs[0] >= before[0], f"{node.name}: acceptedEpoch went back"
        assert epochs[1] >= before[1], f"{node.name}: currentEpoch went back"
        self._epochs[node.name] = epochs
        self.installed += any(event.name == "install_snapshot" for event in ready.events)
        self.truncated += any(event.name == "truncate_log" for event in ready.events)
        if ready.events or self.cluster.steps % 16 == 0:
            zab.check_invariants()

    def applied(self, node: Node, entry: Entry) -> None:
        """Integrity, and total order: all deliver the same, in the same order."""
        super().applied(node, entry)
        if (entry.index, entry.term) not in self.entries:
            raise Violation("integrity", f"{node.name} delivers {entry}, which nobody proposed")

    def term_at(self, core: Zab, index: int) -> int | None:
        return core.history.term(index)

    # ---- primaries --------------------------------------------------------------------------

    def _leader(self, node: Node, zab: Zab, records: list[Any]) -> None:
        epoch = zab.accepted_epoch
        first = self.leaders.setdefault(epoch, node.name)
        if first != node.name:
            raise Violation("one primary in an epoch", f"{first} and {node.name} lead {epoch}")
        before = self._led.get(node.name)
        if before is None or before[:2] != (node.incarnation, epoch):
            self._primary_integrity(zab, 1)
        elif zab.history.last_index < before[2]:
            raise Violation(
                "local primary order", f"the history of {zab.node}, the primary, got shorter"
            )
        elif not any(isinstance(record, Snapshot) for record in records):
            # (A snapshot writes the history anew.)
            self._local_primary_order(zab, records, before[2])
        self._led[node.name] = (node.incarnation, epoch, zab.history.last_index)

    def _local_primary_order(self, zab: Zab, records: list[Any], last_counter: int) -> None:
        """What a primary broadcasts has its epoch, and counters in the order of broadcasting."""
        for record in records:
            if not isinstance(record, Entry):
                continue
            last_counter += 1
            if (record.index, record.term) != (last_counter, zab.accepted_epoch):
                raise Violation(
                    "local primary order",
                    f"{zab.node} broadcasts {record}; {last_counter} of epoch "
                    f"{zab.accepted_epoch} is the next",
                )

    def _primary_integrity(self, zab: Zab, first: int) -> None:
        """A primary has in its history all that was committed in earlier epochs."""
        history = zab.history
        for counter in range(max(first, history.offset), len(self.committed) + 1):
            known = self.committed[counter - 1] if counter else None
            if known is None or known.in_term >= zab.accepted_epoch:
                continue
            if history.term(counter) != known.term:
                raise Violation(
                    "primary integrity",
                    f"{zab.node} leads epoch {zab.accepted_epoch} with epoch "
                    f"{history.term(counter)} at {counter}, where {known} was committed",
                )

    def _commit(self, zab: Zab) -> None:
        first = len(self.committed) + 1
        for counter in range(first, zab.commit_index + 1):
            assert counter > zab.history.offset, f"{zab.node} commits {counter}; nobody had"
            entry = zab.history.between(counter - 1, counter)[0]
            if self.committed and entry.term < self.committed[-1].term:
                raise Violation(
                    "global primary order", f"{entry} is committed after {self.committed[-1]}"
                )
            self.committed.append(Commitment(entry.term, entry.command, zab.current_epoch))
        epoch = zab.current_epoch
        for node in self.cluster.nodes.values():
            if node.up and _opened(other := _zab(node)) and other.accepted_epoch > epoch:
                self._primary_integrity(other, first)


def _opened(zab: Zab) -> bool:
    """Is it a leader whose epoch a quorum has promised, so that its initial history is fixed?"""
    return zab.state is State.LEADING and zab.phase >= Phase.SYNCHRONISATION


def _zab(node: Node) -> Zab:
    assert isinstance(node.core, Zab)
    return node.core


@dataclass(slots=True)
class Outcome:
    """What a run did; for the reader of a summary, and to see that runs do something at all."""

    seed: int
    steps: int
    epochs: int
    committed: int
    acknowledged: int
    reads: int
    crashes: int
    snapshots: int
    truncations: int


class ZabRun(LogRun[Outcome]):
    """One seed: draw an ensemble and its troubles, run them, heal, demand convergence."""

    machine, shipped = SessionMachine, Zab

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = Random(f"zab {seed}")
        self.random = random
        names = [f"n{number}" for number in range(1, random.choice(SIZES) + 1)]
        self.election_ticks = random.choice((6, 8, 10))
        self.heartbeat_ticks = random.choice((1, 2, 3))
        self.limits = Limits(
            entries_per_message=random.choice((1, 1, 3, 64)),
            bytes_per_message=random.choice((12, 100_000)),
            messages_in_flight=random.choice((1, 2, 16)),
            snapshot_chunk_bytes=random.choice((20, 50, 5_000)),
            kept_entries=random.choice((0, 3, 20)),
            waiting_reads=random.choice((4, 1_000)),
            uncommitted_bytes=random.choice((30, 10_000)),
        )
        self.core = bug.core or Zab
        self.invariants = ZabInvariants()
        self.workload = RetryingWorkload(
            random,
            period_ms=random.choice((8, 20, 50)),
            reads=random.choice((0.1, 0.3, 0.6, 0.9)),
            leases=0.0,
        )
        drift = random.choice((0.1, 0.6))  # nothing depends on the clocks
        self.nemesis = ZabNemesis(random, drift=drift)
        if self.nemesis.theme == "regicide":
            names = names[: random.choice((3, 5))]
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
            self.invariants.truncated,
        )

    # ---- the end ----------------------------------------------------------------------------

    def _converged(self) -> bool:
        cores = [_zab(node) for node in self.cluster.nodes.values()]
        last = cores[0].history.last_index
        return all(core.history.last_index == core.applied_index == last for core in cores) and any(
            core.leads() for core in cores
        )

    def _entries(self, core: Zab) -> list[Entry]:
        return core.history.between(core.history.offset, core.history.last_index)

    def _check_restart(self, core: Zab, again: Zab) -> None:
        there, here = again.history, core.history
        same = (again.current_epoch, there.last) == (core.current_epoch, here.last)
        after = max(there.offset, here.offset)
        last = here.last_index
        # Not the promise: what comes of losing that is for the primaries to show.
        if not same or there.between(after, last) != here.between(after, last):
            raise Violation(DURABILITY, f"{core.node} would restart as {again.status()}")
