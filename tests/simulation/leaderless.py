"""What stores without a leader share in the simulation: answers in `replies`, and no leader."""

from __future__ import annotations

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
    """Nobody leads here: who is struck as the leader is anybody."""

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
