"""A node of a causally consistent store: it answers its clients, and replicates what they write."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from random import Random
from typing import Any

from services.protocols.causal.logs import Log, Pending, batch_of, batches, begins
from services.protocols.causal.messages import (
    Applied,
    Base,
    Fetch,
    Have,
    Logged,
    Replicate,
    States,
    Stored,
    VersionVector,
    Whole,
    Write,
)
from services.protocols.causal.refill import Refill
from services.protocols.causal.sessions import Level, Operation, Reply, Session, covers
from services.protocols.clocks.lamport import LamportClock
from services.protocols.core import Busy, Event, NodeId
from services.protocols.leaderless import Disk, Ready, new_disk, node_of

WAITING_MAX = 10_000  # operations whose session is ahead of this node
PENDING_MAX = 10_000  # writes of one origin that wait for what they depend on


class Causal:
    """One node.

    Args:
        random: chance: which peer to compare with, and the name of a new disk, so it must not be
            seeded the same at every start.
        records: what it had persisted.
        resend_ticks: a peer that has not said by then that it has a write is sent it again.
        anti_entropy_ticks: between two comparisons with a peer; 0: none, and a write comes from its
            origin alone.
    """

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        random: Random,
        records: Iterable[Any] = (),
        resend_ticks: int = 10,
        anti_entropy_ticks: int = 30,
    ) -> None:
        self.node = node
        self.peers = tuple(sorted(peers))
        self.nodes = tuple(sorted((node, *peers)))
        self.resend_ticks, self.anti_entropy_ticks = resend_ticks, anti_entropy_ticks
        self.now = 0
        self.disk = ""
        self.applied: VersionVector = {}
        self.states: dict[str, Write] = {}
        self.logs: dict[str, Log] = {}
        self.pending: dict[str, Pending] = {}  # by origin
        self.waiting: dict[int, Operation] = {}
        # What each peer has said that it has, and on which disk; after a restart it says so again.
        self.known: dict[NodeId, VersionVector] = {peer: {} for peer in self.peers}
        self.disks: dict[NodeId, str] = dict.fromkeys(self.peers, "")
        self.clock = LamportClock()
        self._digest = 0
        self._unheard: dict[NodeId, int] = {}  # peer: the first write that it had not at last look
        self._fresh: list[Write] = []
        self._heard: dict[NodeId, bool] = {}  # peers to be told what is here; and asked for more?
        self._out = Ready()
        self._random = random
        self.refill = Refill(self, random)
        for record in records:
            self._recover(record)
        if not self.disk:
            disk = new_disk(node, random)
            self.disk = disk.name
            self._out.persist.append(disk)

    def _recover(self, record: Any) -> None:
        if isinstance(record, Disk):
            self.disk = record.name
        elif isinstance(record, Applied):
            self._note(record.write)
        elif isinstance(record, Base):
            self.applied, self.clock = dict(record.applied), LamportClock(record.time)
            self.states.clear()
            self._digest = 0
            self.logs = {name: Log(last) for name, last in record.applied.items()}
        elif isinstance(record, Stored):
            self._hold(record.write)
        elif isinstance(record, Logged):
            origin, number = record.write.dot
            if not self.logs[origin].writes:
                self.logs[origin] = Log(number - 1)
            self.logs[origin].append(record.write)
        elif isinstance(record, Whole):
            self._take_on(record)

    # ------------------------------------------------------------------ clients

    def read(self, request: int, key: str, *, session: Session, level: Level) -> None:
        """Read `key` once all that `level` heeds of `session` is here; `ready().replies` tells.

        Raises Busy (definite).
        """
        self._begin(Operation(request, key, session, level, writes=False))

    def write(
        self, request: int, key: str, value: bytes | None, *, session: Session, level: Level
    ) -> None:
        """Write `key`, as `read`: a write that depends on more than is here would be seen here
        before its cause."""
        self._begin(Operation(request, key, session, level, writes=True, value=value))

    def withdraw(self, request: int) -> bool:
        """Its client waits no longer. True: nothing happened, and nothing will."""
        return self.waiting.pop(request, None) is not None

    def _begin(self, operation: Operation) -> None:
        if covers(self.applied, operation.required):
            self._carry_out(operation)
        elif len(self.waiting) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} operations wait for what their sessions have seen")
        else:
            self.waiting[operation.request] = operation
            self.tell(
                "wait_for_session", key=operation.key, behind=self._missing(operation.required)
            )

    def _missing(self, wanted: VersionVector) -> list[NodeId]:
        """Whose writes are not all here."""
        return [node_of(disk) for disk, number in wanted.items() if self.has(disk) < number]

    def has(self, origin: str) -> int:
        """How many of its writes were applied here."""
        return self.applied.get(origin, 0)

    def _carry_out(self, operation: Operation) -> None:
        session = operation.session
        if operation.writes:
            number = self.has(self.disk) + 1
            write = Write(
                *(self.disk, number, self.clock.tick(), operation.key, operation.value),
                dict(operation.required),
            )
            self._apply(write)
            self._fresh.append(write)
            reply = Reply(operation.request, write, session.after_writing(write))
        else:
            found = self.states.get(operation.key)
            reply = Reply(operation.request, found, session.after_reading(found))
        self._out.replies.append(reply)

    # ------------------------------------------------------------------ what is here

    def _apply(self, write: Write) -> None:
        """All that it depends on is here: it may be seen."""
        assert covers(self.applied, write.depends), (write, self.applied)
        self._note(write)
        self._out.persist.append(Applied(write))

    def _note(self, write: Write) -> None:
        assert write.number == self.has(write.origin) + 1, (write, self.applied)
        self.applied[write.origin] = write.number
        self.logs.setdefault(write.origin, Log()).append(write)
        self.clock.receive(write.time)
        self._settle(write)

    def _settle(self, write: Write) -> None:
        state = self.states.get(write.key)
        if state is None or write.version > state.version:
            self._hold(write)

    def take_whole(self, whole: Whole) -> None:
        """What another node held at one moment, which the logs no longer tell write by write."""
        self._take_on(whole)
        self._out.persist.append(whole)
        self.tell("refilled", keys=len(whole.writes))
        for origin, pending in self.pending.items():
            for number in [each for each in pending if each <= self.has(origin)]:
                pending.take(number)
        self._apply_pending()
        self._serve_waiting()

    def _take_on(self, whole: Whole) -> None:
        for write in whole.writes:
            self._settle(write)
        self.clock.receive(whole.time)
        for origin, last in whole.applied.items():
            if last > self.has(origin):
                self.applied[origin], self.logs[origin] = last, Log(last)

    def _hold(self, write: Write) -> None:
        """The key has this now. (The digest is kept up, for a status is asked for often.)"""
        before = self.states.get(write.key)
        if before is not None:
            self._digest ^= _hash(before)
        self._digest ^= _hash(write)
        self.states[write.key] = write

    def version(self, write: Write) -> int:
        """`write.version` as one number, with the same order. (Of two disks of one node the times
        may be the same, before the second was told of the first; so may then the numbers.)"""
        return write.time * len(self.nodes) + self.nodes.index(node_of(write.origin))

    def _satisfied(self, write: Write) -> bool:
        """COPS' dep_check: is all that it depends on here?"""
        return covers(self.applied, write.depends)

    def _receive(self, write: Write) -> bool:
        """Keep it until it may be seen; False: it is known, or from nobody here."""
        if node_of(write.origin) not in self.nodes:
            return False
        here, pending = self.has(write.origin), self.pending.setdefault(write.origin, Pending())
        # One far ahead comes again, once there is room.
        if not here < write.number <= here + PENDING_MAX or write.number in pending:
            return False
        return pending.put(write)

    def _apply_pending(self) -> None:
        """Whatever may be seen now; each may be what another one has waited for."""
        progress, applied = True, False
        while progress:
            progress = False
            for origin, pending in self.pending.items():
                while (write := pending.get(self.has(origin) + 1)) and self._satisfied(write):
                    pending.take(write.number)
                    self._apply(write)
                    progress = applied = True
        if applied:
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        for request, operation in list(self.waiting.items()):
            if covers(self.applied, operation.required):
                del self.waiting[request]
                self._carry_out(operation)

    # ------------------------------------------------------------------ peers

    def step(self, message: Any) -> None:
        """Take in one message from a peer. Unknown senders are ignored, known writes, too."""
        if message.src not in self.known:
            return
        if isinstance(message, Replicate):
            received = [write for write in message.writes if self._receive(write)]
            self._apply_pending()
            for write in received:
                if write.number > self.has(write.origin):
                    behind = self._missing({**write.depends, write.origin: write.number - 1})
                    origin = node_of(write.origin)
                    self.tell("hold_back", key=write.key, origin=origin, behind=behind)
            self._heard[message.src] = message.more or self._heard.get(message.src, False)
        elif isinstance(message, Have):
            self._hear(message)
        elif isinstance(message, Fetch):
            self.refill.give(message)
        elif isinstance(message, States):
            self.refill.take(message)

    def _hear(self, message: Have) -> None:
        peer = message.src
        if message.disk != self.disks[peer]:
            self.disks[peer], self.known[peer] = message.disk, {}
        known = self.known[peer]
        for name, number in message.applied.items():
            known[name] = max(known.get(name, 0), number)
        self.refill.consider(message)
        if message.ask:
            self._send_missing(peer, list(self.logs) if self.anti_entropy_ticks else ())

    def _send_missing(self, peer: NodeId, others: Iterable[str]) -> None:
        """A batch of what `peer` has not said that it has, of this disk's writes and `others`'."""
        known, disk = self.known[peer], self.disks[peer]
        logs = {each: self.logs[each] for each in (self.disk, *others)
                if each in self.logs and each != disk}  # fmt: skip
        if any(known.get(origin, 0) < log.base for origin, log in logs.items()):
            self._heard.setdefault(peer, False)  # where they begin, so that it fetches the states
        batch, more = batch_of(
            write for origin, log in logs.items() for write in log.after(known.get(origin, 0))
        )
        if batch:
            self.send(Replicate(self.node, peer, batch, more))

    def send(self, message: Any) -> None:
        self._out.messages.append(message)

    def tell(self, name: str, **fields: Any) -> None:
        self._out.events.append(Event(name, fields))

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """One unit of time has passed."""
        self.now += 1
        if self.now % self.resend_ticks == 0:
            for peer in self.peers:
                self._resend(peer)
            self._forget()
        if self.anti_entropy_ticks and self.now % self.anti_entropy_ticks == 0 and self.peers:
            self._have(self._random.choice(self.peers), ask=True)

    def _have(self, peer: NodeId, *, ask: bool) -> None:
        applied, kept = dict(self.applied), begins(self.logs)
        self.send(Have(self.node, peer, self.disk, applied, kept, ask))

    def _resend(self, peer: NodeId) -> None:
        """What it had not at the last look, and has not now."""
        first = self.known[peer].get(self.disk, 0) + 1
        if first <= self.has(self.disk) and self._unheard.get(peer) == first:
            self._send_missing(peer, ())
            self.tell("resend", peer=peer, number=first)
        self._unheard[peer] = first

    def _forget(self) -> None:
        """What every peer has is not kept for sending any more."""
        for origin, log in self.logs.items():
            others = [peer for peer in self.peers if self.disks[peer] != origin]
            least = [self.known[peer].get(origin, 0) for peer in others]
            log.forget(min(least, default=self.has(origin)))

    # ------------------------------------------------------------------ outside

    def ready(self) -> Ready:
        """Hand over what is to be done, once."""
        fresh, self._fresh = self._fresh, []
        for writes in batches(fresh):
            for peer in self.peers:
                self.send(Replicate(self.node, peer, writes, False))
        for peer, ask in self._heard.items():
            self._have(peer, ask=ask)
        self._heard.clear()
        out, self._out = self._out, Ready()
        return out

    def image(self) -> list[Any]:
        """All that must be kept, as records: what a log may be replaced by."""
        logged = [Logged(write) for log in self.logs.values() for write in log.writes.values()]
        stored = [Stored(self.states[key]) for key in sorted(self.states)]
        base = Base(dict(self.applied), self.clock.time)
        return [Disk(self.disk), base, *stored, *logged]

    def digest(self) -> str:
        """Equal at two nodes that hold the same."""
        return f"{self._digest:016x}"

    def status(self) -> dict[str, Any]:
        """For `/status` and the story."""
        return {
            "role": "replica",
            "keys": len(self.states),
            "disk": self.disk,
            "applied": dict(sorted(self.applied.items())),
            "waiting": len(self.waiting),
            "pending": sum(map(len, self.pending.values())),
            "backlog": sum(len(log.writes) for log in self.logs.values()),
            "refilling": self.refill.source is not None,
            "digest": self.digest(),
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if this node's own state is impossible."""
        for write in self.states.values():
            assert covers(self.applied, {write.origin: write.number}), (write, self.applied)
            assert covers(self.applied, write.depends), (write, self.applied)
        for origin, log in self.logs.items():
            # One gap would stop every peer that lacks it.
            kept = list(log.writes)
            assert log.last == self.has(origin), (origin, log.last, self.applied)
            assert kept == list(range(log.base + 1, log.last + 1)), (origin, kept)
        for operation in self.waiting.values():
            assert not covers(self.applied, operation.required), operation


def _hash(write: Write) -> int:
    """Of what a key holds."""
    content = repr((write.key, *write.dot)).encode()
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
