"""State transfer: to who lacks updates that its predecessor (or the tail) has compacted.

Stop and wait: the answer to a chunk names the next byte wanted. Only a server that is new in the
chain, or outside, ever needs it: what is compacted is acknowledged, and that the others have.
"""

from __future__ import annotations

from services.protocols.chain.links import Links
from services.protocols.chain.messages import StateTransferred, TransferState
from services.protocols.chain.state import Link
from services.protocols.core import Snapshot


class Transfer(Links):
    """Compaction, and both ends of a transfer."""

    _received = bytearray()

    def compact(self, index: int, data: bytes) -> None:
        """The state machine after applying `index` is `data`. Older than what we have: ignored."""
        assert index <= self.applied_index, (index, self.applied_index)
        if index <= self.log.snapshot_index:
            return
        epoch = self.log.term(index)
        assert epoch is not None, f"index {index} is applied but not in the log"
        self.log.compact(Snapshot(index, epoch, data), self.limits.kept_entries)
        self._snapshot_changed = True

    # ---- sending ----------------------------------------------------------------------------

    def begin_transfer(self, link: Link) -> None:
        snapshot = self.log.snapshot
        assert snapshot is not None, f"log starts after {self.log.offset} without a snapshot"
        link.met = False
        link.snapshot, link.offset = snapshot, 0
        self.emit("send_snapshot", peer=link.node, last_index=snapshot.last_index)
        self._send_chunk(link)

    def _send_chunk(self, link: Link) -> None:
        snapshot = link.snapshot
        assert snapshot is not None, link.node
        end = link.offset + self.limits.snapshot_chunk_bytes
        link.sent_tick = self.ticks
        self.send(
            TransferState(
                self.node,
                link.node,
                self.epoch,
                snapshot.last_index,
                snapshot.last_term,
                link.offset,
                snapshot.data[link.offset : end],
                end >= len(snapshot.data),
            )
        )

    def repeat_chunks(self) -> None:
        """At a heartbeat: a chunk, or its answer, may be lost."""
        for link in self.links.values():
            waited = self.ticks - link.sent_tick >= 2 * self.heartbeat_ticks
            if link.snapshot is not None and waited:
                self._send_chunk(link)

    def on_state_transferred(self, message: StateTransferred) -> None:
        link = self.links.get(message.src)
        if message.epoch != self.epoch or link is None:
            return
        link.heard_tick = self.ticks
        snapshot = link.snapshot
        if snapshot is None or snapshot.last_index != message.last_index:
            return  # late
        if message.done:
            link.match_index = max(link.match_index, message.last_index)
            link.meet()
        elif message.offset != link.offset and message.offset <= len(snapshot.data):
            link.offset = message.offset
            self._send_chunk(link)

    # ---- receiving --------------------------------------------------------------------------

    def on_transfer_state(self, message: TransferState) -> None:
        if not self.accepts(message.epoch, message.src):
            return
        index, epoch = message.last_index, message.last_epoch
        if index > self.commit_index and self.log.term(index) == epoch:
            # The entry is here, so all before it are, and the snapshot says that they are stable.
            self._verified = max(self._verified, index)
            self.advance(index)
        if index <= self.commit_index:
            self._answer_chunk(message, offset=0, done=True)
            return
        key = (index, epoch)
        if key != self._receiving:
            if self._receiving is not None and self._receiving > key:
                return  # late: a newer one is on its way
            self._receiving, self._received = key, bytearray()
        if message.offset == len(self._received):
            self._received += message.data
            if message.done:
                self._install(Snapshot(index, epoch, bytes(self._received)), message.src)
                self._answer_chunk(message, offset=0, done=True)
                return
        self._answer_chunk(message, offset=len(self._received), done=False)

    def _install(self, snapshot: Snapshot, src: str) -> None:
        self.log.reset(snapshot)
        self._unpersisted.clear()
        self._snapshot_changed = True
        self._restore = snapshot
        self.commit_index = self.applied_index = self._verified = snapshot.last_index
        self._receiving, self._received = None, bytearray()
        self.emit(
            "install_snapshot",
            leader=src,
            last_index=snapshot.last_index,
            last_term=snapshot.last_term,
            bytes=len(snapshot.data),
        )

    def _answer_chunk(self, message: TransferState, *, offset: int, done: bool) -> None:
        index = message.last_index
        self.send(StateTransferred(self.node, message.src, self.epoch, index, offset, done))
