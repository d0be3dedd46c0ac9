"""Viewstamped Replication in the simulation: its invariants over the whole group, one seeded run.

The paper's claim (§8) is that "every committed operation survives into all subsequent views in the
same position in the serial order". It is checked where it is decided: whenever a replica becomes
normal in a view, its log must hold all that was committed in views before, and from then on the
logs of one view are prefixes of each other (log matching, see tests/simulation/raft.py for why it
is enough to look at what a step has persisted).

Disks are wiped as well here, though never more than f before the first has recovered: that is what
the protocol promises to survive.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from services.protocols.core import Entry, Event, Ready, Snapshot
from services.protocols.viewstamped import Limits, Status, Viewstamped
from services.protocols.viewstamped.messages import ViewState
from tests.simulation.cluster import Cluster, Disk, Node, Trace, Violation
from tests.simulation.committed import DURABILITY, Commitment, CommittedLog, LogRun
from tests.simulation.nemesis import Nemesis
from tests.simulation.sessions import RetryingWorkload, SessionMachine
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (3,) * 8 + (5,) * 5 + (4, 2, 1)

ONE_PRIMARY = "one primary in a view"
APPEND_ONLY = "a primary only appends"
SURVIVES = "committed operations survive into all later views"


class ViewstampedInvariants(CommittedLog):
    """Implements `cluster.Observer`."""

    word = "view"

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster
        self.primaries: dict[int, tuple[str, int]] = {}  # view → replica and incarnation
        self._led: dict[str, tuple[int, int, int, int]] = {}  # incarnation, view, last entry
        self._normal: dict[str, tuple[int, int]] = {}  # incarnation, view that was checked
        self._views: dict[str, int] = {}
        self.installed = 0
        self.recovered = 0

    # ---- Observer ---------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        core = _core(node)
        core.check_invariants()
        self._led.pop(node.name, None)
        if core.view < self._views.get(node.name, 0) and node.disk.records:
            raise Violation(DURABILITY, f"{node.name} restarts in view {core.view}")
        self._views[node.name] = core.view
        self.log_matching(core, node.disk.records)

    def stepped(self, node: Node, ready: Ready) -> None:
        core = _core(node)
        if ready.persist:
            self.log_matching(core, ready.persist)
        if core.leading:
            self._primary(node, core, ready.persist)
        if core.status_ is Status.NORMAL:
            current = (node.incarnation, core.view)
            if self._normal.get(node.name) != current:
                self._normal[node.name] = current
                self._survives(core, 1)
            self._views[node.name] = max(core.view, self._views[node.name])
        if core.commit_number > len(self.committed):
            self._commit(core)
        for event in ready.events:
            self.installed += event.name == "install_snapshot"
            self.recovered += event.name == "recover"
        if ready.events or self.cluster.steps % 16 == 0:
            core.check_invariants()

    # ---- the properties ---------------------------------------------------------------------

    def term_at(self, core: Viewstamped, index: int) -> int | None:
        return core.log.term(index)

    def _primary(self, node: Node, core: Viewstamped, records: list[Any]) -> None:
        """In a view one replica leads, in one life of its process."""
        first = self.primaries.setdefault(core.view, (node.name, node.incarnation))
        if first != (node.name, node.incarnation):
            raise Violation(ONE_PRIMARY, f"{first} and {node.name} lead view {core.view}")
        log, before = core.log, self._led.get(node.name)
        if before is not None and before[:2] == (node.incarnation, core.view):
            last, last_view = before[2:]
            anew = any(isinstance(record, Snapshot) for record in records)
            written = [record.index for record in records if isinstance(record, Entry)]
            if log.term(last) not in (None, last_view) or (
                not anew and min(written, default=last + 1) <= last
            ):
                raise Violation(
                    APPEND_ONLY,
                    f"the log of {node.name} ended with {last} of view {last_view}; now it ends "
                    f"with {log.last_index}, and wrote {written}",
                )
        self._led[node.name] = (node.incarnation, core.view, log.last_index, log.last_term)

    def _survives(self, core: Viewstamped, first: int) -> None:
        """The log of a normal replica holds all that was committed in earlier views."""
        log = core.log
        for number in range(max(first, log.offset, 1), len(self.committed) + 1):
            known = self.committed[number - 1]
            if known.in_term < core.view and log.term(number) != known.term:
                raise Violation(
                    SURVIVES,
                    f"{core.node} is normal in view {core.view} with an entry of view "
                    f"{log.term(number)} at {number}, where {known} was committed",
                )

    def _commit(self, core: Viewstamped) -> None:
        first = len(self.committed) + 1
        for number in range(first, core.commit_number + 1):
            assert number > core.log.offset, f"{core.node} commits {number}, which nobody had"
            entry = core.log.entry(number)
            self.committed.append(Commitment(entry.term, entry.command, core.view))
        for node in self.cluster.nodes.values():
            if node.up and (other := _core(node)).status_ is Status.NORMAL:
                self._survives(other, first)


def _core(node: Node) -> Viewstamped:
    assert isinstance(node.core, Viewstamped)
    return node.core


class ViewstampedNemesis(Nemesis):
    """Wipes disks too, and knows this protocol's moments to strike."""

    def __init__(self, random: Random, *, drift: float, wipes: bool) -> None:
        super().__init__(random, drift=drift)
        self.wipes = wipes
        self.wiped: dict[str, None] = {}
        self.amnesia = random.choice((0.0, 0.0, 0.0, 0.7)) if wipes else 0.0
        if wipes and random.random() < 0.5:
            self.faults += [random.choice(("wipe", "wipe_leader"))] * random.choice((1, 2, 6))

    def _witness(self, node: Node, event: Event) -> None:
        super()._witness(node, event)
        if not self.running:
            return
        if event.name == "start_view_change" and self.random.random() < self.exile / 2:
            self._cut_off_leader(besides=node)
        elif event.name == "enter_view" and self.random.random() < self.amnesia:
            # Its DOVIEWCHANGE is under way: does it keep what that promises?
            self.cluster.after(self.random.randrange(10), self._wipe, node)
        elif event.name == "enter_view" and self.random.random() < self.crash_voter:
            self.cluster.after(0, self._crash, node)

    def _wipe(self, node: Node) -> None:
        """If the group can bear it: at any moment at most f have lost what they had promised."""
        nodes = self.cluster.nodes
        for name in list(self.wiped):
            if _promises(nodes[name].disk):
                del self.wiped[name]
        lost = len({**self.wiped, node.name: None})
        if self.running and lost <= (len(nodes) - 1) // 2:
            self.wiped[node.name] = None
            self._crash(node)
            self.cluster.tell(node, "is wiped")
            node.disk = Disk()

    def wipe(self) -> None:
        self._wipe(self._someone())

    def wipe_leader(self) -> None:
        self._wipe(self._leader())


