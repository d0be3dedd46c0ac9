"""What stores without a leader share in the simulation: answers in `replies`, no leader, and disks
that are lost while others have what is on them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from services.protocols.leaderless import Ready
from tests.simulation.cluster import Cluster, Node
from tests.simulation.nemesis import Nemesis
from tests.simulation.run import OutcomeT, Run
from tests.simulation.zoo.bug import Bug


class Answered(Protocol):
    """Who is told what the nodes answer."""

    def replied(self, node: Node, reply: Any) -> None:
        """An answer has reached its client."""
        ...


class LeaderlessCluster(Cluster):
    """Nodes that apply nothing: their answers are in `Ready.replies`."""

    _replies: Any  # `Answered`

    def _apply(self, node: Node, ready: Any) -> None:
        assert isinstance(ready, Ready)
        for reply in ready.replies:
            self._replies.replied(node, reply)


class LeaderlessNemesis(Nemesis):
    """Nobody leads here: who is struck as the leader is anybody.

    Args:
        spare: may the disk of this node be lost, for others have all that is on it? None: no disk
            is lost. It is told of a node that is down, and takes note of what it allows.
    """

    def __init__(
        self, random: Random, *, drift: float, spare: Callable[[Node], bool] | None = None
    ) -> None:
        super().__init__(random, drift=drift)
        self._spare = spare
        if spare is not None:
            self.faults += ["wipe"] * (1 + len(self.faults) // 2)

    def wipe(self) -> None:
        """A node comes back under its name, with an empty disk."""
        node = self._someone()
        self._crash(node)
        if self._spare is not None and self._spare(node):
            self.cluster.tell(node, "is wiped")
            node.disk.records.clear()

    def _leader(self) -> Node:
        return self._someone()

    def _watch_commit(self, node: Node, ready: Any) -> None:
        """A node that answers, and dies of it."""
        if ready.replies and self.running and self.random.random() < self.crash_at_commit / 4:
            self._doom(node)


class LeaderlessRun(Run[OutcomeT]):
    """A run of such a store."""

    kind = LeaderlessCluster

    def _state_machine(self, bug: Bug) -> dict[str, Any]:
        return {}
