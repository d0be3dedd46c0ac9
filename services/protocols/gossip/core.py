"""A node of a gossip store: it answers its clients alone, and tells the others afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from services.protocols.core import Event, NodeId
from services.protocols.gossip.membership import Membership
from services.protocols.gossip.messages import (
    Ack,
    Feedback,
    Incarnation,
    Ping,
    PingRequest,
    Rumours,
)
from services.protocols.gossip.rumours import RumourMill, Spread, Stop
from services.protocols.leaderless import Disk, Ready, new_disk
from services.protocols.quorum.core import Conflicts, Reply
from services.protocols.quorum.data import Update
from services.protocols.quorum.messages import Stored
from services.protocols.quorum.synchronisation import Synchronisation
from services.protocols.quorum.versions import Siblings, latest, merge, put, update


class Gossip:
    """One node; every node keeps every key.

    Args:
        conflicts: what becomes of concurrent writes.
        random: chance; it names the node's disk if that is new, so it must not be seeded the same
            at every start.
        spread, fanout, stop, stop_after: how rumours are told, see `rumours.RumourMill`.
        gossip_ticks: between two rounds.
        anti_entropy_ticks: between two comparisons with a random peer; 0: none.
        period_ticks, timeout_ticks, proxies, suspicion_periods, retransmissions: of the failure
            detector, see `membership.Membership`; a suspect has `suspicion_periods`·⌈log2(n + 1)⌉
            periods to refute.
    """

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        random: Random,
        records: Iterable[Any] = (),
        conflicts: Conflicts = "last-write-wins",
        spread: Spread = "push",
        fanout: int = 2,
        stop: Stop = "feedback",
        stop_after: int = 2,
        gossip_ticks: int = 1,
        anti_entropy_ticks: int = 30,
        period_ticks: int = 12,
        timeout_ticks: int = 4,
        proxies: int = 3,
        suspicion_periods: int = 3,
        retransmissions: int = 3,
    ) -> None:
        self.nodes = tuple(sorted((node, *peers)))
        self.node, self.peers = node, tuple(sorted(peers))
        self.replicas = len(self.nodes)
        self.conflicts = conflicts
        self.gossip_ticks, self.anti_entropy_ticks = gossip_ticks, anti_entropy_ticks
        self.now = 0
        self.random = random
        self.states: dict[str, Siblings] = {}
        self._out = Ready()
        self.synchronisation = Synchronisation(self)
        self.disk, incarnation = "", 0
        for record in records:
            if isinstance(record, Disk):
                self.disk = record.name
            elif isinstance(record, Stored):
                self.states[record.key] = record.state
            elif isinstance(record, Incarnation):
                incarnation = record.number
        if not self.disk:
            disk = new_disk(node, random)
            self.disk = disk.name
            self.persist(disk)
        # Greater than in any earlier life: what is said of that one no longer holds of this.
        self.persist(Incarnation(incarnation + 1))
        log = self.replicas.bit_length()  # ⌈log2(n + 1)⌉
        self.membership = Membership(
            self,
            period_ticks=period_ticks,
            timeout_ticks=timeout_ticks,
            proxies=proxies,
            suspicion_ticks=suspicion_periods * log * period_ticks,
            retransmissions=retransmissions,
            incarnation=incarnation + 1,
        )
        self.mill = RumourMill(
            self,
            spread=spread,
            fanout=fanout,
            stop=stop,
            stop_after=stop_after,
            rounds_max=4 * log,
        )

    # ------------------------------------------------------------------ clients

    def homes(self, key: str) -> tuple[NodeId, ...]:
        """The nodes that keep `key`: all of them."""
        return self.nodes

    def write(
        self,
        request: int,
        key: str,
        value: bytes | None,
        *,
        stamp: int,
        context: Mapping[str, int],
        quorum: int | None = None,
    ) -> None:
        """Write here; as `Quorum.write` with W = 1, whatever `quorum` says. None deletes."""
        state = self.state(key)
        # A clock that lags must not make this node's second write lose to its first.
        stamp = max([stamp, *(version.stamp + 1 for version in state.versions)])
        self.learn(key, put(state, self.disk, value, stamp, context), "write")
        self._out.replies.append(Reply(request, True, self.state(key), 1))

    def update(
        self,
        request: int,
        key: str,
        what: Update,
        *,
        quorum: int | None = None,
        known: Siblings | None = None,
    ) -> None:
        """Update a data type here; as `Quorum.update` with W = 1. Raises data.Refused.

        What is told of it is its whole state, which merges wherever it comes, in whatever order and
        however often: just what a rumour and anti-entropy ask for.
        """
        if known is not None:
            self.store(key, known)
        self.learn(key, update(self.state(key), self.disk, what), "write")
        self._out.replies.append(Reply(request, True, self.state(key), 1))

    def read(self, request: int, key: str, *, quorum: int | None = None) -> None:
        """What this node knows, new or old."""
        self._out.replies.append(Reply(request, True, self.state(key), 1))

    # ------------------------------------------------------------------ state

    def state(self, key: str) -> Siblings:
        """What this node has of `key`."""
        return self.states.get(key) or Siblings()

    def merge(self, one: Siblings, other: Siblings) -> Siblings:
        """What both together know, as this store settles conflicts."""
        return (latest if self.conflicts == "last-write-wins" else merge)(one, other)

    def learn(self, key: str, state: Siblings, how: str) -> bool:
        """Merge `state` into what this node has; was it news? News is persisted, and told on.

        `how`: by "write", "rumour" or "anti_entropy"; for the logs.
        """
        before = self.state(key)
        after = self.merge(before, state)
        if after == before:
            return False
        self.states[key] = after
        self.persist(Stored(key, after))
        self.synchronisation.changed(key)
        # What anti-entropy brings, too: who was missed by a rumour is rarely alone (Demers §1.5).
        self.mill.news(key)
        self.tell("learn", key=key, how=how)
        return True

    def store(self, key: str, state: Siblings) -> Siblings:
        """`learn` by anti-entropy; returns what this node has then."""
        self.learn(key, state, "anti_entropy")
        return self.state(key)

    def persist(self, record: Any) -> None:
        self._out.persist.append(record)

    def send(self, message: Any) -> None:
        self._out.messages.append(message)

    def tell(self, name: str, **fields: Any) -> None:
        self._out.events.append(Event(name, fields))

    # ------------------------------------------------------------------ peers, time, outside

    def step(self, message: Any) -> None:
        """Take in one message from a peer. Unknown ones are ignored."""
        if message.src not in self.peers:
            return
        if isinstance(message, Ping | PingRequest | Ack):
            self.membership.step(message)
        elif isinstance(message, Rumours | Feedback):
            self.mill.step(message)
        else:
            self.synchronisation.step(message)

    def tick(self) -> None:
        """One unit of time has passed."""
        self.now += 1
        if not self.peers:
            self.mill.hot.clear()
            return
        self.membership.tick()
        if self.now % self.gossip_ticks == 0:
            self.mill.tick()
        if self.anti_entropy_ticks and self.now % self.anti_entropy_ticks == 0:
            self.synchronisation.begin(self.random.choice(self.membership.present))

    def ready(self) -> Ready:
        """Hand over what is to be done, once."""
        out, self._out = self._out, Ready()
        return out

    def image(self) -> list[Any]:
        """All that must be kept, as records: what a log may be replaced by."""
        stored = [Stored(key, state) for key, state in sorted(self.states.items())]
        return [Disk(self.disk), Incarnation(self.membership.incarnation), *stored]

    def status(self) -> dict[str, Any]:
        """For `/status` and the story."""
        views = self.membership.views.values()
        return {
            "role": "replica",
            "replicas": self.replicas,
            "keys": len(self.states),
            "hot": len(self.mill.hot),
            "incarnation": self.membership.incarnation,
            "members": {view.member: view.status for view in views},
            # Equal at two nodes: they agree.
            "digest": self.synchronisation.tree(self.node).hash(()).hex(),
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if this node's own state is impossible."""
        self.membership.check_invariants()
        for key in self.mill.hot:
            assert key in self.states, f"{key} is told and not known"
        for state in self.states.values():
            for version in state.versions:
                assert version.covered_by(state.context), f"{version} beyond {state.context}"
