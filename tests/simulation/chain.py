"""Chain replication in the simulation: its invariants over the whole chain, and one seeded run.

The paper proves its protocol by two invariants (§3), which are checked after every step between the
server that has just done something and its neighbours, if they are in the same epoch:

- *Update Propagation*: the history of a server is a prefix of its predecessor's;
- *Inprocess Requests*: a predecessor's history is its successor's and what it can still send.

The others say what a change of the chain must not do: lose what was acknowledged in an earlier one.
Why it is enough to look at what a step has persisted: tests/simulation/raft.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from services.protocols.chain import Chain, Limits
from services.protocols.chain.messages import Configuration
from services.protocols.core import Entry, Event, Ready
from tests.simulation.cluster import Cluster, Node, Trace, Violation
from tests.simulation.committed import DURABILITY, Commitment, CommittedLog, LogRun
from tests.simulation.nemesis import Nemesis
from tests.simulation.sessions import RetryingWorkload, SessionMachine
from tests.simulation.zoo.bug import CORRECT, Bug

SIZES = (3,) * 8 + (5,) * 5 + (4, 2, 1)

ONE_CHAIN = "one chain in an epoch"
PROPAGATION = "update propagation"
IN_PROCESS = "inprocess requests"
EVERY_MEMBER = "acknowledged means every member"
SURVIVES = "what is acknowledged survives into every later chain"


class ChainInvariants(CommittedLog):
    """Implements `cluster.Observer`."""

    word = "epoch"

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster
        self.chains: dict[int, Configuration] = {}
        self._epochs: dict[str, int] = {}
        self.installed = 0
        self.joined = 0

    # ---- Observer ---------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        core = _core(node)
        core.check_invariants()
        if core.epoch < self._epochs.get(node.name, 0):
            raise Violation(DURABILITY, f"{node.name} restarts in epoch {core.epoch}")
        self._epochs[node.name] = core.epoch
        self.log_matching(core, node.disk.records)

    def stepped(self, node: Node, ready: Ready) -> None:
        core = _core(node)
        if ready.persist:
            self.log_matching(core, ready.persist)
        if core.epoch != self._epochs[node.name]:
            self._epochs[node.name] = core.epoch
            self._entered(core)
        if core.commit_index > len(self.committed):
            self._commit(core)
        if core.in_chain:
            self._neighbours(core)
        for event in ready.events:
            self.installed += event.name == "install_snapshot"
        if ready.events or self.cluster.steps % 16 == 0:
            core.check_invariants()

    # ---- the properties ---------------------------------------------------------------------

    def term_at(self, core: Chain, index: int) -> int | None:
        return core.log.term(index)

    def _entered(self, core: Chain) -> None:
        known = self.chains.setdefault(core.epoch, core.config)
        if known != core.config:
            raise Violation(ONE_CHAIN, f"{core.node} is in {core.config}, another in {known}")
        self.joined += core.node in core.config.joining
        self._survives(core, 1)

    def _survives(self, core: Chain, first: int) -> None:
        """Who was in the chain before has all that was acknowledged in earlier epochs."""
        log = core.log
        if not core.in_chain or core.node in core.config.joining:
            return
        for index in range(max(first, log.offset, 1), len(self.committed) + 1):
            known = self.committed[index - 1]
            if known.in_term < core.epoch and log.term(index) != known.term:
                raise Violation(
                    SURVIVES,
                    f"{core.node} is in the chain of epoch {core.epoch} with epoch "
                    f"{log.term(index)} at index {index}, where {known} was acknowledged",
                )

    def _commit(self, core: Chain) -> None:
        first = len(self.committed) + 1
        for index in range(first, core.commit_index + 1):
            assert index > core.log.offset, f"{core.node} commits {index}, which nobody had"
            entry = core.log.entry(index)
            self.committed.append(Commitment(entry.term, entry.command, core.epoch))
            for name in core.config.chain:
                node = self.cluster.nodes[name]
                has = _core(node).log.term(index) if node.up else entry.term
                if has != entry.term and index > _core(node).log.offset:
                    raise Violation(
                        EVERY_MEMBER, f"{core.node} takes {entry} for stable, {name} has {has}"
                    )
        for node in self.cluster.nodes.values():
            if node.up:
                self._survives(_core(node), first)

    def _neighbours(self, core: Chain) -> None:
        for before, after in ((core.upstream, core.node), (core.node, core.successor)):
            if before is None or after is None:
                continue
            pair = self.cluster.nodes[before], self.cluster.nodes[after]
            if all(node.up and _core(node).epoch == core.epoch for node in pair):
                self._pair(_core(pair[0]), _core(pair[1]))

    def _pair(self, before: Chain, after: Chain) -> None:
        """Of two in a row. (One that is new in the chain may lack what it has not yet verified.)"""
        last = after.verified
        # After a restart it has verified nothing, and what it had acknowledged is on its disk.
        if before.node not in before.config.joining or before.synced:
            has = before.log.term(last)
            if last > before.log.offset and has != after.log.term(last):
                raise Violation(
                    PROPAGATION,
                    f"{after.node} has epoch {after.log.term(last)} at {last}, before it "
                    f"{before.node} has {has}",
                )
        link = before.links[after.node]
        match = link.match_index
        held = max(before.log.offset, after.log.offset)
        if match > held and before.log.term(match) != after.log.term(match):
            raise Violation(
                IN_PROCESS,
                f"{before.node} sends what follows {match} of epoch {before.log.term(match)}, "
                f"{after.node} has epoch {after.log.term(match)} there",
            )


def _core(node: Node) -> Chain:
    assert isinstance(node.core, Chain)
    return node.core


OWN_FAULTS = (
    "crash_tail",
    "doom_tail",
    "isolate_tail",
    "pause_tail",
    "crash_middle",
    "isolate_middle",
    "isolate_master",
    "cut_link",
    "depose_tail",
)


class ChainNemesis(Nemesis):
    """Knows the places of a chain, and its moments to strike."""

    def __init__(self, random: Random, *, drift: float) -> None:
        super().__init__(random, drift=drift)
        for _ in range(random.choice((0, 1, 1, 2))):
            self.faults += [random.choice(OWN_FAULTS)] * random.choice((1, 2, 6))

    def _witness(self, node: Node, event: Event) -> None:
        super()._witness(node, event)
        if not self.running:
            return
        if event.name == "master_become_candidate" and self.random.random() < self.exile:
            self._cut_off_leader(besides=node)
        elif event.name in ("enter_epoch", "decide_chain") and self.random.random() < (
            self.crash_voter
        ):
            self.random.choice((self._crash_soon, self._doom, self._doom_soon))(node)

    def _place(self, place: int) -> Node:
        """The member at a place of the newest chain that anybody is in."""
        cores = [_core(node) for node in self.cluster.nodes.values() if node.up]
        chain = max((core.config.epoch, core.config.chain) for core in cores)[1] if cores else ()
        return self.cluster.nodes[chain[place]] if len(chain) > 1 else self._someone()

    def crash_tail(self) -> None:
        self._crash(self._place(-1))

    def doom_tail(self) -> None:
        self._doom(self._place(-1))

    def isolate_tail(self) -> None:
        self._isolate(self._place(-1).name)

    def pause_tail(self) -> None:
        self._pause(self._place(-1))

    def depose_tail(self) -> None:
        """Clients still reach it, and perhaps one server more."""
        tail = self._place(-1)
        self._isolate(tail.name)
        other = self._someone().name
        self.cluster.cut.pop((other, tail.name), None)
        self.cluster.cut.pop((tail.name, other), None)

    def crash_middle(self) -> None:
        self._crash(self._place(1))

    def isolate_middle(self) -> None:
        self._isolate(self._place(1).name)

    def isolate_master(self) -> None:
        leaders = [core.master.leader for node in self.cluster.nodes.values() if node.up
                   for core in (_core(node),) if core.master.leader is not None]  # fmt: skip
        self._isolate(self.random.choice(leaders) if leaders else self._someone().name)

    def cut_link(self) -> None:
        """Two neighbours no longer hear each other; everybody else hears both."""
        self._split([self._place(0).name], [self._place(1).name])


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
    joined: int


class ChainRun(LogRun[Outcome]):
    """One seed: draw a cluster and its troubles, run them, heal, demand convergence."""

    machine, shipped = SessionMachine, Chain

    def __init__(self, seed: int, bug: Bug = CORRECT, trace: Trace | None = None) -> None:
        self.seed = seed
        random = Random(f"chain {seed}")
        self.random = random
        names = [f"n{number}" for number in range(1, random.choice(SIZES) + 1)]
        self.election_ticks = random.choice((6, 8, 10))
        self.heartbeat_ticks = random.choice((1, 2, 3))
        self.limits = Limits(
            # Links are FIFO, in the paper as over TCP; here what was overtaken waits for the next
            # heartbeat, and in messages of one update each a chain would hardly move.
            entries_per_message=random.choice((8, 8, 16, 64)),
            bytes_per_message=random.choice((12, 100_000)),
            # Writes wait for whom the chain had to take in: with chunks of a few bytes, one after
            # the other, longer than there is time to heal.
            snapshot_chunk_bytes=random.choice((40, 200, 1_000)),
            kept_entries=random.choice((0, 3, 20)),
            waiting_reads=random.choice((4, 1_000)),
            uncommitted_bytes=random.choice((30, 10_000)),
            caught_up_entries=random.choice((0, 3, 100)),
            configurations=random.choice((1, 3, 20)),
        )
        self.core = bug.core or Chain
        self.invariants = ChainInvariants()
        self.workload = RetryingWorkload(
            random,
            period_ms=random.choice((8, 20, 50)),
            reads=random.choice((0.1, 0.3, 0.6, 0.9)),
            leases=0.0,
        )
        # No promise rests on a clock.
        drift = random.choice((0.1, 0.6))
        self.nemesis = ChainNemesis(random, drift=drift)
        self._build(names, drift, bug, trace)

    def outcome(self) -> Outcome:
        return Outcome(
            self.seed,
            self.cluster.steps,
            len(self.invariants.chains),
            len(self.invariants.committed),
            len(self.workload.acknowledged),
            self.workload.served,
            self.crashes,
            self.invariants.installed,
            self.invariants.joined,
        )

    # ---- the end ----------------------------------------------------------------------------

    def _converged(self) -> bool:
        """Everybody is in the same chain again, nobody joining, and has the same log."""
        cores = [_core(node) for node in self.cluster.nodes.values()]
        last, config = cores[0].applied_index, cores[0].config
        return all(
            core.config == config
            and core.synced
            and core.verified == core.applied_index == last  # the next write replaces what follows
            for core in cores
        ) and (len(config.chain), config.joining) == (len(cores), ())

    def _entries(self, core: Chain) -> list[Entry]:
        return core.log.between(core.log.offset, core.verified)

    def _check_restart(self, core: Chain, again: Chain) -> None:
        log, now = again.log, core.log
        masters = [(each.master.term, each.master.log.last_index) for each in (again, core)]
        after = max(log.offset, now.offset)
        same = (again.config, log.last_index) == (core.config, now.last_index)
        if (
            not same
            or masters[0] != masters[1]
            or log.between(after, log.last_index) != now.between(after, now.last_index)
        ):
            raise Violation(DURABILITY, f"{core.node} would restart as {again.status()}")
