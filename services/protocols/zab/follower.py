"""The follower's side of phases 1 to 3 (paper §IV; the steps f.*)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.protocols.core import Snapshot
from services.protocols.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    AckSync,
    CEpoch,
    Commit,
    CommitNewLeader,
    Diff,
    NewEpoch,
    NewLeader,
    Notification,
    Ping,
    Pong,
    Propose,
    Snap,
    Trunc,
    Zxid,
)
from services.protocols.zab.state import Phase, State, ZabState

if TYPE_CHECKING:
    from services.protocols.core import NodeId


class Follower(ZabState):
    """What a node does for the leader it elected."""

    _patient_until = 0  # the tick at which it gives its leader up
    _cepoch_due = 0
    _promise: tuple[int, NodeId] = (0, "")  # the epoch last promised, and to whom: not on disk
    _pending_ack: Ack | None = None  # in _messages; may be widened
    # The snapshot being received. Its bytes are the sender's own (another node may write the same
    # state differently), so the pieces of two senders are never mixed.
    _receiving: tuple[int, Zxid] | None = None  # epoch, and where the snapshot ends
    _received = bytearray()

    def follow(self, leader: NodeId) -> None:
        """The election names another node: phase 1 begins."""
        assert self.state is State.LOOKING, f"{self.node} is {self.state} and follows {leader}"
        assert leader != self.node, leader
        self.state, self.phase, self.elected = State.FOLLOWING, Phase.DISCOVERY, leader
        self.emit("become_follower", term=self.accepted_epoch, leader=leader, reason="elected")
        self._hear()
        self._send_cepoch()

    def _hear(self) -> None:
        self._patient_until = self.ticks + self.patience()

    def _send_cepoch(self) -> None:
        """Step f.1.1; again and again, for the leader may not know yet that it is elected."""
        assert self.elected is not None
        self._cepoch_due = self.ticks + self.heartbeat_ticks
        self.send(CEpoch(self.node, self.elected, self.accepted_epoch))

    def tick_following(self) -> None:
        if self.ticks >= self._patient_until:
            self.look(f"{self.elected} is silent")
        elif self.phase is Phase.DISCOVERY and self.ticks >= self._cepoch_due:
            self._send_cepoch()

    def on_leader_notification(self, message: Notification) -> None:
        """Its leader looks for a leader itself: no need to wait until it is missed.

        Only if it began a later round: what it said before it was elected may arrive late.
        """
        if message.state == State.LOOKING.value and message.round > self.round:
            self.look(f"{message.src} gave up")

    # ---- phase 1 ----------------------------------------------------------------------------

    def on_new_epoch(self, message: NewEpoch) -> None:
        """Step f.1.2: promise it, if it is later than all promised before.

        The second time the same leader asks, the answer may have been lost: the promise stands.
        But if it is only known that the epoch was promised to *somebody* (before a crash, or to
        another candidate), this is no promise, or two leaders could share an epoch. The leader may
        still bring this node up to date once a quorum has promised it the epoch.
        """
        if not self._follows(message.src) or message.epoch < self.accepted_epoch:
            return
        self._hear()
        if message.epoch > self.accepted_epoch:
            self.set_epochs(message.epoch, self.current_epoch)
            self._promise = message.epoch, message.src
            self.emit("accept_epoch", leader=message.src, term=message.epoch)
        promised = self._promise == (message.epoch, message.src)
        if self.phase is Phase.DISCOVERY:
            self.phase = Phase.SYNCHRONISATION
        ends = self.history.ends()
        self.send(
            AckEpoch(self.node, message.src, message.epoch, promised, self.current_epoch, ends)
        )

    def _follows(self, src: NodeId) -> bool:
        return self.state is State.FOLLOWING and self.elected == src

    def _hears(self, src: NodeId, epoch: int) -> bool:
        """Is this from the leader that it follows, in the epoch that it promised it?"""
        if not self._follows(src) or epoch != self.accepted_epoch:
            return False
        self._hear()
        return True

    # ---- phase 2 ----------------------------------------------------------------------------
    #
    # Until NEWLEADER is acknowledged, any prefix of the leader's history may be on disk here while
    # currentEpoch is still the old one. That is safe: of what this node had accepted before only
    # what the leader's history lacks is gone, and that is committed nowhere and never can be.

    def on_trunc(self, message: Trunc) -> None:
        """The new leader never saw what follows `last`.

        Only before NEWLEADER: afterwards this is a late one, and what follows was accepted since,
        and counted.
        """
        if not self._hears(message.src, message.epoch):
            return
        last = message.last
        history = self.history
        if (
            self.current_epoch < message.epoch
            and last.counter < history.last_index
            and history.holds(last)
        ):
            assert last.counter >= self.commit_index, (message, self.status())
            self.emit(
                "truncate_log",
                first=last.counter + 1,
                last=history.last_index,
                leader=message.src,
            )
            self.truncate_history(last.counter)
        self._tell_progress(message.src, 0)

    def on_diff(self, message: Diff) -> None:
        if self._hears(message.src, message.epoch):
            self._accept(message)
            self._tell_progress(message.src, 0)

    def _accept(self, message: Diff | Propose) -> bool:
        """Append what is new of this, in its order; False if it does not join to the history."""
        entries, history = message.entries, self.history
        first = message.prev.counter + 1
        if (
            not entries
            or entries[0].index != first
            or entries[-1].index - first + 1 != len(entries)
        ):
            return True  # not something a leader builds: the history must not pay for it
        if message.prev.counter > history.last_index:
            return False
        if message.prev.counter >= self.commit_index and not history.holds(message.prev):
            return False
        new = entries[history.last_index + 1 - first :]
        if new and (len(new) == len(entries) or self._continues(message)):
            self.append_entries(new)
        return True

    def _continues(self, message: Diff | Propose) -> bool:
        """Is the last transaction here the one that this message has in its place?"""
        last = self.history.last
        return message.entries[last.counter - message.prev.counter - 1].term == last.epoch

    def _tell_progress(self, leader: NodeId, offset: int) -> None:
        self.send(AckSync(self.node, leader, self.accepted_epoch, self.history.last, offset))

    def on_snap(self, message: Snap) -> None:
        """Chunks may come twice, late or out of order; the answer names the next byte wanted."""
        if not self._hears(message.src, message.epoch):
            return
        if message.last.counter <= self.commit_index or self.history.holds(message.last):
            self._tell_progress(message.src, 0)  # we have it all
            return
        key = message.epoch, message.last
        if key != self._receiving:
            if self._receiving is not None and self._receiving > key:
                return  # of an older leader, or an older snapshot: we are past it
            self._receiving, self._received = key, bytearray()
        received = self._received
        if message.offset == len(received):
            received += message.data
            if message.done:
                snapshot = Snapshot(message.last.counter, message.last.epoch, bytes(received))
                self._install(snapshot, message.src)
                self._tell_progress(message.src, 0)
                return
        self._tell_progress(message.src, len(received))

    def _install(self, snapshot: Snapshot, src: NodeId) -> None:
        assert snapshot.last_index > self.commit_index, (snapshot.last_index, self.commit_index)
        self.history.reset(snapshot)
        self._snapshot_changed = True
        self._restore = snapshot
        self.commit_index = self.applied_index = snapshot.last_index
        self._receiving, self._received = None, bytearray()
        self.emit(
            "install_snapshot",
            leader=src,
            last_index=snapshot.last_index,
            last_term=snapshot.last_term,
            bytes=len(snapshot.data),
        )

    def on_new_leader(self, message: NewLeader) -> None:
        """Step f.2.1. The records that say so stand behind those of the history: a crash between
        the two leaves the old epoch with a part of the new history (see above). The other way
        round it would leave a node that says it has all of that epoch, and does not."""
        if not self._hears(message.src, message.epoch):
            return
        if not self.history.holds(message.last):
            self._tell_progress(message.src, 0)
            return
        if self.current_epoch < message.epoch:
            self.set_epochs(self.accepted_epoch, message.epoch)
            self.emit("accept_leader", leader=message.src, term=message.epoch)
        counter = self.history.last_index
        self.send(AckNewLeader(self.node, message.src, message.epoch, counter))

    def on_commit_new_leader(self, message: CommitNewLeader) -> None:
        """Step f.2.2: deliver the initial history; phase 3 begins."""
        if self._accepted(message.src, message.epoch):
            self._commit(message.counter)

    def _accepted(self, src: NodeId, epoch: int) -> bool:
        """Is this of phase 3 with the leader whose NEWLEADER it has acknowledged?"""
        if not self._hears(src, epoch) or self.current_epoch != epoch:
            return False
        if self.phase is not Phase.BROADCAST:
            # The leader speaks so only after a quorum's ACK-LD: COMMIT-LD itself may be lost.
            self.phase = Phase.BROADCAST
            self.emit("follow", leader=src, term=epoch)
        return True

    # ---- phase 3 ----------------------------------------------------------------------------

    def on_propose(self, message: Propose) -> None:
        """Step f.3.2: accept proposals in the order of their zxids, which is that of the leader."""
        if self._accepted(message.src, message.epoch):
            self._acknowledge(message.src, gap=not self._accept(message))

    def _acknowledge(self, leader: NodeId, *, gap: bool) -> None:
        counter, pending = self.history.last_index, self._pending_ack
        if pending is not None and (pending.dst, pending.epoch) == (leader, self.accepted_epoch):
            # Not handed over yet: one answer serves all that came in since the last ready().
            pending.counter, pending.gap = counter, pending.gap or gap
            return
        self._pending_ack = Ack(self.node, leader, self.accepted_epoch, counter, gap)
        self.send(self._pending_ack)

    def on_commit(self, message: Commit) -> None:
        """Step f.3.3."""
        if self._accepted(message.src, message.epoch):
            self._commit(message.counter)

    def _commit(self, counter: int) -> None:
        """Deliver up to `counter`: all before it as well, so in the order of the zxids; and no
        further than the history goes, for what a proposal lost is missing."""
        self.commit_index = max(self.commit_index, min(counter, self.history.last_index))

    def on_ping(self, message: Ping) -> None:
        if self._accepted(message.src, message.epoch):
            self._commit(message.counter)
            counter = self.history.last_index
            self.send(Pong(self.node, message.src, message.epoch, message.round, counter))
