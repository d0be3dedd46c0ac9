"""A node of a causally consistent store: it answers its clients, and replicates what they write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile
from random import Random
from typing import Any

from services.protocols.causal.messages import (
    Applied,
    Base,
    Have,
    Logged,
    Replicate,
    Stored,
    VersionVector,
    Write,
)
from services.protocols.causal.sessions import Level, Session, covers, required
from services.protocols.clocks.lamport import LamportClock
from services.protocols.core import Busy, Event, NodeId
from services.protocols.leaderless import Ready

WAITING_MAX = 10_000  # operations whose session is ahead of this node
BACKLOG_MAX = 100_000  # writes kept for a peer that has not got them
PENDING_MAX = 10_000  # writes of one origin that wait for what they depend on
BATCH_WRITES, BATCH_BYTES = 500, 1 << 20  # in one message


@dataclass(slots=True)
class Reply:
    """An operation's end: what the key holds (None: it was never written), the session after it."""

    request: int
    write: Write | None
    session: Session


@dataclass(slots=True)
class Operation:
    """A read, or a write of `value`, that `session` asked for."""

    request: int
    key: str
    session: Session
    level: Level
    writes: bool
    value: bytes | None = None

    @property
    def required(self) -> VersionVector:
        return required(self.level, self.session, writes=self.writes)