def _promises(disk: Disk) -> bool:
    return any(isinstance(record, ViewState) for record in disk.records)


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
    recovered: int


class ViewstampedRun(LogRun[Outcome]):
    """One seed: draw a group and its troubles, run them, heal, demand convergence."""

    machine, shipped = SessionMachine, Viewstamped

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = Random(f"viewstamped {seed}")
        self.random = random
        names = [f"n{number}" for number in range(1, random.choice(SIZES) + 1)]
        self.election_ticks = random.choice((6, 8, 10))
        self.heartbeat_ticks = random.choice((1, 2, 3))
        self.limits = Limits(
            entries_per_message=random.choice((1, 1, 3, 64)),
            bytes_per_message=random.choice((12, 100_000)),
            snapshot_chunk_bytes=random.choice((7, 20, 1_000)),
            kept_entries=random.choice((0, 3, 20)),
            waiting_reads=random.choice((4, 1_000)),
            uncommitted_bytes=random.choice((30, 10_000)),
        )
        self.core = bug.core or Viewstamped
        self.invariants = ViewstampedInvariants()
        self.workload = RetryingWorkload(
            random,
            period_ms=random.choice((8, 20, 50)),
            reads=random.choice((0.1, 0.3, 0.6, 0.9)),
            leases=random.choice((0.0, 0.5, 1.0)),
        )
        # With leases clocks may be off by up to 10 % each way, which is inside what the lease
        # allows for. Everything else must hold with any clocks.
        trusting = self.workload.leases > 0
        drift = bug.clock_drift if trusting else random.choice((0.1, 0.6))
        # A wipe in a world that loses what was not synced would be one fault more than f.
        self.nemesis = ViewstampedNemesis(random, drift=drift, wipes=bug.persist_before_send)
        self._build(names, drift, bug, trace)

    def _lots(self) -> dict[str, Any]:
        return {"nonce": 1 + self.random.getrandbits(52)}

    def outcome(self) -> Outcome:
        return Outcome(
            self.seed,
            self.cluster.steps,
            max(self.invariants.primaries, default=0),
            len(self.invariants.committed),
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            self.invariants.installed,
            self.invariants.recovered,
        )

    # ---- the end ----------------------------------------------------------------------------

    def _converged(self) -> bool:
        cores = [_core(node) for node in self.cluster.nodes.values()]
        last = cores[0].log.last_index
        return all(
            core.status_ is Status.NORMAL and core.log.last_index == core.applied_index == last
            for core in cores
        ) and any(core.leading for core in cores)

    def _entries(self, core: Viewstamped) -> list[Entry]:
        return core.log.between(core.log.offset, core.log.last_index)

    def _restarted(self, core: Viewstamped, records: list[Any]) -> Viewstamped:
        return Viewstamped(core.node, core.peers, random=Random(0), nonce=1, records=records)

    def _check_restart(self, core: Viewstamped, again: Viewstamped) -> None:
        log, now = again.log, core.log
        after = max(log.offset, now.offset)
        same = (again.lives, log.last_index) == (core.lives, now.last_index)
        if core.peers:  # one that is alone moves to the next view as soon as it restarts
            same = same and again.last_normal_view == core.last_normal_view
        if not same or log.between(after, log.last_index) != now.between(after, now.last_index):
            raise Violation(DURABILITY, f"{core.node} would restart as {again.status()}")
