"""Primary and backups in the simulation: what log shipping does promise, and one seeded run.

It promises less than consensus, so each seed draws a regime and is held to what that one says:

- *promotion none*: there is one primary for ever, and whatever it acknowledged is on its disk: no
  acknowledged write is lost and reads are linearizable, whether backups have the write or not.
- *promotion naive or longest_log, synchronous*: every node has what was acknowledged, so whoever
  takes over has it, and a primary that was left behind can acknowledge nothing: the same promises.
- *promotion naive or longest_log, asynchronous or semi-synchronous*: acknowledged writes go (the
  labs show it; what `longest_log` does keep, see tests/protocols/primary_backup).
  Left are: one primary in an epoch, histories that agree where they hold the same entry, and that
  all nodes are alike in the end.

How histories are compared after *every* step without walking them: see raft.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from services.protocols.core import Entry, Event, Ready, Snapshot
from services.protocols.primary_backup import PrimaryBackup
from tests.simulation.cluster import Cluster, Node, Trace, Violation
from tests.simulation.nemesis import Nemesis
from tests.simulation.run import Run
from tests.simulation.sessions import RetryingWorkload, SessionMachine
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (3,) * 8 + (5,) * 3 + (2,) * 4 + (1,)
REGIMES = (
    ("asynchronous", "none"),
    ("semi_synchronous", "none"),
    ("synchronous", "none"),
    ("synchronous", "naive"),
    ("synchronous", "naive"),
    ("asynchronous", "naive"),
    ("semi_synchronous", "naive"),
    ("synchronous", "longest_log"),
    ("semi_synchronous", "longest_log"),
)

ONE_PRIMARY = "one primary in an epoch"
PREFIX = "prefix of histories"
APPEND_ONLY = "a primary only appends"
SAFETY = "state-machine safety"
ONCE = "exactly once"
LOST = "acknowledged, never lost"
DURABILITY = "durability"


RAFTS = {"become_primary": "become_leader", "miss_heartbeats": "become_candidate"}


class PrimaryBackupNemesis(Nemesis):
    """Reacts to this protocol's words for what it knows under Raft's."""

    def _witness(self, node: Node, event: Event) -> None:
        super()._witness(node, Event(RAFTS.get(event.name, event.name), event.fields))


class PrimaryBackupInvariants:
    """Implements `cluster.Observer`. `promised`: is no acknowledged write ever to be lost?"""

    def __init__(self, *, promised: bool) -> None:
        self.promised = promised
        self.cluster: Cluster
        self.primaries: dict[int, str] = {}  # epoch → the node that led it
        self.entries: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.committed: list[tuple[int, bytes]] = []  # epoch and command, at position index - 1
        self._led: dict[str, tuple[int, int, int]] = {}  # incarnation, epoch, last index
        self._epochs: dict[str, int] = {}
        self.installed = 0  # snapshots that came from a primary
        self.discarded = 0

    # ---- Observer ---------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        core = _core(node)
        if core.epoch < (told := self._epochs.get(node.name, 1)):
            raise Violation(
                DURABILITY, f"{node.name} restarts in epoch {core.epoch} and had been in {told}"
            )
        core.check_invariants()
        self._led.pop(node.name, None)
        self._prefixes(core, node.disk.records)

    def stepped(self, node: Node, ready: Ready) -> None:
        core = _core(node)
        if ready.persist:
            self._prefixes(core, ready.persist)
        if core.is_primary:
            self._primary(node, core)
        self._epochs[node.name] = core.epoch
        for event in ready.events:
            self.installed += event.name == "install_snapshot"
            self.discarded += event.name == "discard_suffix"
        if ready.events or self.cluster.steps % 16 == 0:
            core.check_invariants()

    def applied(self, node: Node, entry: Entry) -> None:
        if not self.promised:
            return
        if entry.index > len(self.committed):
            self.committed.append((entry.term, entry.command))
        elif (known := self.committed[entry.index - 1]) != (entry.term, entry.command):
            raise Violation(SAFETY, f"{node.name} applies {entry}, {known} was acknowledged there")

    def restored(self, node: Node, snapshot: Snapshot) -> None:
        index = snapshot.last_index
        if not self.promised or not index:
            return
        if index > len(self.committed) or self.committed[index - 1][0] != snapshot.last_term:
            raise Violation(
                SAFETY,
                f"{node.name} restores up to {index} of epoch {snapshot.last_term}, which was not "
                f"acknowledged",
            )
        if node.machine.values != self.state_at(index):
            raise Violation(ONCE, f"{node.name} restores another state than the log's at {index}")

    def state_at(self, index: int) -> dict[str, str]:
        machine = SessionMachine()
        for position, (epoch, command) in enumerate(self.committed[:index], 1):
            machine.apply(Entry(position, epoch, command))
        return machine.values

    # ---- the properties ---------------------------------------------------------------------

    def _prefixes(self, core: PrimaryBackup, records: list[Any]) -> None:
        """Two histories that hold the same (index, epoch) are equal up to it."""
        log = core.history.log
        for record in records:
            if not isinstance(record, Entry) or not log.base_index < record.index <= log.last_index:
                continue
            if log.term(record.index) != record.term:
                continue  # one that the same step replaced again
            seen = (record.command, log.term(record.index - 1))
            known = self.entries.setdefault((record.index, record.term), seen)
            if known != seen:
                raise Violation(
                    PREFIX,
                    f"{core.node} has {record} after epoch {seen[1]}, another history has "
                    f"{known[0]!r} after epoch {known[1]} there",
                )

    def _primary(self, node: Node, core: PrimaryBackup) -> None:
        first = self.primaries.setdefault(core.epoch, node.name)
        if first != node.name:
            raise Violation(ONE_PRIMARY, f"{first} and {node.name} are primary of {core.epoch}")
        last_index = core.history.log.last_index
        before = self._led.get(node.name)
        if before and before[:2] == (node.incarnation, core.epoch) and last_index < before[2]:
            raise Violation(
                APPEND_ONLY, f"the log of {node.name} ended with {before[2]}, now with {last_index}"
            )
        self._led[node.name] = (node.incarnation, core.epoch, last_index)


def _core(node: Node) -> PrimaryBackup:
    assert isinstance(node.core, PrimaryBackup)
    return node.core


@dataclass(slots=True)
class Outcome:
    """What a run did; for the reader of a summary, and to see that runs do something at all."""

    seed: int
    steps: int
    promised: bool
    primaries: int
    acknowledged: int
    reads: int
    crashes: int
    snapshots: int
    discarded: int


class PrimaryBackupRun(Run[Outcome]):
    """One seed: draw a regime, a cluster and its troubles, run them, heal, demand convergence."""

    machine = SessionMachine

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = self.random = Random(f"primary-backup {seed}")
        self.acknowledgement, self.promotion = random.choice(REGIMES)
        names = [f"n{number}" for number in range(1, random.choice(SIZES) + 1)]
        if self.acknowledgement == "semi_synchronous":
            names = names if len(names) > 1 else ["n1", "n2"]
        promised = self.promotion == "none" or self.acknowledgement == "synchronous"
        self.election_ticks = random.choice((6, 8, 10))
        self.heartbeat_ticks = random.choice((1, 2, 3))
        self.uncommitted_max = random.choice((5, 1_000))
        self.catch_up_entries = random.choice((0, 3, 20))
        self.core = bug.core or PrimaryBackup
        self.invariants = PrimaryBackupInvariants(promised=promised)
        self.workload = RetryingWorkload(
            random,
            period_ms=random.choice((4, 8, 20, 50)),
            reads=random.choice((0.1, 0.3, 0.6)),
            leases=0.0,
        )
        self.workload.linearizable = promised
        drift = random.choice((0.1, 0.6))  # nothing depends on the clocks
        self.nemesis = PrimaryBackupNemesis(random, drift=drift)
        self._build(names, drift, bug, trace)

    def _make_core(self, node: str, peers: tuple[str, ...], records: list[Any]) -> PrimaryBackup:
        return self.core(node, peers, records=records, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {
            "random": Random(0),  # this protocol draws no lots
            "acknowledgement": self.acknowledgement,
            "promotion": self.promotion,
            "election_ticks": self.election_ticks,
            "heartbeat_ticks": self.heartbeat_ticks,
            "uncommitted_max": self.uncommitted_max,
            "catch_up_entries": self.catch_up_entries,
        }

    def outcome(self) -> Outcome:
        return Outcome(
            self.seed,
            self.cluster.steps,
            self.invariants.promised,
            len(self.invariants.primaries),
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            self.invariants.installed,
            self.invariants.discarded,
        )

    # ---- the end ----------------------------------------------------------------------------

    def _converged(self) -> bool:
        cores = [_core(node) for node in self.cluster.nodes.values()]
        logs = [core.history.log for core in cores]
        ends = {
            (core.epoch, log.last_index, log.digest(log.last_index), core.history.delivered_index)
            for core, log in zip(cores, logs, strict=True)
        }
        return (
            len(ends) == 1
            and cores[0].history.delivered_index == logs[0].last_index
            and sum(core.is_primary for core in cores) == 1
        )

    def _check_end(self) -> None:
        committed = self.invariants.committed
        nodes = list(self.cluster.nodes.values())
        if self.invariants.promised:
            for index, command in self.workload.acknowledged.items():
                if committed[index - 1][1] != command:
                    raise Violation(LOST, f"{command!r} at {index}")
            state = self.invariants.state_at(len(committed))
            if nodes[0].machine.applied_index != len(committed):
                raise Violation(LOST, f"{len(committed)} were acknowledged, {nodes[0].name} has "
                                f"{nodes[0].machine.applied_index}")  # fmt: skip
        else:
            state = nodes[0].machine.values
        for node in nodes:
            core = _core(node)
            core.check_invariants()
            if node.machine.values != state:
                raise Violation(ONCE, f"{node.name} holds {node.machine.values}, not {state}")
            self._check_disk(node, core)

    def _check_disk(self, node: Node, core: PrimaryBackup) -> None:
        """What it would be after a restart is what it is."""
        node.disk.sync()
        again = PrimaryBackup(core.node, core.peers, records=node.disk.records, **self._settings())
        there, here = again.history.log, core.history.log
        ends = [(log.last_index, log.digest(log.last_index)) for log in (there, here)]
        if again.epoch != core.epoch or ends[0] != ends[1]:
            raise Violation(DURABILITY, f"{node.name} would restart as {again.status()}")
