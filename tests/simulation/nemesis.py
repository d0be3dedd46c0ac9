"""What goes wrong in a simulated run, drawn from the seed.

A *swarm*: each seed switches some faults on and others off, and sets how hard they strike. A run
with everything at once mostly shows a cluster that does nothing; the rare histories need one or
two faults that keep at it.

Besides faults at random moments there are *reactions*, which strike just when something happens:
a new leader is struck before it has committed, a leader while it commits, a voter that has just
voted, and a leader is cut off when somebody else becomes a candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.protocols.core import Busy, Core, Event, NotLeader, Ready
from tests.simulation.cluster import Cluster, Node, Weather

if TYPE_CHECKING:
    from random import Random

FAULTS = (
    "crash",
    "crash_leader",
    "doom",
    "doom_leader",
    "crash_all",
    "halves",
    "isolate",
    "isolate_leader",
    "one_way",
    "bridge",
    "cut_follower",
    "heal",
    "transfer",
    "pause",
    "pause_leader",
    "drift_leader",
    "depose_leader",
)


def draw_weather(random: Random) -> Weather:
    slowest_ms = random.choice((2, 5, 20, 60))
    return Weather(
        loss=random.choice((0.0, 0.0, 0.02, 0.1, 0.25)),
        duplicate=random.choice((0.0, 0.0, 0.05, 0.3)),
        delay_ms=(1, slowest_ms),
        straggler=random.choice((0.0, 0.0, 0.05, 0.2)),
    )


class Nemesis:
    """Strikes every now and then until `stop`."""

    def __init__(self, random: Random, *, drift: float) -> None:
        self.random = random
        self.drift = drift  # how far a clock may be off, as a share, each way
        # How likely a new leader is struck at once: histories such as figure 8 need one leader
        # after another to fail between its election and its first commit.
        self.regicide = random.choice((0.0, 0.0, 0.4, 0.8))
        self.crash_at_commit = random.choice((0.0, 0.0, 0.02, 0.5))
        self.crash_voter = random.choice((0.0, 0.0, 0.2))
        self.exile = random.choice((0.0, 0.5, 0.9))
        self.period_ms = random.choice((60, 120, 250, 500))
        self.downtime_ms = random.choice((30, 150, 400))
        share = random.choice((0.1, 0.3, 0.45))
        chosen = [name for name in FAULTS if random.random() < share] or ["crash_leader"]
        self.faults = [name for name in chosen for _ in range(random.choice((1, 1, 4)))]
        self.theme = theme = random.choice(("mixed", "mixed", "regicide", "deposition"))
        if theme == "regicide":
            self.regicide, self.crash_at_commit, self.exile = 0.6, 0.8, 0.0
            self.downtime_ms = random.choice((150, 250))
            self.faults, self.period_ms = ["heal"], 500
        elif theme == "deposition":
            self.regicide, self.crash_at_commit, self.crash_voter, self.exile = 0.0, 0.0, 0.0, 0.9
            self.faults = ["depose_leader", "cut_follower", "cut_follower", "transfer", "heal"]
            self.period_ms = random.choice((120, 250))
        self.cluster: Cluster
        self.running = True

    def start(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.on_event = self._witness
        cluster.on_ready = self._watch_commit
        cluster.after(self.random.randrange(2 * self.period_ms), self._strike)

    def _witness(self, node: Node, event: Event) -> None:
        """An event is told before the records and messages of its step are carried out."""
        if not self.running:
            return
        if event.name == "become_leader" and self.random.random() < self.regicide:
            self.random.choice((self._crash_soon, self._doom, self._doom, self._doom_soon))(node)
        elif event.name == "become_candidate" and self.random.random() < self.exile:
            self._cut_off_leader(besides=node)
        elif (
            event.name == "grant_vote"
            and not event.fields["pre_vote"]
            and self.random.random() < self.crash_voter
        ):
            self.cluster.after(0, self._crash, node)

    def _watch_commit(self, node: Node, ready: Ready) -> None:
        if (
            self.crash_at_commit
            and ready.committed
            and self.running
            and self.random.random() < self.crash_at_commit
            and node.core.status()["leader"] == node.name
        ):
            self._doom(node)

    def stop(self) -> None:
        """Heal everything, set the clocks right, and start every server again."""
        self.running = False
        self.heal()
        self.cluster.weather = Weather()
        for node in self.cluster.nodes.values():
            node.doomed = False
            node.tick_ms = 10.0
            self.cluster.resume(node)
            self.cluster.start(node)

    def _strike(self) -> None:
        if not self.running:
            return
        self.cluster.after(1 + self.random.randrange(2 * self.period_ms), self._strike)
        fault = self.random.choice(self.faults)
        self.cluster.tell(None, fault)
        getattr(self, fault)()

    def _revive(self, node: Node) -> None:
        if self.running:
            self.cluster.start(node)

    def _someone(self) -> Node:
        return self.cluster.nodes[self.random.choice(self.cluster.names)]

    def _leader(self) -> Node:
        """The newest leader if there is one, else anybody."""
        leaders = [
            (status["term"], node)
            for node in self.cluster.nodes.values()
            if node.up and (status := node.core.status())["leader"] == node.name
        ]
        return max(leaders, key=lambda leader: leader[0])[1] if leaders else self._someone()

    # ---- servers ----------------------------------------------------------------------------

    def _crash(self, node: Node) -> None:
        if not self.running:
            return  # planned before the healing
        self.cluster.crash(node)
        self.cluster.after(1 + self.random.randrange(2 * self.downtime_ms), self._revive, node)

    def _doom(self, node: Node) -> None:
        if not self.running:
            return  # planned before the healing
        node.doomed = True
        self.cluster.after(1 + self.random.randrange(2 * self.downtime_ms), self._revive, node)

    def _crash_soon(self, node: Node) -> None:
        self.cluster.after(self.random.randrange(30), self._crash, node)

    def _doom_soon(self, node: Node) -> None:
        self.cluster.after(self.random.randrange(30), self._doom, node)

    def _pause(self, node: Node) -> None:
        self.cluster.pause(node)
        self.cluster.after(1 + self.random.randrange(2 * self.downtime_ms), self._resume, node)

    def _resume(self, node: Node) -> None:
        if self.running:
            self.cluster.resume(node)

    def pause(self) -> None:
        self._pause(self._someone())

    def pause_leader(self) -> None:
        self._pause(self._leader())

    def drift_leader(self) -> None:
        """The leader's clock goes slow, all others fast: what a lease is afraid of."""
        leader = self._leader()
        for node in self.cluster.nodes.values():
            node.tick_ms = 10.0 * (1 + self.drift if node is leader else 1 - self.drift)

    def depose_leader(self) -> None:
        """The same, and nobody hears the leader any more."""
        self.drift_leader()
        self.isolate_leader()

    def crash(self) -> None:
        self._crash(self._someone())

    def crash_leader(self) -> None:
        self._crash(self._leader())

    def doom(self) -> None:
        self._doom(self._someone())

    def doom_leader(self) -> None:
        self._doom(self._leader())

    def crash_all(self) -> None:
        for node in self.cluster.nodes.values():
            self._crash(node)

    def transfer(self) -> None:
        node, target = self._leader(), self._someone()

        def hand_over(core: Core) -> None:
            transfer = getattr(core, "transfer_leadership", None)
            if transfer is not None:
                transfer(target.name)

        if node.up and not node.paused:
            try:
                self.cluster.input(node, hand_over)
            except (NotLeader, Busy):
                return

    # ---- links ------------------------------------------------------------------------------

    def _cut(self, src: str, dst: str) -> None:
        if src != dst:
            self.cluster.cut[src, dst] = None

    def _split(self, here: list[str], there: list[str]) -> None:
        for a in here:
            for b in there:
                self._cut(a, b)
                self._cut(b, a)

    def heal(self) -> None:
        self.cluster.cut.clear()

    def halves(self) -> None:
        self.heal()
        names = self.random.sample(self.cluster.names, len(self.cluster.names))
        size = self.random.randrange(len(names)) or 1
        self._split(names[:size], names[size:])

    def _isolate(self, name: str) -> None:
        self.heal()
        self._split([name], [other for other in self.cluster.names if other != name])

    def _cut_off_leader(self, besides: Node) -> None:
        """It goes on as a leader that does not know; everybody else can elect `besides`."""
        leader = self._leader()
        if leader is not besides:
            self._isolate(leader.name)

    def isolate(self) -> None:
        self._isolate(self._someone().name)

    def isolate_leader(self) -> None:
        self._isolate(self._leader().name)

    def one_way(self) -> None:
        """Some links go deaf in one direction; what was cut before stays cut."""
        for _ in range(len(self.cluster.names) - 1):
            self._cut(self._someone().name, self._someone().name)

    def bridge(self) -> None:
        """Two sides that only one server can reach."""
        self.heal()
        names = self.random.sample(self.cluster.names, len(self.cluster.names))
        middle = len(names) // 2
        self._split(names[:middle], names[middle + 1 :])

    def cut_follower(self) -> None:
        """The leader and one other no longer hear each other; the rest hear both."""
        self.heal()
        self._split([self._leader().name], [self._someone().name])
