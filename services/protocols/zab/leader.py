"""The leader's side of phases 1 to 3 (paper §IV; the steps l.*), and whether it still leads.

`propose` only appends. What goes out is built in `replicate`, called once by `ready()`: proposals
that came in since the last call share one message per follower, one write and one sync.
"""

from __future__ import annotations

from services.protocols.core import Busy, Entry, NotLeader
from services.protocols.zab.learner import Learner, Stage
from services.protocols.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    CEpoch,
    Commit,
    CommitNewLeader,
    NewEpoch,
    Ping,
    Pong,
    Propose,
)
from services.protocols.zab.state import Phase, State, ZabState


class Leader(ZabState):
    """From being elected to leading a quorum, and back to the election without one."""

    initial_counter = 0  # the end of the initial history I_e'
    round_of_pings = 0  # begun in this epoch
    ping_due = 0
    uncommitted_bytes = 0
    _epoch_chosen = False
    _acceptances: set[str]  # who acknowledged NEWLEADER
    _told_commit = 0  # the commit index that COMMITs have told
    _discover_until = 0  # the tick at which discovery has failed

    def lead(self) -> None:
        """The election names this node: a prospective leader. Phase 1 begins."""
        assert self.state is State.LOOKING, f"{self.node} is {self.state} and leads"
        self.state, self.phase, self.elected = State.LEADING, Phase.DISCOVERY, self.node
        for learner in self.learners.values():
            learner.reset(tick=self.ticks)
        self._epoch_chosen = False
        self._acceptances = set()
        self.round_of_pings = 0
        self.ping_due = self.ticks + self.heartbeat_ticks
        self._discover_until = self.ticks + self.patience()
        self.begin_reads()
        self.emit("become_candidate", term=self.accepted_epoch, last_index=self.history.last_index)
        self._choose_epoch()

    # ---- phase 1 ----------------------------------------------------------------------------

    def on_cepoch(self, message: CEpoch) -> None:
        """Steps l.1.1 and l.3.3: a follower joins, at the beginning of an epoch or later."""
        if self.state is not State.LEADING:
            return
        learner = self.learners[message.src]
        learner.heard_tick = self.ticks
        learner.stage = Stage.JOINED
        learner.accepted_epoch = message.accepted_epoch
        if self._epoch_chosen and message.accepted_epoch > self.accepted_epoch:
            # It has promised not to follow an epoch as old as this one, and would be left out for
            # as long as this leader stays. (The promise was given to somebody whom a quorum had
            # elected, so this is no way to depose a leader again and again.)
            self.look(f"{message.src} has promised epoch {message.accepted_epoch}")
        elif self._epoch_chosen:
            self._send_new_epoch(learner)
        else:
            self._choose_epoch()

    def _choose_epoch(self) -> None:
        """With CEPOCH of a quorum: an epoch later than all that they have promised, its own too."""
        joined = [peer for peer in self.learners.values() if peer.stage is Stage.JOINED]
        if 1 + len(joined) < self.quorum:
            return
        epoch = 1 + max([self.accepted_epoch, *(peer.accepted_epoch for peer in joined)])
        self.set_epochs(epoch, self.current_epoch)
        self._epoch_chosen = True
        for learner in joined:
            self._send_new_epoch(learner)
        self._count_promises()

    def _send_new_epoch(self, learner: Learner) -> None:
        learner.sent_tick = self.ticks
        self.send(NewEpoch(self.node, learner.node, self.accepted_epoch))

    def _learner(self, src: str, epoch: int) -> Learner | None:
        """Who sent this, if it is for this leader in its epoch."""
        if self.state is not State.LEADING or not self._epoch_chosen:
            return None
        if epoch != self.accepted_epoch:
            return None
        learner = self.learners[src]
        learner.heard_tick = self.ticks
        return learner

    def on_ack_epoch(self, message: AckEpoch) -> None:
        """Step l.1.2."""
        learner = self._learner(message.src, message.epoch)
        if learner is None or learner.stage is not Stage.JOINED:
            return
        learner.stage = Stage.MEASURED
        learner.measure(message.history)
        if learner.last.counter < learner.match_counter:
            self._lost_its_history(learner)
        if message.promised and not self._is_ahead(learner, message.current_epoch):
            learner.promised = True
        if self.phase is Phase.DISCOVERY:
            self._count_promises()
        else:
            self.synchronise(learner)

    def _lost_its_history(self, learner: Learner) -> None:
        """It once had acknowledged more in this epoch than it has: its storage was wiped.

        Zab does not allow for that (what it helped to commit may be lost with it), but a leader
        that went on believing it would never send it the rest. Less is believed from here on,
        never more, so an old ACK-E that looks like this does no harm.
        """
        matched, has = learner.match_counter, learner.last.counter
        self.emit("log_lost", peer=learner.node, matched=matched, has=has)
        learner.match_counter = 0

    def _is_ahead(self, learner: Learner, current_epoch: int) -> bool:
        """Is its history more recent than this leader's? Then what it has may be committed."""
        return self.rank(current_epoch, learner.last) > self.rank(*self.recency())

    def _count_promises(self) -> None:
        """A quorum promised, none of it with a more recent history: the initial one is our own."""
        learners = self.learners.values()
        if 1 + sum(peer.promised for peer in learners) >= self.quorum:
            self._begin_synchronisation()
            return
        refused = sum(peer.stage is Stage.MEASURED and not peer.promised for peer in learners)
        if 1 + len(learners) - refused < self.quorum:
            self.look("too many have a more recent history, or promised the epoch to another")

    # ---- phase 2 ----------------------------------------------------------------------------

    def _begin_synchronisation(self) -> None:
        """Step l.2.1. The leader is its own first follower, and accepts itself."""
        assert self.phase is Phase.DISCOVERY, self.phase
        self.phase = Phase.SYNCHRONISATION
        self.initial_counter = self.history.last_index
        self.set_epochs(self.accepted_epoch, self.accepted_epoch)
        for learner in self.learners.values():
            if learner.stage is Stage.MEASURED:
                self.synchronise(learner)
        self._count_acceptances()

    def on_ack_new_leader(self, message: AckNewLeader) -> None:
        """Steps l.2.2 and l.3.4: this follower has all of the initial history on its disk."""
        learner = self._learner(message.src, message.epoch)
        if learner is None or self.phase < Phase.SYNCHRONISATION:
            return
        assert self.initial_counter <= message.counter <= self.history.last_index, (
            f"{message} outside of {self.initial_counter} … {self.history.last_index}"
        )
        learner.match_counter = max(learner.match_counter, message.counter)
        self._acceptances.add(learner.node)
        established = self.phase is Phase.BROADCAST
        if learner.stage is Stage.MEASURED:
            learner.stage = Stage.SYNCED
            learner.synced()
            if established:
                self._send_commit_new_leader(learner)
        if established:
            self.advance_commit_index()
        else:
            self._count_acceptances()

    def _count_acceptances(self) -> None:
        """ACK-LD of a quorum: the initial history is committed, and the epoch established."""
        if 1 + len(self._acceptances) < self.quorum:
            return
        self.phase = Phase.BROADCAST
        self.emit("become_leader", term=self.accepted_epoch, last_index=self.initial_counter)
        self.commit_index = self._told_commit = self.initial_counter
        self.uncommitted_bytes = 0
        for learner in self.learners.values():
            if learner.stage is Stage.SYNCED:
                self._send_commit_new_leader(learner)
        self.advance_commit_index()

    def _send_commit_new_leader(self, learner: Learner) -> None:
        self.send(CommitNewLeader(self.node, learner.node, self.accepted_epoch, self.commit_index))

    # ---- phase 3 ----------------------------------------------------------------------------

    def propose(self, command: bytes) -> tuple[int, int]:
        """Append `command` with the next zxid; its (counter, epoch), to wait for.

        Raises NotLeader; Busy when the uncommitted commands have reached
        `limits.uncommitted_bytes`. Both definite: nothing was appended.
        """
        if not self.leads():
            raise NotLeader(self.leader())
        assert command, "an empty command is a no-op, and the protocol has none"
        size = self.uncommitted_bytes + len(command)
        if size > self.limits.uncommitted_bytes and self.uncommitted_bytes:
            raise Busy(f"{self.uncommitted_bytes} bytes wait to be committed")
        self.uncommitted_bytes = size
        entry = Entry(self.history.last_index + 1, self.accepted_epoch, command)
        self.append_entries([entry])
        return entry.index, entry.term

    def replicate(self) -> None:
        """Step l.3.1: propose to every follower what it has not been sent, in order, as far as its
        window allows."""
        for learner in self.learners.values():
            if learner.stage is Stage.SYNCED:
                self._send_proposals(learner)
        if self.quorum == 1:
            self.advance_commit_index()

    def _send_proposals(self, learner: Learner) -> None:
        history, limits = self.history, self.limits
        while learner.next_counter <= history.last_index:
            if len(learner.in_flight) >= limits.messages_in_flight:
                return
            prev = learner.next_counter - 1
            if prev < history.offset:
                # Compacted since: back to synchronisation, with a snapshot.
                learner.stage = Stage.MEASURED
                learner.measure([history.base._replace(counter=prev)])
                self.synchronise(learner)
                return
            entries = history.batch(prev, limits.entries_per_message, limits.bytes_per_message)
            zxid = history.zxid(prev)
            self.send(Propose(self.node, learner.node, self.accepted_epoch, zxid, entries))
            learner.next_counter = entries[-1].index + 1
            learner.in_flight.append(entries[-1].index)

    def tell_commits(self) -> None:
        """Step l.3.2: COMMIT, one for all that a quorum has acknowledged since the last."""
        if self.commit_index == self._told_commit:
            return
        self._told_commit = self.commit_index
        for learner in self.learners.values():
            if learner.stage is Stage.SYNCED:
                epoch = self.accepted_epoch
                self.send(Commit(self.node, learner.node, epoch, self.commit_index))

    def on_ack(self, message: Ack) -> None:
        learner = self._learner(message.src, message.epoch)
        if learner is None or self.phase is not Phase.BROADCAST:
            return
        self._acknowledged(learner, message.counter)
        gap_at = message.counter
        if message.gap and learner.stage is Stage.SYNCED and learner.rewound_to != gap_at:
            # Once for each gap: what was on its way behind it meets the same one.
            learner.rewound_to = gap_at
            learner.rewind(gap_at)

    def _acknowledged(self, learner: Learner, counter: int) -> None:
        assert counter <= self.history.last_index, (
            f"{learner.node} claims to have {counter}, beyond {self.history.last_index}"
        )
        if counter > learner.match_counter:
            learner.match_counter = counter
            learner.next_counter = max(learner.next_counter, counter + 1)
            self.advance_commit_index()
        while learner.in_flight and learner.in_flight[0] <= counter:
            learner.in_flight.popleft()

    def quorum_counter(self) -> int:
        """The last counter that a quorum, this leader included, has accepted in this epoch."""
        if self.quorum == 1:
            return self.history.last_index
        matches = sorted(learner.match_counter for learner in self.learners.values())
        return matches[1 - self.quorum]  # the leader is the one more that makes the quorum

    def advance_commit_index(self) -> None:
        """Step l.3.2. Acknowledgements are of a history up to a zxid, so commits are in order."""
        counter = self.quorum_counter()
        if counter > self.commit_index and self.may_commit():
            for entry in self.history.between(self.commit_index, counter):
                self.uncommitted_bytes -= len(entry.command)
            self.commit_index = counter

    def may_commit(self) -> bool:
        """Not before a quorum has acknowledged NEWLEADER: until then a node that did not, but has
        accepted a later leader than this one's history comes from, can still be elected, and
        what is committed here is lost there."""
        return self.phase is Phase.BROADCAST

    # ---- time -------------------------------------------------------------------------------

    def tick_leading(self) -> None:
        heard = sorted(learner.heard_tick for learner in self.learners.values())
        if self.quorum > 1 and self.ticks - heard[1 - self.quorum] >= self.election_ticks:
            # Whom no quorum hears commits nothing, and would only keep its clients waiting.
            self.look("no quorum heard for an election timeout")
        elif self.phase is Phase.DISCOVERY and self.ticks >= self._discover_until:
            self.look("no quorum promised an epoch")
        elif self.ticks >= self.ping_due:
            self.broadcast_pings()

    def broadcast_pings(self) -> None:
        """A new round: every answer proves that its sender followed this leader after now. And
        what was lost of the other conversations is said again."""
        self.round_of_pings += 1
        self.ping_due = self.ticks + self.heartbeat_ticks
        for learner in self.learners.values():
            if learner.stage is Stage.SYNCED and self.phase is Phase.BROADCAST:
                learner.pinged_counter = learner.next_counter - 1
                epoch, number = self.accepted_epoch, self.round_of_pings
                self.send(Ping(self.node, learner.node, epoch, number, self.commit_index))
            elif self.ticks - learner.sent_tick >= self.heartbeat_ticks:
                self._repeat(learner)

    def _repeat(self, learner: Learner) -> None:
        if learner.stage is Stage.JOINED and self._epoch_chosen:
            self._send_new_epoch(learner)
        elif learner.stage in (Stage.MEASURED, Stage.SYNCED) and self.phase > Phase.DISCOVERY:
            learner.repeated = True
            self.synchronise(learner)

    def on_pong(self, message: Pong) -> None:
        learner = self._learner(message.src, message.epoch)
        if learner is None or self.phase is not Phase.BROADCAST:
            return
        self._acknowledged(learner, message.counter)
        newest = message.round == self.round_of_pings
        if newest and learner.stage is Stage.SYNCED and message.counter < learner.pinged_counter:
            # What was sent before this ping should have come before it.
            learner.rewind(message.counter)
        if message.round > learner.round:
            learner.round = message.round
            self.confirm_round()

    def _leave_leadership(self) -> None:
        self.uncommitted_bytes = 0
        self._acceptances.clear()
        for learner in self.learners.values():
            learner.reset(tick=self.ticks)

    # ---- what the leader needs of the other parts -------------------------------------------

    def synchronise(self, learner: Learner) -> None:
        raise NotImplementedError
