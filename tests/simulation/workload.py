"""Clients of a simulated cluster: unique writes, and reads that must not be older than they may.

What is asserted here is what a client could see: an acknowledged write stays, and a read that
begins after an operation has completed sees at least what that operation saw (linearizability:
the log gives the order, so it is enough to compare positions in it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.protocols.core import Busy, Core, Entry, NotLeader, ReadGrant, ReadRefusal
from tests.simulation.cluster import Cluster, Node, Violation

if TYPE_CHECKING:
    from random import Random


class Workload:
    """Implements `cluster.Replies`."""

    def __init__(self, random: Random, *, period_ms: int, reads: float, leases: float) -> None:
        self.random = random
        self.period_ms = period_ms
        self.reads = reads  # the share of operations that are reads
        self.leases = leases  # the share of reads that ask for a lease read
        self.cluster: Cluster
        self.running = True
        self.linearizable = True  # is that promised?
        self.written = 0
        self.answered = 0  # writes
        self.acknowledged: dict[int, bytes] = {}  # index → command
        self.served = 0
        self.floor = 0  # the log position that some completed operation has seen
        self._waiting: dict[tuple[str, int, int, int], bytes] = {}
        self._reading: dict[int, tuple[str, int, int]] = {}  # read id → node, incarnation, floor
        self._read_id = 0

    def start(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.after(self.period_ms, self._operate)

    def _operate(self) -> None:
        if not self.running:
            return
        self.cluster.after(1 + self.random.randrange(2 * self.period_ms), self._operate)
        nodes = [node for node in self.cluster.nodes.values() if _serves(node)]
        if not nodes:
            return
        node = self.random.choice(nodes)
        if self.random.random() < 0.6:
            # Clients stay with whom they took for the leader: the deposed one must not answer.
            leaders = [node for node in nodes if node.core.status()["leader"] == node.name]
            node = self.random.choice(leaders or nodes)
        is_read = self.random.random() < self.reads
        lease = self.random.random() < self.leases
        for _ in range(2):  # at the node, then where it points to
            try:
                if is_read:
                    self.read(node, lease=lease)
                else:
                    self.write(node)
            except NotLeader as refused:
                hint = self.cluster.nodes.get(refused.leader or "")
                if hint is None or not _serves(hint):
                    return
                node = hint
            except Busy:
                return
            else:
                return

    def write(self, node: Node) -> tuple[int, int]:
        """Propose a value nobody wrote before. Raises NotLeader or Busy."""
        command = b"k%d=%d" % (self.written % 3, self.written)

        def propose(core: Core) -> tuple[int, int]:
            index, term = core.propose(command)
            # Noted before the step is carried out: a cluster of one commits in that very step.
            self._waiting[node.name, node.incarnation, index, term] = command
            return index, term

        proposed: tuple[int, int] = self.cluster.input(node, propose)
        self.written += 1
        return proposed

    def read(self, node: Node, *, lease: bool) -> None:
        """Raises NotLeader or Busy."""
        self._read_id += 1
        read_id = self._read_id
        self._reading[read_id] = (node.name, node.incarnation, self.floor)
        try:
            self.cluster.input(node, lambda core: core.read(read_id, lease=lease))
        except (NotLeader, Busy):
            del self._reading[read_id]
            raise

    # ---- Replies ----------------------------------------------------------------------------

    def committed(self, node: Node, entry: Entry) -> None:
        key = (node.name, node.incarnation, entry.index, entry.term)
        command = self._waiting.pop(key, None)
        if command is not None:
            if command != entry.command:
                raise Violation("acknowledged, never lost", f"{command!r} was replaced by {entry}")
            self.cluster.tell(node, "acknowledges", entry)
            self.acknowledged[entry.index] = command
            self.answered += 1
            self.floor = max(self.floor, entry.index)

    def read_answered(self, node: Node, answer: ReadGrant | ReadRefusal) -> None:
        if isinstance(answer, ReadRefusal):
            del self._reading[answer.read_id]
            return
        name, incarnation, floor = self._reading.pop(answer.read_id)
        assert (name, incarnation) == (node.name, node.incarnation), "another's read is answered"
        applied_index = node.machine.applied_index
        assert answer.index <= applied_index, f"{answer} but only {applied_index} is applied"
        self.cluster.tell(node, "answers", answer)
        if self.linearizable and answer.index < floor:
            raise Violation(
                "linearizable reads",
                f"{node.name} answers from index {answer.index}, but an operation that was "
                f"complete when the read began had seen index {floor}",
            )
        self.served += 1
        self.floor = max(self.floor, applied_index)


def _serves(node: Node) -> bool:
    return node.up and not node.paused
