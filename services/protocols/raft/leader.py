"""The leader: proposals, replication, commitment (§5.3, §5.4.2), and whether it still leads.

`propose` only appends. What goes out is built in `replicate`, called once by `ready()`: proposals
that came in since the last call share one message per follower, one write and one sync.
"""

from __future__ import annotations

from services.protocols.core import Busy, Entry, NotLeader
from services.protocols.raft.messages import AppendEntries, AppendEntriesResponse
from services.protocols.raft.progress import Progress, Sending
from services.protocols.raft.state import RaftState, Role


class Leader(RaftState):
    """Entering leadership, replicating, committing, and leaving it again."""

    heartbeat_due = 0  # the tick of the next heartbeat round
    round = 0  # heartbeat rounds begun in this term
    no_op_index = 0  # the entry that opens this leader's term
    uncommitted_bytes = 0
    transfer_target: str | None = None

    def become_leader(self) -> None:
        assert self.role is Role.CANDIDATE, f"invalid transition {self.role} → leader"
        assert self.vote == self.node, (self.vote, self.node)
        self.role = Role.LEADER
        self.leader = self.node
        self.votes = {}
        for peer in self.progress.values():
            peer.reset(last_index=self.log.last_index, tick=self.ticks)
        self.round = 0
        self.heartbeat_due = self.ticks + self.heartbeat_ticks
        self.uncommitted_bytes = sum(
            len(entry.command) for entry in self.log.between(self.commit_index, self.log.last_index)
        )
        self.begin_reads()
        # §8: a no-op, because entries of earlier terms are only committed through one of this term
        # (§5.4.2), and until then the leader does not know what is committed.
        self.no_op_index = self.log.last_index + 1
        self._append(Entry(self.no_op_index, self.term, b""))
        self.emit("become_leader", term=self.term, last_index=self.log.last_index)

    def propose(self, command: bytes) -> tuple[int, int]:
        """Append `command`; the (index, term) to wait for.

        Raises NotLeader; Busy while leadership is being transferred, or when the uncommitted
        commands have reached `limits.uncommitted_bytes`. Both definite: nothing was appended.
        """
        if self.role is not Role.LEADER:
            raise NotLeader(self.leader)
        if self.transfer_target is not None:
            raise Busy(f"leadership is being transferred to {self.transfer_target}")
        assert command, "an empty command is a no-op, and that is the protocol's own"
        size = self.uncommitted_bytes + len(command)
        if size > self.limits.uncommitted_bytes and self.uncommitted_bytes:
            raise Busy(f"{self.uncommitted_bytes} bytes wait to be committed")
        self.uncommitted_bytes = size
        entry = Entry(self.log.last_index + 1, self.term, command)
        self._append(entry)
        return entry.index, entry.term

    def _append(self, entry: Entry) -> None:
        self.log.append(entry)
        self._unpersisted.append(entry)

    # ---- sending ----------------------------------------------------------------------------

    def replicate(self) -> None:
        """Send every follower what it has not been sent, as far as its window allows."""
        last_index = self.log.last_index
        for peer in self.progress.values():
            if peer.next_index <= last_index:
                self._send_entries(peer)
        if self.quorum == 1:
            self.advance_commit_index()

    def _send_entries(self, peer: Progress) -> None:
        log, limits = self.log, self.limits
        while peer.next_index <= log.last_index and peer.sending is not Sending.SNAPSHOT:
            probing = peer.sending is Sending.PROBE
            if peer.probe_sent if probing else len(peer.in_flight) >= limits.messages_in_flight:
                return
            prev = peer.next_index - 1
            prev_term = log.term(prev)
            if prev_term is None:
                self._begin_snapshot(peer)
                return
            entries = log.batch(prev, limits.entries_per_message, limits.bytes_per_message)
            self._messages.append(
                AppendEntries(
                    self.node,
                    peer.node,
                    self.term,
                    prev,
                    prev_term,
                    entries,
                    self.commit_index,
                    self.round,
                )
            )
            if probing:
                peer.probe_sent = True
            else:
                # Optimistic: as if it had arrived. If not, the next message is rejected, and its
                # hint takes next_index back.
                peer.next_index = prev + len(entries) + 1
                peer.in_flight.append(peer.next_index - 1)

    def broadcast_heartbeat(self) -> None:
        """A new round: every answer to it proves that this leader was recognised after now."""
        self.round += 1
        self.note_round_sent(self.round)
        self.heartbeat_due = self.ticks + self.heartbeat_ticks
        for peer in self.progress.values():
            prev = peer.next_index - 1
            prev_term = self.log.term(prev)
            if peer.sending is not Sending.SNAPSHOT and prev_term is None:
                # Compacted since. Waiting for answers to what is in flight could be for ever: if
                # they are lost, no heartbeat could find out any more.
                self._begin_snapshot(peer)
            if peer.sending is Sending.SNAPSHOT or prev_term is None:
                prev = prev_term = 0  # index 0 matches always; there is nothing to learn from it
                self._repeat_chunk(peer)
            self.send(
                AppendEntries(
                    self.node,
                    peer.node,
                    self.term,
                    prev,
                    prev_term,
                    [],
                    self.commit_index,
                    self.round,
                )
            )

    # ---- answers ----------------------------------------------------------------------------

    def on_append_entries_response(self, message: AppendEntriesResponse) -> None:
        if message.term != self.term and self.newer_term(message.term, message.src):
            return
        if self.role is not Role.LEADER:
            return
        peer = self.progress[message.src]
        peer.heard_tick = self.ticks
        if message.success:
            self._matched(peer, message.match_index, message.round)
        else:
            self._rejected(peer, message)
        if message.round > peer.round:
            peer.round = message.round
            self.confirm_round()

    def _matched(self, peer: Progress, match_index: int, in_round: int) -> None:
        assert match_index <= self.log.last_index, (
            f"{peer.node} claims to match {match_index}, beyond {self.log.last_index}"
        )
        if match_index > peer.match_index:
            peer.match_index = match_index
            peer.match_round = in_round
            if peer.next_index <= match_index:
                peer.next_index = match_index + 1
        in_flight = peer.in_flight
        while in_flight and in_flight[0] <= match_index:
            in_flight.popleft()
        if peer.sending is Sending.PROBE or (
            peer.snapshot is not None
            # It has arrived (and the log may have been compacted further meanwhile: then the next
            # snapshot follows), or is not needed any more.
            and (
                peer.match_index >= peer.snapshot.last_index
                or self.log.term(peer.match_index) is not None
            )
        ):
            peer.replicate()
        if peer.match_index > self.commit_index:
            self.advance_commit_index()
        if self.transfer_target == peer.node:
            self._continue_transfer()

    def _rejected(self, peer: Progress, message: AppendEntriesResponse) -> None:
        """The logs differ at `prev_log_index`: go back, by the hint a term at a time (§5.3)."""
        prev = message.prev_log_index
        if peer.sending is Sending.SNAPSHOT:
            return
        if prev <= peer.match_index:
            if message.conflict_term == 0 and message.round > peer.match_round:
                self._lost_its_log(peer, message)
            return  # otherwise late: the logs have met since
        if peer.sending is Sending.PROBE and prev != peer.next_index - 1:
            return  # late: not the probe that is out
        next_index = message.conflict_index
        if message.conflict_term:
            # With entries of that term here, the logs may agree on its first ones; without, the
            # follower's whole term is not in this log.
            last = self.log.last_index_of_term(message.conflict_term)
            if last is not None:
                next_index = last + 1
        peer.probe(max(peer.match_index + 1, min(next_index, prev)))

    def _lost_its_log(self, peer: Progress, message: AppendEntriesResponse) -> None:
        """It once had acknowledged more than it now has: its storage was wiped.

        Raft does not allow for that (what it helped to commit may be lost with it), but a leader
        that went on believing `match_index` would refuse its plea for ever. Less is believed from
        here on, never more, so a reordered answer that looks like this does no harm.
        """
        self.emit("log_lost", peer=peer.node, matched=peer.match_index, has=message.conflict_index)
        peer.match_index = 0
        peer.match_round = message.round
        peer.probe(max(1, message.conflict_index))

    # ---- commitment -------------------------------------------------------------------------

    def majority_match_index(self) -> int:
        """The highest index that a majority, this leader included, has."""
        if self.quorum == 1:
            return self.log.last_index
        matches = sorted([peer.match_index for peer in self.progress.values()])
        return matches[1 - self.quorum]  # the leader is the one more that makes the quorum

    def advance_commit_index(self) -> None:
        """Figure 2, last rule for leaders; and §5.4.2: only of the current term by counting."""
        index = self.majority_match_index()
        if index > self.commit_index and self.may_commit(index):
            for entry in self.log.between(self.commit_index, index):
                self.uncommitted_bytes -= len(entry.command)
            self.commit_index = index

    def may_commit(self, index: int) -> bool:
        """An entry of an older term on a majority can still be overwritten (figure 8)."""
        return self.log.term(index) == self.term

    # ---- time -------------------------------------------------------------------------------

    def tick_leader(self) -> None:
        heard = sorted([peer.heard_tick for peer in self.progress.values()])
        if self.quorum > 1 and self.ticks - heard[1 - self.quorum] >= self.election_ticks:
            # A leader that nobody hears would keep its clients waiting, and serve no one.
            self.become_follower(self.term, None, "no majority heard for an election timeout")
            return
        self.watch_lease()
        self._watch_transfer()
        if self.ticks >= self.heartbeat_due:
            self.broadcast_heartbeat()

    def _leave_leadership(self) -> None:
        self.uncommitted_bytes = 0
        self.refuse_reads()
        self._end_transfer()

    # ---- what the leader needs of the other parts -------------------------------------------

    def _begin_snapshot(self, peer: Progress) -> None:
        raise NotImplementedError

    def _repeat_chunk(self, peer: Progress) -> None:
        raise NotImplementedError

    def _continue_transfer(self) -> None:
        raise NotImplementedError

    def _watch_transfer(self) -> None:
        raise NotImplementedError

    def _end_transfer(self) -> None:
        raise NotImplementedError
