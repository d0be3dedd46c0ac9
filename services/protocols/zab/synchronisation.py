"""Phase 2, the leader's choice of TRUNC, DIFF or SNAP (Medeiros §4.3), and compaction.

The paper sends the whole initial history with NEWLEADER; ZooKeeper sends what is different. Here
the next message is a function of where the follower says that its history ends:

    in a transaction that the leader does not have    TRUNC to the last one that both have
    the same, but the leader has compacted that       SNAP, a snapshot in chunks
    before the end of the initial history             DIFF, the next transactions
    at or behind it                                   NEWLEADER

One message, one answer, the next; said again at a heartbeat if no answer came. An answer that says
nothing new (a repetition) sends nothing, so however often the network repeats itself, there is one
message under way.
"""

from __future__ import annotations

from services.protocols.core import Snapshot
from services.protocols.zab.leader import Leader
from services.protocols.zab.learner import Learner, Stage
from services.protocols.zab.messages import AckSync, Diff, NewLeader, Snap, Trunc, Zxid


class Synchronisation(Leader):
    """Makes a follower's history the leader's."""

    def synchronise(self, learner: Learner) -> None:
        """Send the next step, or the same once more."""
        history, limits = self.history, self.limits
        src, dst, epoch = self.node, learner.node, self.accepted_epoch
        learner.sent_tick = self.ticks
        if learner.snapshot is None and not history.holds(learner.last):
            common = history.common(learner.ends)
            if common >= history.offset:
                self.send(Trunc(src, dst, epoch, history.zxid(common)))
                return
            self._begin_snapshot(learner)
        if learner.snapshot is not None:
            self._send_chunk(learner)
        elif learner.last.counter >= self.initial_counter:
            self.send(NewLeader(src, dst, epoch, learner.last))
        else:
            after = learner.last.counter
            entries = history.batch(after, limits.entries_per_message, limits.bytes_per_message)
            self.send(Diff(src, dst, epoch, learner.last, entries))

    def _begin_snapshot(self, learner: Learner) -> None:
        snapshot = self.history.snapshot
        assert snapshot is not None, f"history after {self.history.base} without a snapshot"
        # Kept until it has arrived even if a newer one is taken: pieces of two do not fit.
        learner.snapshot, learner.offset = snapshot, 0
        self.emit("send_snapshot", peer=learner.node, last_index=snapshot.last_index)

    def _send_chunk(self, learner: Learner) -> None:
        snapshot = learner.snapshot
        assert snapshot is not None, learner.node
        end = learner.offset + self.limits.snapshot_chunk_bytes
        self.send(
            Snap(
                self.node,
                learner.node,
                self.accepted_epoch,
                Zxid(snapshot.last_term, snapshot.last_index),
                learner.offset,
                snapshot.data[learner.offset : end],
                end >= len(snapshot.data),
            )
        )

    def on_ack_sync(self, message: AckSync) -> None:
        learner = self._learner(message.src, message.epoch)
        if learner is None or learner.stage is not Stage.MEASURED:
            return
        last = message.last
        if learner.snapshot is None:
            known = self.history.holds(learner.last) and last.counter <= learner.last.counter
            if known or not self.history.holds(last):
                # A repetition, or late, or as it was at ACK-E. But if it answers what had to be
                # said twice: a late TRUNC may have taken it back again.
                if last != learner.last:
                    self._measure_again(learner)
                return
        elif not self._has_arrived(learner.snapshot, last):
            if message.offset == learner.offset == 0:
                # It has that already and more, of which this leader has compacted the end.
                self._measure_again(learner)
            elif message.offset != learner.offset and message.offset <= len(learner.snapshot.data):
                learner.offset = message.offset
                self.synchronise(learner)
            return
        learner.measure([last])
        self.synchronise(learner)

    def _measure_again(self, learner: Learner) -> None:
        """Its history is not as this leader believes: begin anew, from NEWEPOCH and ACK-E.

        Only when a step had to be repeated, so not for an answer that is repeated or delayed."""
        if learner.repeated:
            learner.stage = Stage.JOINED
            self._send_new_epoch(learner)

    def _has_arrived(self, snapshot: Snapshot, last: Zxid) -> bool:
        """Does a history that ends with `last` have it?

        The counter does not tell: what the follower still has to give up may be longer. And the
        snapshot's own zxid may have been compacted away here meanwhile.
        """
        end = Zxid(snapshot.last_term, snapshot.last_index)
        return last == end or (last.counter > end.counter and self.history.holds(last))

    # ---- compaction -------------------------------------------------------------------------

    def compact(self, index: int, data: bytes) -> None:
        """The state machine after applying `index` is `data`. Older than what we have: ignored.

        (It may be older: a leader's snapshot can arrive while the state is being written.)
        """
        assert index <= self.applied_index, (index, self.applied_index)
        if index <= self.history.snapshot_index:
            return
        epoch = self.history.term(index)
        assert epoch is not None, f"counter {index} is applied but not in the history"
        self.history.compact(Snapshot(index, epoch, data), self.limits.kept_entries)
        self._snapshot_changed = True
