"""Snapshots (§7): taking one, and sending it in chunks to a follower that is too far behind.

Stop and wait: the answer to a chunk names the next byte wanted, and the next chunk starts there.
An answer that names the byte already on its way is a repetition and sends nothing, so however
often the network repeats itself there is one chunk under way (per answer at most one).
"""

from __future__ import annotations

from services.protocols.core import Snapshot
from services.protocols.raft.leader import Leader
from services.protocols.raft.messages import InstallSnapshot, InstallSnapshotResponse
from services.protocols.raft.progress import Progress
from services.protocols.raft.state import Role


class Snapshots(Leader):
    """Compaction on any node; the sending side of InstallSnapshot on the leader."""

    def compact(self, index: int, data: bytes) -> None:
        """The state machine after applying `index` is `data`. Older than what we have: ignored.

        (It may be older: a snapshot of the leader's can arrive while the state is being written.)
        """
        assert index <= self.applied_index, (index, self.applied_index)
        if index <= self.log.snapshot_index:
            return
        term = self.log.term(index)
        assert term is not None, f"index {index} is applied but not in the log"
        self.log.compact(Snapshot(index, term, data), self.limits.kept_entries)
        self._snapshot_changed = True

    def _begin_snapshot(self, peer: Progress) -> None:
        """The entry before `next_index` is gone here: send the state instead."""
        snapshot = self.log.snapshot
        assert snapshot is not None, f"log starts after {self.log.offset} without a snapshot"
        # Kept until it has arrived even if a newer one is taken: pieces of two do not fit.
        peer.send_snapshot(snapshot)
        self.emit("send_snapshot", peer=peer.node, last_index=snapshot.last_index)
        self._send_chunk(peer)

    def _send_chunk(self, peer: Progress) -> None:
        snapshot = peer.snapshot
        assert snapshot is not None, peer.node
        end = peer.offset + self.limits.snapshot_chunk_bytes
        peer.sent_tick = self.ticks
        self.send(
            InstallSnapshot(
                self.node,
                peer.node,
                self.term,
                snapshot.last_index,
                snapshot.last_term,
                peer.offset,
                snapshot.data[peer.offset : end],
                end >= len(snapshot.data),
            )
        )

    def _repeat_chunk(self, peer: Progress) -> None:
        """At a heartbeat: the chunk, or its answer, may be lost."""
        if peer.snapshot is not None and self.ticks - peer.sent_tick >= 2 * self.heartbeat_ticks:
            self._send_chunk(peer)

    def on_install_snapshot_response(self, message: InstallSnapshotResponse) -> None:
        if self.newer_term(message.term, message.src) or self.role is not Role.LEADER:
            return
        peer = self.progress[message.src]
        peer.heard_tick = self.ticks
        if message.done:
            self._matched(peer, message.last_included_index, peer.match_round)
            return
        snapshot = peer.snapshot
        if snapshot is None or snapshot.last_index != message.last_included_index:
            return  # late: that one has arrived, or was given up
        if message.offset != peer.offset and message.offset <= len(snapshot.data):
            peer.offset = message.offset
            self._send_chunk(peer)
