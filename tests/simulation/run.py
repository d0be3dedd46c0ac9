"""The course of a seeded run, the same for every protocol: trouble, healing, convergence.

A protocol's run draws its cluster, workload and nemesis in its own order (a seed names its draws),
and says what has converged, what must hold then, and what the run did.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from tests.simulation.cluster import Cluster, Machine, Trace, Violation
from tests.simulation.nemesis import Nemesis, draw_weather
from tests.simulation.zoo.bug import Bug

OutcomeT = TypeVar("OutcomeT")


class Clients(Protocol):
    """Those who write and read, until `running` is false; how many of each were answered."""

    cluster: Any
    running: bool
    answered: int  # writes
    served: int  # reads
    acknowledged: dict[int, bytes]

    def start(self, cluster: Cluster) -> None: ...


class Run(ABC, Generic[OutcomeT]):
    """One seed: draw a cluster and its troubles, run them, heal, demand convergence."""

    chaos_ms = 2_500
    healing_ms = 12_000

    kind: ClassVar[type[Cluster]] = Cluster
    machine: ClassVar[type[Machine]] = Machine

    random: Random
    cluster: Cluster
    workload: Any  # `Clients`, and who is told the answers
    invariants: Any  # an `Observer`
    nemesis: Nemesis

    def _build(self, names: list[str], drift: float, bug: Bug, trace: Trace | None) -> None:
        """Draw clocks, which are off by up to `drift`, and weather, and start the nodes.

        The parts know each other: a node that starts tells the observer, who asks the cluster. So
        all are handed the cluster before there is anything in it.
        """
        random = self.random
        ticks = {name: 10.0 * (1 + random.uniform(-drift, drift)) for name in names}
        cluster = self.kind.__new__(self.kind)
        self.cluster = self.workload.cluster = self.invariants.cluster = cluster
        cluster.__init__(  # type: ignore[misc]
            ticks,
            self._make_core,
            random=random,
            weather=draw_weather(random),
            observer=self.invariants,
            replies=self.workload,
            persist_before_send=bug.persist_before_send,
            trace=trace,
            **self._state_machine(bug),
        )

    def _state_machine(self, bug: Bug) -> dict[str, Any]:
        """What a cluster is told about what its nodes apply."""
        compact_every = self.random.choice((0, 4, 15))
        return {"compact_every": compact_every, "make_machine": bug.machine or self.machine}

    @abstractmethod
    def _make_core(self, node: str, peers: tuple[str, ...], records: list[Any]) -> Any:
        """A core as this run has drawn it."""

    def run(self) -> OutcomeT:
        """Raises Violation, or AssertionError from within a node."""
        self.workload.start(self.cluster)
        self.nemesis.start(self.cluster)
        self.cluster.run(self.chaos_ms)
        self.nemesis.stop()
        self._converge()
        return self.outcome()

    @abstractmethod
    def outcome(self) -> OutcomeT:
        """What the run did so far."""

    @property
    def crashes(self) -> int:
        incarnations = sum(node.incarnation for node in self.cluster.nodes.values())
        return incarnations - len(self.cluster.names)

    def _converge(self) -> None:
        """With nothing wrong any more: one that leads, a new write, a read, and equal replicas."""
        cluster, workload = self.cluster, self.workload
        deadline_ms = cluster.now_ms + self.healing_ms
        wrote = served = 0
        while cluster.now_ms < deadline_ms:
            cluster.run(cluster.now_ms + 50)
            if workload.running:
                # The clients stop once they were served after the healing.
                wrote = wrote or workload.answered
                served = served or workload.served
                done = workload.answered > wrote and workload.served > served
                workload.running = not done
            elif self._converged():
                self._check_end()
                return
        raise Violation(
            "convergence",
            f"not within {self.healing_ms} ms after healing: "
            + "; ".join(str(node.core.status()) for node in cluster.nodes.values()),
        )

    @abstractmethod
    def _converged(self) -> bool:
        """Does one lead, and has every node applied the same log to its end?"""

    @abstractmethod
    def _check_end(self) -> None:
        """What must hold of the whole cluster then. Raises Violation."""
