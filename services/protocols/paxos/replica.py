"""The replica: learning decisions in the order of slots, snapshots, and catching up.

A decision travels in three ways, the cheapest first. (1) Every p2a says up to which slot all is
decided; what this acceptor accepted in the ballot *of that p2a* is then the decision, for a leader
proposes one value per slot and ballot. What it accepted in another ballot may be another value, and
is not. (2) What it lacks it asks for, of whoever said so. (3) If the decisions are collected away
there, it gets the state instead, in chunks.

Asking is stop and wait: the next request names what is here by now. Lost messages are made up for
by the next p2a that tells of more (or the scout's next tick); repeated and late ones name slots or
bytes that are here already.
"""

from __future__ import annotations

from services.protocols.core import NodeId, Snapshot
from services.protocols.log import batch
from services.protocols.paxos.messages import Decisions, Learn, SnapshotChunk
from services.protocols.paxos.state import PaxosState, Role


class Replica(PaxosState):
    """The learning side and the teaching side; any node teaches."""

    _target = 0  # somebody knows the decisions up to here
    _asked: tuple[NodeId, int] | None = None  # whom, and at which tick; None: nobody is asked
    # The snapshot being received. Its bytes are the sender's own (another node may write the same
    # state differently), so the pieces of two senders are never mixed.
    _receiving: tuple[NodeId, int, int] | None = None  # from whom, last index, its term
    _received = bytearray()
    _teaching: dict[NodeId, Snapshot]  # the snapshot that each one is being sent

    # ---- learning ---------------------------------------------------------------------------

    def hear_decided(self, src: NodeId, ballot: int, upto: int) -> None:
        """The leader of `ballot` says that every slot up to `upto` is decided."""
        slots = self.slots
        while slots.decided < upto:
            pvalue = slots.accepted.get(slots.decided + 1)
            if pvalue is None or pvalue.ballot != ballot:
                self.catch_up(src, upto)
                return
            slots.decide(pvalue.entry)

    def catch_up(self, source: NodeId, upto: int) -> None:
        """`source` knows the decisions up to `upto`. Ask for them, unless somebody was asked."""
        self._target = max(self._target, upto)
        if self._asked is None or self.ticks - self._asked[1] >= 2 * self.heartbeat_ticks:
            self._ask_to_learn(source)

    def _ask_to_learn(self, source: NodeId) -> None:
        self._asked = (source, self.ticks)
        index = offset = 0
        if self._receiving is not None and self._receiving[1] <= self.slots.decided:
            # Overtaken by decisions that came another way. To ask for the rest would be answered
            # with the rest, and thrown away, for ever.
            self._receiving, self._received = None, bytearray()
        if self._receiving is not None and self._receiving[0] == source:
            index, offset = self._receiving[1], len(self._received)
        self.send(Learn(self.node, source, self.slots.decided, index, offset))

    def on_decisions(self, message: Decisions) -> None:
        new = [entry for entry in message.entries if entry.index > self.slots.decided]
        if self.role is Role.LEADER or not new or new[0].index != self.slots.decided + 1:
            # An active leader decides by its own commanders; a gap is not skipped; and nothing new
            # asks for nothing: if every repeated answer led to a request, and some requests are
            # repeated too, the two would multiply until the network is full of them.
            return
        self.decide_learned(new)
        self._learned(message.src, message.decided)

    def _learned(self, source: NodeId, upto: int) -> None:
        """Something arrived: go on asking while there is more, else see what was waiting for it."""
        self._target = max(self._target, upto)
        if self._asked is not None and self._asked[0] == source:
            self._asked = None
            if self.slots.decided < upto:
                self._ask_to_learn(source)
        if self.role is Role.CANDIDATE:
            self.reset_election_timer()  # it makes progress
        self.consider_adoption()

    def on_snapshot_chunk(self, message: SnapshotChunk) -> None:
        key = (message.src, message.last_index, message.last_term)
        if self.role is Role.LEADER or message.last_index <= self.slots.decided:
            return
        if key != self._receiving:
            if message.offset != 0:
                return
            self._receiving, self._received = key, bytearray()
        if message.offset != len(self._received):
            return
        self._received += message.data
        if message.done:
            self._install(Snapshot(*key[1:], bytes(self._received)), message.src)
        self._learned(message.src, max(self._target, message.last_index))

    def _install(self, snapshot: Snapshot, src: NodeId) -> None:
        """It replaces decisions and state machine; pvalues of later slots stay."""
        self.slots.reset(snapshot)
        self._snapshot_changed = True
        self._restore = snapshot
        self.applied_index = snapshot.last_index
        self._receiving, self._received = None, bytearray()
        self.emit(
            "install_snapshot",
            leader=src,
            last_index=snapshot.last_index,
            last_term=snapshot.last_term,
            bytes=len(snapshot.data),
        )

    # ---- teaching ---------------------------------------------------------------------------

    def on_learn(self, message: Learn) -> None:
        slots, limits = self.slots, self.limits
        if message.after >= slots.decided:
            return
        if message.after < slots.offset:
            self._send_chunk(message)
            return
        self._teaching.pop(message.src, None)
        upto = min(slots.decided, message.after + limits.entries_per_message)
        entries = batch(
            slots.between(message.after, upto), limits.entries_per_message, limits.bytes_per_message
        )
        self.send(Decisions(self.node, message.src, entries, slots.decided))

    def _send_chunk(self, message: Learn) -> None:
        snapshot = self._teaching.get(message.src)
        offset = message.offset
        if snapshot is None or snapshot.last_index != message.snapshot_index:
            # Kept until it has arrived even if a newer one is taken: pieces of two do not fit.
            assert self.slots.snapshot is not None, f"decisions begin after {self.slots.offset}"
            snapshot = self._teaching[message.src] = self.slots.snapshot
            offset = 0
            self.emit("send_snapshot", peer=message.src, last_index=snapshot.last_index)
        end = offset + self.limits.snapshot_chunk_bytes
        self.send(
            SnapshotChunk(
                self.node,
                message.src,
                snapshot.last_index,
                snapshot.last_term,
                offset,
                snapshot.data[offset:end],
                end >= len(snapshot.data),
            )
        )

    # ---- garbage collection -----------------------------------------------------------------

    def compact(self, index: int, data: bytes) -> None:
        """The state machine after applying `index` is `data`. Older than what we have: ignored.

        (It may be older: another's snapshot can arrive while the state is being written.)
        """
        assert index <= self.applied_index, (index, self.applied_index)
        if index <= self.slots.snapshot_index:
            return
        term = self.slots.decision(index).term
        self.slots.compact(Snapshot(index, term, data), self.limits.kept_entries)
        self._snapshot_changed = True
