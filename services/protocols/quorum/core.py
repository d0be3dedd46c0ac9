"""A node of a leaderless store: coordinator of its clients' operations, replica of its keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from services.protocols.core import Event, NodeId, NotLeader
from services.protocols.leaderless import Disk, Ready, new_disk
from services.protocols.quorum.coordinator import Operation
from services.protocols.quorum.data import Update
from services.protocols.quorum.messages import (
    HandedOff,
    HandOff,
    Hinted,
    Read,
    ReadReply,
    Repair,
    Replicate,
    Replicated,
    Stored,
)
from services.protocols.quorum.placement import preference
from services.protocols.quorum.synchronisation import Synchronisation
from services.protocols.quorum.versions import Siblings, latest, merge, put, update

SESSION_BITS = 52
PREFERENCES_MAX = 100_000  # keys whose place is remembered
Conflicts = Literal["siblings", "last-write-wins"]


@dataclass(slots=True)
class Reply:
    """An operation's end. `state`: what a read found, or the key's state after a write.

    `reached` is how many replicas have answered. With less than was asked for the outcome of a
    write is unknown: whoever has it will spread it.
    """

    request: int
    done: bool
    state: Siblings
    reached: int


class Quorum:
    """One node.

    Args:
        replicas: N, how many nodes keep a key.
        read_quorum, write_quorum: R and W, the answers that an operation waits for; an operation
            may ask for others. R + W > N makes each read meet each acknowledged write.
        sloppy: where a home does not answer, another node's hint counts towards W.
        conflicts: what becomes of concurrent writes.
        random: chance; it names this life of the node, and its disk if that is new, so it must
            not be seeded the same at every start.
        timeout_ticks: after that an operation ends, answered or not.
        fallback_ticks: after that a home that has not answered is taken for unreachable.
        anti_entropy_ticks: between two comparisons with a peer; 0: none.
        read_repair, hinted_handoff: off for experiments.
    """

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        replicas: int,
        read_quorum: int,
        write_quorum: int,
        random: Random,
        records: Iterable[Any] = (),
        sloppy: bool = False,
        conflicts: Conflicts = "siblings",
        timeout_ticks: int = 40,
        fallback_ticks: int = 6,
        handoff_ticks: int = 20,
        anti_entropy_ticks: int = 30,
        read_repair: bool = True,
        hinted_handoff: bool = True,
    ) -> None:
        self.nodes = tuple(sorted((node, *peers)))
        if not 1 <= replicas <= len(self.nodes):
            raise ValueError(f"replicas={replicas} with {len(self.nodes)} nodes")
        self.node = node
        self.replicas = replicas
        self.read_quorum, self.write_quorum = read_quorum, write_quorum
        self.sloppy = sloppy
        self.conflicts = conflicts
        self.timeout_ticks, self.fallback_ticks = timeout_ticks, fallback_ticks
        self.handoff_ticks, self.anti_entropy_ticks = handoff_ticks, anti_entropy_ticks
        self.read_repair, self.hinted_handoff = read_repair, hinted_handoff
        self.now = 0
        self.session = random.getrandbits(SESSION_BITS)
        self.states: dict[str, Siblings] = {}
        self.hints: dict[tuple[NodeId, str], Siblings] = {}
        self.operations: dict[int, Operation] = {}
        self._out = Ready()
        self._random = random
        self._preferences: dict[str, list[NodeId]] = {}
        self.synchronisation = Synchronisation(self)
        self.disk = ""
        for record in records:
            self._recover(record)
        if not self.disk:
            disk = new_disk(node, random)
            self.disk = disk.name
            self._out.persist.append(disk)

    def _recover(self, record: Any) -> None:
        if isinstance(record, Disk):
            self.disk = record.name
        elif isinstance(record, Stored):
            self.states[record.key] = record.state
            self.synchronisation.changed(record.key)
        elif isinstance(record, Hinted) and record.state.context:
            self.hints[record.owner, record.key] = record.state
        elif isinstance(record, Hinted):
            self.hints.pop((record.owner, record.key), None)

    # ------------------------------------------------------------------ clients

    def homes(self, key: str) -> list[NodeId]:
        """The nodes that keep `key`, the preferred ones first."""
        return self.preference(key)[: self.replicas]

    def preference(self, key: str) -> list[NodeId]:
        """All nodes in the order in which they are asked to keep `key`."""
        found = self._preferences.get(key)
        if found is None:
            if len(self._preferences) >= PREFERENCES_MAX:  # who reads asks for any key there may be
                self._preferences.clear()
            found = self._preferences[key] = preference(key, self.nodes)
        return found

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
        """Coordinate a write; `ready().replies` tells its end under the number `request`.

        `context`: what its client has read and so replaces. `stamp`: this node's time of day.
        Raises NotLeader (definite) where `key` has no home here: a dot may only be given by a node
        that knows all its own earlier ones of the key.
        """
        self._require_home(key)
        after = put(self.state(key), self.disk, value, stamp, context)
        self._spread(request, key, after, quorum)

    def update(
        self,
        request: int,
        key: str,
        what: Update,
        *,
        quorum: int | None = None,
        known: Siblings | None = None,
    ) -> None:
        """Coordinate an update of a data type; as `write`. Raises NotLeader, data.Refused.

        `known`: what its client's read has found, which is taken on first: the update may be about
        something that this node has missed.
        One that changes nothing is spread as well: it may be the repetition of one that changed
        something here, was told "too few copies", and is to be told "done" once there are enough.
        """
        self._require_home(key)
        if known is not None:
            self.store(key, known)
        self._spread(request, key, update(self.state(key), self.disk, what), quorum)

    def _spread(self, request: int, key: str, after: Siblings, quorum: int | None) -> None:
        state = self.store(key, after)
        need = quorum or self.write_quorum
        operation = self._begin(Operation("write", request, key, need, self.now, state))
        for home in operation.homes:
            self.send(Replicate(self.node, home, self.session, request, key, state))
        operation.answered(self.node)
        self._end_if_done(operation)

    def read(self, request: int, key: str, *, quorum: int | None = None) -> None:
        """Coordinate a read; as `write`. It ends with what the replicas that answered know."""
        self._require_home(key)
        need = quorum or self.read_quorum
        operation = self._begin(Operation("read", request, key, need, self.now, self.state(key)))
        for home in operation.homes:
            self.send(Read(self.node, home, self.session, request, key))
        operation.replied(self.node, operation.state, operation.state)
        self._end_if_done(operation)

    def _require_home(self, key: str) -> None:
        homes = self.homes(key)
        if self.node not in homes:
            raise NotLeader(homes[0])

    def _begin(self, operation: Operation) -> Operation:
        operation.homes = [home for home in self.homes(operation.key) if home != self.node]
        self.operations[operation.request] = operation
        return operation

    # ------------------------------------------------------------------ state

    def state(self, key: str) -> Siblings:
        """What this node has of `key`."""
        return self.states.get(key) or Siblings()

    def merge(self, one: Siblings, other: Siblings) -> Siblings:
        """What both together know, as this store settles conflicts."""
        return (latest if self.conflicts == "last-write-wins" else merge)(one, other)

    def store(self, key: str, state: Siblings) -> Siblings:
        """Merge `state` into what this node has, to be persisted if that changes anything."""
        before = self.state(key)
        after = self.merge(before, state)
        if after != before:
            self.states[key] = after
            self._out.persist.append(Stored(key, after))
            self.synchronisation.changed(key)
        return after

    def send(self, message: Any) -> None:
        self._out.messages.append(message)

    def tell(self, name: str, **fields: Any) -> None:
        self._out.events.append(Event(name, fields))

    # ------------------------------------------------------------------ peers

    def step(self, message: Any) -> None:
        """Take in one message from a peer. Unknown and stale ones are ignored."""
        if message.src not in self.nodes or message.src == self.node:
            return
        if isinstance(message, Replicate):
            self._keep(message)
        elif isinstance(message, Read):
            state = self.state(message.key)
            self.send(ReadReply(self.node, message.src, message.session, message.request, state))
        elif isinstance(message, Replicated | ReadReply):
            self._count(message)
        elif isinstance(message, Repair):
            self.store(message.key, message.state)
        elif isinstance(message, HandOff):
            self.store(message.key, message.state)
            self.send(HandedOff(self.node, message.src, message.key, message.state))
        elif isinstance(message, HandedOff):
            self._handed_off(message)
        else:
            self.synchronisation.step(message)

    def _keep(self, message: Replicate) -> None:
        if message.owner is None:
            self.store(message.key, message.state)
        else:
            at = message.owner, message.key
            hint = self.merge(self.hints.get(at) or Siblings(), message.state)
            self.hints[at] = hint
            self._out.persist.append(Hinted(*at, hint))
        self.send(
            Replicated(self.node, message.src, message.session, message.request, message.owner)
        )

    def _count(self, message: Replicated | ReadReply) -> None:
        operation = self.operations.get(message.request)
        if operation is None or message.session != self.session:
            return
        if isinstance(message, Replicated):
            operation.answered(message.owner or message.src)
        else:
            merged = self.merge(operation.state, message.state)
            operation.replied(message.src, message.state, merged)
        self._end_if_done(operation)

    def _end_if_done(self, operation: Operation) -> None:
        """Reply as soon as enough have answered; forget it when all have, or time is up."""
        if not operation.told and operation.reached >= operation.need:
            self._reply(operation, done=True)
        if operation.reached == self.replicas:
            self._forget(operation)

    def _reply(self, operation: Operation, *, done: bool) -> None:
        operation.told = True
        reply = Reply(operation.request, done, operation.state, operation.reached)
        self._out.replies.append(reply)

    def _forget(self, operation: Operation) -> None:
        del self.operations[operation.request]
        if operation.kind == "read" and self.read_repair:
            self._repair(operation)

    def _repair(self, operation: Operation) -> None:
        """Tell those that were behind (Dynamo §5, "read repair")."""
        merged = self.store(operation.key, operation.state)
        for home, state in sorted(operation.found.items()):
            if home != self.node and state != merged:
                self.send(Repair(self.node, home, operation.key, merged))
                self.tell("read_repair", key=operation.key, peer=home)

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """One unit of time has passed."""
        self.now += 1
        for operation in list(self.operations.values()):
            age = self.now - operation.began
            if age >= self.timeout_ticks:
                if not operation.told:
                    self._reply(operation, done=False)
                self._forget(operation)
            elif age == self.fallback_ticks and operation.kind == "write":
                self._stand_in(operation)
        if self.hints and self.now % self.handoff_ticks == 0:
            for (owner, key), state in self.hints.items():
                self.send(HandOff(self.node, owner, key, state))
        if self.anti_entropy_ticks and self.now % self.anti_entropy_ticks == 0 and self._peers:
            self.synchronisation.begin(self._random.choice(self._peers))

    @property
    def _peers(self) -> list[NodeId]:
        return [node for node in self.nodes if node != self.node]

    def _stand_in(self, operation: Operation) -> None:
        """Ask the next in the list of preference to keep it for the homes that are silent."""
        if not (self.sloppy and self.hinted_handoff) or operation.told:
            return
        spare = self.preference(operation.key)[self.replicas :]
        silent = [home for home in operation.homes if home not in operation.heard]
        for owner, node in zip(silent, spare, strict=False):
            self.send(
                Replicate(
                    *(self.node, node, self.session, operation.request, operation.key),
                    operation.state,
                    owner,
                )
            )
            self.tell("hint", key=operation.key, owner=owner, peer=node)

    def _handed_off(self, message: HandedOff) -> None:
        at = message.src, message.key
        hint = self.hints.get(at)
        # A write may have come since the hint was sent: then there is more to hand over. (Contexts
        # alone do not tell: the last write may be one that the context of an older stamp covers.)
        if hint is not None and self.merge(message.state, hint) == message.state:
            del self.hints[at]
            self._out.persist.append(Hinted(*at, Siblings()))
            self.tell("handed_off", key=message.key, owner=message.src)

    # ------------------------------------------------------------------ outside

    def ready(self) -> Ready:
        """Hand over what is to be done, once."""
        out, self._out = self._out, Ready()
        return out

    def image(self) -> list[Any]:
        """All that must be kept, as records: what a log may be replaced by."""
        stored = [Stored(key, state) for key, state in sorted(self.states.items())]
        return [
            Disk(self.disk),
            *stored,
            *(Hinted(*at, state) for at, state in sorted(self.hints.items())),
        ]

    def status(self) -> dict[str, Any]:
        """For `/status` and the story."""
        return {
            "role": "replica",
            "replicas": self.replicas,
            "read_quorum": self.read_quorum,
            "write_quorum": self.write_quorum,
            "keys": len(self.states),
            "hints": len(self.hints),
            "in_flight": len(self.operations),
            # Equal at two nodes that keep the same keys: they agree.
            "digest": self.synchronisation.tree(self.node).hash(()).hex(),
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if this node's own state is impossible."""
        for state in (*self.states.values(), *self.hints.values()):
            dots = [version.dot for version in state.versions]
            assert dots == sorted(set(dots)), f"{dots} are not distinct"
            for version in state.versions:
                assert version.covered_by(state.context), f"{version} beyond {state.context}"
        for operation in self.operations.values():
            assert operation.reached <= self.replicas, operation