class Causal:
    """One node.

    Args:
        random: chance: which peer to compare with.
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
        self.applied: VersionVector = dict.fromkeys(self.nodes, 0)
        self.states: dict[str, Write] = {}
        self.log: dict[NodeId, dict[int, Write]] = {name: {} for name in self.nodes}
        self.pending: dict[NodeId, dict[int, Write]] = {name: {} for name in self.nodes}
        self.waiting: dict[int, Operation] = {}
        # What each peer has said that it has; after a restart it will say so again.
        self.known: dict[NodeId, VersionVector] = {peer: {} for peer in self.peers}
        self._clock = LamportClock()
        self._digest = 0
        self._unheard: dict[NodeId, int] = {}  # peer: the first write that it had not at last look
        self._fresh: list[Write] = []
        self._heard: dict[NodeId, bool] = {}  # peers to be told what is here; and asked for more?
        self._out = Ready()
        self._random = random
        for record in records:
            self._recover(record)

    def _recover(self, record: Any) -> None:
        if isinstance(record, Applied):
            self._note(record.write)
        elif isinstance(record, Base):
            self.applied, self._clock = dict(record.applied), LamportClock(record.time)
            self.states.clear()
            self._digest = 0
            self.log = {name: {} for name in self.nodes}
        elif isinstance(record, Stored):
            self._hold(record.write)
        elif isinstance(record, Logged):
            self.log[record.write.origin][record.write.number] = record.write

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
        if sum(map(len, self.log.values())) >= BACKLOG_MAX:
            raise Busy(f"{BACKLOG_MAX} writes are kept for a node that is silent")
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
        return [name for name, number in wanted.items() if self.applied.get(name, 0) < number]

    def _carry_out(self, operation: Operation) -> None:
        session = operation.session
        if operation.writes:
            number = self.applied[self.node] + 1
            write = Write(
                *(self.node, number, self._clock.tick(), operation.key, operation.value),
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
        assert write.number == self.applied[write.origin] + 1, (write, self.applied)
        self.applied[write.origin] = write.number
        self.log[write.origin][write.number] = write
        self._clock.receive(write.time)
        state = self.states.get(write.key)
        if state is None or write.version > state.version:
            self._hold(write)

    def _hold(self, write: Write) -> None:
        """The key has this now. (The digest is kept up, for a status is asked for often.)"""
        before = self.states.get(write.key)
        if before is not None:
            self._digest ^= _hash(before)
        self._digest ^= _hash(write)
        self.states[write.key] = write

    def version(self, write: Write) -> int:
        """`write.version` as one number, with the same order."""
        return write.time * len(self.nodes) + self.nodes.index(write.origin)

    def _satisfied(self, write: Write) -> bool:
        """COPS' dep_check: is all that it depends on here?"""
        return covers(self.applied, write.depends)

    def _receive(self, write: Write) -> bool:
        """Keep it until it may be seen; False: it is known, or from nobody here."""
        if write.origin not in self.applied:
            return False
        here, pending = self.applied[write.origin], self.pending[write.origin]
        # One far ahead comes again, once there is room.
        if not here < write.number <= here + PENDING_MAX or write.number in pending:
            return False
        pending[write.number] = write
        return True

    def _apply_pending(self) -> None:
        """Whatever may be seen now; each may be what another one has waited for."""
        progress, applied = True, False
        while progress:
            progress = False
            for origin, pending in self.pending.items():
                while (write := pending.get(self.applied[origin] + 1)) and self._satisfied(write):
                    del pending[write.number]
                    self._apply(write)
                    progress = applied = True
        if applied and self.waiting:
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
                if write.number > self.applied[write.origin]:
                    behind = self._missing({**write.depends, write.origin: write.number - 1})
                    self.tell("hold_back", key=write.key, origin=write.origin, behind=behind)
            self._heard[message.src] = message.more or self._heard.get(message.src, False)
        elif isinstance(message, Have):
            known = self.known[message.src]
            for name, number in message.applied.items():
                known[name] = max(known.get(name, 0), number)
            if message.ask:
                self._send_missing(message.src, self.nodes if self.anti_entropy_ticks else ())

    def _send_missing(self, peer: NodeId, others: Iterable[NodeId]) -> bool:
        """A batch of what `peer` has not said that it has, of this node's writes and `others`'."""
        known = self.known[peer]
        missing = (
            write
            for origin in dict.fromkeys((self.node, *others))
            if origin != peer
            for write in _after(self.log[origin], known.get(origin, 0))
        )
        batch, more = _batch(missing)
        if batch:
            self.send(Replicate(self.node, peer, batch, more))
        return bool(batch)

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
            self.send(Have(self.node, self._random.choice(self.peers), dict(self.applied), True))

    def _resend(self, peer: NodeId) -> None:
        """What it had not at the last look, and has not now."""
        first = self.known[peer].get(self.node, 0) + 1
        if first <= self.applied[self.node] and self._unheard.get(peer) == first:
            self._send_missing(peer, ())
            self.tell("resend", peer=peer, number=first)
        self._unheard[peer] = first

    def _forget(self) -> None:
        """What every peer has is not kept for sending any more."""
        for origin, log in self.log.items():
            least = min(
                (known.get(origin, 0) for peer, known in self.known.items() if peer != origin),
                default=self.applied[origin],
            )
            for number in list(takewhile(least.__ge__, log)):
                del log[number]

    # ------------------------------------------------------------------ outside

    def ready(self) -> Ready:
        """Hand over what is to be done, once."""
        fresh, self._fresh = self._fresh, []
        for writes in _batches(fresh):
            for peer in self.peers:
                self.send(Replicate(self.node, peer, writes, False))
        for peer, ask in self._heard.items():
            self.send(Have(self.node, peer, dict(self.applied), ask))
        self._heard.clear()
        out, self._out = self._out, Ready()
        return out

    def image(self) -> list[Any]:
        """All that must be kept, as records: what a log may be replaced by."""
        logged = [Logged(write) for log in self.log.values() for write in log.values()]
        stored = [Stored(self.states[key]) for key in sorted(self.states)]
        return [Base(dict(self.applied), self._clock.time), *stored, *logged]

    def digest(self) -> str:
        """Equal at two nodes that hold the same."""
        return f"{self._digest:016x}"

    def status(self) -> dict[str, Any]:
        """For `/status` and the story."""
        return {
            "role": "replica",
            "keys": len(self.states),
            "applied": dict(self.applied),
            "waiting": len(self.waiting),
            "pending": sum(map(len, self.pending.values())),
            "backlog": sum(map(len, self.log.values())),
            "digest": self.digest(),
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if this node's own state is impossible."""
        for write in self.states.values():
            assert covers(self.applied, {write.origin: write.number}), (write, self.applied)
            assert covers(self.applied, write.depends), (write, self.applied)
        for origin, log in self.log.items():
            # One gap would stop every peer that lacks it.
            last = self.applied[origin]
            assert list(log) == list(range(last - len(log) + 1, last + 1)), (origin, list(log))
        for operation in self.waiting.values():
            assert not covers(self.applied, operation.required), operation


def _hash(write: Write) -> int:
    """Of what a key holds."""
    content = repr((write.key, *write.dot)).encode()
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")


def _after(log: dict[int, Write], number: int) -> Iterator[Write]:
    """The writes of a log, which has no gaps, behind `number`. (What it begins with may be later:
    everybody has what is before that.)"""
    first = next(iter(log), 0)
    return (log[each] for each in range(max(first, number + 1), first + len(log)))


def _batch(writes: Iterable[Write]) -> tuple[list[Write], bool]:
    """As many of them as fit into a message; are there more?"""
    batch: list[Write] = []
    size = 0
    for write in writes:
        size += len(write.key) + len(write.value or b"")
        if batch and (len(batch) >= BATCH_WRITES or size > BATCH_BYTES):
            return batch, True
        batch.append(write)
    return batch, False


def _batches(writes: list[Write]) -> Iterator[list[Write]]:
    while writes:
        batch, _ = _batch(writes)
        yield batch
        writes = writes[len(batch) :]
