"""One node of a multi-leader store. The theory is in the package's docstring."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from services.protocols.clocks import HybridClock
from services.protocols.core import Event, NodeId, NotLeader
from services.protocols.leaderless import Disk, Ready, new_disk
from services.protocols.multi_leader.logs import Log, Neighbour
from services.protocols.multi_leader.messages import Fetch, Have, Ship, States, Whole
from services.protocols.multi_leader.refill import Refill
from services.protocols.multi_leader.versions import (
    Conflict,
    State,
    Write,
    digest,
    of,
    settle,
    within,
)

TOPOLOGIES = ("all-to-all", "ring")
WRITES_PER_MESSAGE_MAX = 256
IN_FLIGHT_MAX = 2_000  # writes of one log sent to a neighbour and not acknowledged
CONFLICTS_SHOWN = 10


@dataclass(slots=True)
class Reply:
    """A request's end: the key's state here. It waits for nobody, so there is no other end."""

    request: int
    state: State
    done: bool = True
    reached: int = 1


class MultiLeader:
    """One node.

    Args:
        random: chance; its first draw names a new disk, so it must not be seeded the same twice.
        topology: whom a node ships to, one of TOPOLOGIES.
        leaders: how many nodes, the first in id order, take writes; 0: all.
        have_ticks: between two heartbeats.
        look_ticks: between two looks at what a neighbour still lacks.
        log_writes_max: kept of each log for those that lack them (and no more than
            `logs.LOG_BYTES_MAX`); beyond, they fetch the states.
        fetch_keys_max: states in one message.
    """

    def __init__(
        self,
        node: NodeId,
        peers: Iterable[NodeId],
        *,
        random: Random,
        records: Iterable[Any] = (),
        topology: str = "all-to-all",
        leaders: int = 0,
        have_ticks: int = 3,
        look_ticks: int = 10,
        log_writes_max: int = 10_000,
        fetch_keys_max: int = 128,
    ) -> None:
        if topology not in TOPOLOGIES:
            raise ValueError(f"topology {topology!r} is none of {TOPOLOGIES}")
        self.node = node
        self.nodes = tuple(sorted((node, *peers)))
        self.leaders = self.nodes[: leaders or None]
        self.topology = topology
        self.have_ticks, self.look_ticks = have_ticks, look_ticks
        self.log_writes_max = log_writes_max
        at = self.nodes.index(node)
        around = [self.nodes[(at + 1) % len(self.nodes)], self.nodes[at - 1]]
        names = around if topology == "ring" else self.nodes
        self.neighbours = {name: Neighbour(name) for name in sorted({*names} - {node})}
        # In a ring to the next one alone, and then all logs at once: nobody else will.
        self.ships_to = {name: neighbour for name, neighbour in self.neighbours.items()
                         if topology == "all-to-all" or name == around[0]}  # fmt: skip
        # Whom to fetch from: in a ring the one that ships here, else a cut would be gone round.
        self.hears_from = {name for name in self.neighbours
                           if topology == "all-to-all" or name == around[1]}  # fmt: skip
        self.now = 0
        self.disk = ""
        self.states: dict[str, State] = {}
        self.logs: dict[str, Log] = {}
        self.clock = HybridClock()
        self.conflicts = 0
        self.recent: deque[dict[str, Any]] = deque(maxlen=CONFLICTS_SHOWN)
        self._digest = 0
        self._looked: dict[str, int] = {}  # what was here at the last look
        self._owed: dict[NodeId, None] = {}  # an acknowledgement
        self._out = Ready()
        self.refill = Refill(self, random=random, keys_max=fetch_keys_max)
        self._recover(records)
        if not self.disk:
            disk = new_disk(node, random)
            self.disk = disk.name
            self._out.persist.append(disk)

    def _recover(self, records: Iterable[Any]) -> None:
        for record in records:
            if isinstance(record, Disk):
                self.disk = record.name
            elif isinstance(record, Whole):
                self.conflicts = record.conflicts
                self.take_whole(record)
            elif isinstance(record, Write):
                self._take(record)
        self._out = Ready()  # all of this was told, and is on disk

    # ------------------------------------------------------------------ clients

    @property
    def is_leader(self) -> bool:
        return self.node in self.leaders

    def write(self, request: int, key: str, value: bytes | None, *, stamp: int) -> None:
        """Write, or with None delete, at wall time `stamp`; `ready().replies` says when it is safe.

        Raises NotLeader (definite: ask a leader).
        """
        if not self.is_leader:
            raise NotLeader(self.leaders[0])
        seen = dict(self.state(key).vector)
        sequence = self.vector_of(self.disk) + 1
        self._take(Write(self.disk, sequence, key, value, self.clock.tick(stamp), seen))
        self._out.replies.append(Reply(request, self.state(key)))

    def read(self, request: int, key: str) -> None:
        """What this node has; `ready().replies` tells it when it is safe here."""
        self._out.replies.append(Reply(request, self.state(key)))

    # ------------------------------------------------------------------ state

    @property
    def vector(self) -> dict[str, int]:
        """What is here, by log."""
        return {name: log.last for name, log in self.logs.items()}

    def state(self, key: str) -> State:
        """What this node has of `key`."""
        return self.states.get(key) or State()

    def _take(self, write: Write) -> None:
        """The next write of its log."""
        self.logs.setdefault(write.log, Log()).append(write)
        self._out.persist.append(write)
        self.settle(write.key, of(write))

    def settle(self, key: str, state: State) -> None:
        """Merge `state` into what is here."""
        before = self.state(key)
        after, conflict = settle(before, state)
        if conflict is not None:
            self._tell_conflict(conflict)
        if after == before:
            return
        assert after.latest is not None, after
        # What is written here from now on is later. (The receipt itself needs no date.)
        self.clock.last = max(self.clock.last, after.latest.stamp)
        self.states[key] = after
        self._digest ^= (digest(key, before) if before.latest else 0) ^ digest(key, after)

    def _tell_conflict(self, conflict: Conflict) -> None:
        self.conflicts += 1
        kept, lost = conflict
        told = {"key": lost.key, "kept": kept.name, "lost": lost.name}
        value = None if lost.value is None else lost.value[:100].decode(errors="replace")
        self.recent.append({**told, "value": value})
        self.tell("conflict", **told)

    def take_whole(self, whole: Whole) -> None:
        """States from elsewhere, with all that was written up to a vector."""
        for key, state in whole.states:
            self.settle(key, state)
        self.take_vector(whole.vector)

    def take_vector(self, vector: Mapping[str, int]) -> None:
        """All of this is in the states."""
        for name, sequence in vector.items():
            log = self.logs.setdefault(name, Log())
            if sequence > log.last:
                log.jump(sequence)

    def keep(self, record: Any) -> None:
        self._out.persist.append(record)

    def send(self, message: Any) -> None:
        self._out.messages.append(message)

    def tell(self, name: str, **fields: Any) -> None:
        self._out.events.append(Event(name, fields))

    # ------------------------------------------------------------------ neighbours

    def step(self, message: Any) -> None:
        """Take in one message. Unknown and stale ones are ignored."""
        neighbour = self.neighbours.get(message.src)
        if neighbour is None:
            return
        neighbour.silent_ticks = 0
        if isinstance(message, Ship):
            for write in message.writes:
                if write.sequence == self.vector_of(write.log) + 1:
                    self._take(write)
            self._owed[message.src] = None
        elif isinstance(message, Have):
            self._heard(neighbour, message)
        elif isinstance(message, Fetch):
            self.refill.give(message)
        elif isinstance(message, States):
            self.refill.take(message)

    def vector_of(self, log: str) -> int:
        found = self.logs.get(log)
        return 0 if found is None else found.last

    def _heard(self, neighbour: Neighbour, message: Have) -> None:
        if neighbour.disk != message.disk:
            self._owed[message.src] = None  # let it know, too
        neighbour.said(message.disk, message.vector)
        if neighbour.name in self.hears_from:
            self.refill.consider(message)
        if neighbour.fed is not None and within(neighbour.fed, neighbour.vector):
            self._feed(neighbour)

    def _forget(self) -> None:
        """What all that are shipped to have goes, and what is too much to keep for one of them."""
        for name, log in self.logs.items():
            had = min((each.has(name) for each in self.ships_to.values()), default=log.last)
            log.forget(max(had, log.last - self.log_writes_max, log.excess()))

    def _ship(self, neighbour: Neighbour) -> None:
        """What it was never sent, once: this node's own writes, in a ring all."""
        if not neighbour.disk or self._silent(neighbour):
            return
        names = sorted(self.logs) if self.topology == "ring" else [self.disk]
        for name in names:
            log = self.logs.get(name)
            if log is None:
                continue
            had = neighbour.has(name)
            first = max(had, neighbour.sent.get(name, 0))
            last = min(log.last, had + IN_FLIGHT_MAX)
            while writes := log.between(first, min(last, first + WRITES_PER_MESSAGE_MAX)):
                self.send(Ship(self.node, neighbour.name, writes))
                first = neighbour.sent[name] = writes[-1].sequence

    def _feed(self, neighbour: Neighbour) -> None:
        """What was here at the last look and is lacking there still; on, when it has that."""
        neighbour.fed = None
        writes: list[Write] = []
        for name, log in sorted(self.logs.items()):
            room = WRITES_PER_MESSAGE_MAX - len(writes)
            had = neighbour.has(name)
            writes += log.between(had, min(self._looked.get(name, 0), had + room))
        if writes and not self._silent(neighbour):
            neighbour.fed = {write.log: write.sequence for write in writes}
            self.send(Ship(self.node, neighbour.name, writes))

    def _silent(self, neighbour: Neighbour) -> bool:
        """Messages must not pile up for someone who is gone."""
        return neighbour.silent_ticks > 3 * max(self.look_ticks, self.have_ticks)

    def _have(self, name: NodeId) -> None:
        begins = {log: kept.base for log, kept in self.logs.items() if kept.base}
        self.send(Have(self.node, name, self.disk, self.vector, begins))

    # ------------------------------------------------------------------ time, and outside

    def tick(self) -> None:
        """One unit of time has passed."""
        self.now += 1
        for neighbour in self.neighbours.values():
            neighbour.silent_ticks += 1
            if self.now % self.have_ticks == 0:
                self._owed[neighbour.name] = None
        if self.now % self.look_ticks == 0:
            for neighbour in self.ships_to.values():
                if neighbour.disk:
                    self._feed(neighbour)
            self._looked = self.vector
            self._forget()

    def ready(self) -> Ready:
        """Hand over what is to be done, once."""
        for neighbour in self.ships_to.values():
            self._ship(neighbour)
        for name in self._owed:
            self._have(name)
        self._owed.clear()
        out, self._out = self._out, Ready()
        return out

    def image(self) -> list[Any]:
        """All that must be kept, as records: what the disk's log may be replaced by."""
        kept = [write for _, log in sorted(self.logs.items()) for write in log.writes]
        begins = {name: log.base for name, log in self.logs.items()}
        whole = Whole(sorted(self.states.items()), begins, self.conflicts)
        return [Disk(self.disk), whole, *kept]

    def status(self) -> dict[str, Any]:
        """For `/status` and the story. What a peer `lacks`: writes that are here and not there."""
        return {
            "role": "leader" if self.is_leader else "follower",
            "leader": self.node if self.is_leader else self.leaders[0],
            "topology": self.topology,
            "disk": self.disk,
            "vector": self.vector,
            "keys": len(self.states),
            "conflicts": self.conflicts,
            "recent_conflicts": list(self.recent),
            "refilling": self.refill.source is not None,
            # Equal at two nodes that have the same of every key.
            "digest": f"{self._digest:016x}",
            "peers": {
                each.name: {
                    "heard": bool(each.disk) and not self._silent(each),
                    "lacks": sum(max(0, last - each.has(log)) for log, last in self.vector.items()),
                }
                for each in self.neighbours.values()
            },
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if this node's own state is impossible."""
        for key, state in self.states.items():
            assert state.latest is not None, key
            assert state.latest.key == key, (key, state)
            assert state.covers(state.latest), f"{state.latest} beyond {state.vector}"
            assert state.latest.stamp <= self.clock.last, (state.latest, self.clock.last)
        for name, log in self.logs.items():
            for number, write in enumerate(log.writes, log.base + 1):
                assert write.dot == (name, number), (write, number)
