"""The course of a seeded run, the same for every protocol: trouble, healing, convergence.

A protocol's run draws its cluster, workload and nemesis in its own order (a seed names its draws),
and says what has converged, what must hold then, and what the run did.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from tests.simulation.cluster import Cluster, Violation
from tests.simulation.nemesis import Nemesis
from tests.simulation.workload import Workload

OutcomeT = TypeVar("OutcomeT")


class Run(ABC, Generic[OutcomeT]):
    """One seed: draw a cluster and its troubles, run them, heal, demand convergence."""

    chaos_ms = 2_500
    healing_ms = 12_000

    cluster: Cluster
    workload: Workload
    nemesis: Nemesis

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
                wrote = wrote or len(workload.acknowledged)
                served = served or workload.served
                done = len(workload.acknowledged) > wrote and workload.served > served
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
