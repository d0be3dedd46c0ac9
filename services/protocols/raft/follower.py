"""The receiving side of replication: AppendEntries (figure 2) and InstallSnapshot (figure 13)."""

from __future__ import annotations

from services.protocols.core import Snapshot
from services.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
)
from services.protocols.raft.state import RaftState, Role


class Follower(RaftState):
    """What a node does when somebody claims to be the leader."""

    # The snapshot being received. Its bytes are the sender's own (another node may write the same
    # state differently), so the pieces of two senders, or of two terms, are never mixed.
    _receiving: tuple[int, int, int] | None = None  # term, last included index, its term
    _received = bytearray()

    def _recognise(self, term: int, src: str) -> bool:
        """Is this from the leader of the current term? Then it is heard, and followed."""
        if term < self.term:
            return False
        if term > self.term or self.role is not Role.FOLLOWER:
            assert self.role is not Role.LEADER or term > self.term, (
                f"two leaders in term {term}: {self.node} and {src}"
            )
            self.become_follower(term, src, f"{src} leads")
        elif self.leader is None:
            self.emit("follow", leader=src, term=term)
        self.leader = src
        self.reset_election_timer()
        self.votes_refused_until = self.ticks + self.election_ticks
        return True

    # ---- AppendEntries ----------------------------------------------------------------------

    def on_append_entries(self, message: AppendEntries) -> None:
        prev = message.prev_log_index
        entries = message.entries
        if not self._recognise(message.term, message.src):
            self._reject(message, 0, 0)
            return
        if entries and (
            entries[0].index != prev + 1 or entries[-1].index != prev + len(entries)
        ):  # not something a leader builds: the log must not pay for it
            return
        log = self.log
        commit = self.commit_index
        # Up to the commit index the leader's log is ours (leader completeness), so that part needs
        # no check, which is as well: it may have been compacted away here.
        if prev >= commit and log.term(prev) != message.prev_log_term:
            if prev > log.last_index:
                self._reject(message, log.last_index + 1, 0)
            else:
                self._reject(message, log.first_index_of_term_at(prev), log.term(prev) or 0)
            return
        if entries:
            if prev == log.last_index:
                log.extend(entries)
                self._unpersisted.extend(entries)
            else:
                self._merge(message)
        match = prev + len(entries)
        if message.leader_commit > commit:
            # min: beyond `match` our log may still hold what another leader left behind.
            self.commit_index = max(commit, min(message.leader_commit, match))
        self._acknowledge(message, max(match, commit))

    def _merge(self, message: AppendEntries) -> None:
        """Rules 3 and 4: skip what is here already; delete from the first conflict on; append.

        A message that arrives late or twice must not shorten the log: what follows its entries may
        have been acknowledged since, and counted.
        """
        log = self.log
        for position, entry in enumerate(message.entries):
            if entry.index <= self.commit_index:
                continue
            if entry.index <= log.last_index:
                if log.term(entry.index) == entry.term:
                    continue
                self.emit(
                    "truncate_log", first=entry.index, last=log.last_index, leader=message.src
                )
                log.truncate(entry.index - 1)
            rest = message.entries[position:]
            log.extend(rest)
            self._unpersisted.extend(rest)
            return

    def _acknowledge(self, message: AppendEntries, match_index: int) -> None:
        pending = self._pending_ack
        if pending is not None and pending.dst == message.src and pending.term == self.term:
            # Not handed over yet: one answer serves all that came in since the last ready().
            pending.match_index = max(pending.match_index, match_index)
            pending.prev_log_index = message.prev_log_index
            pending.round = max(pending.round, message.round)
            return
        self._pending_ack = AppendEntriesResponse(
            self.node,
            message.src,
            self.term,
            True,
            match_index,
            message.prev_log_index,
            0,
            0,
            message.round,
        )
        self._messages.append(self._pending_ack)

    def _reject(self, message: AppendEntries, conflict_index: int, conflict_term: int) -> None:
        """No: an old term (no hint), or the logs differ at `prev_log_index` (§5.3)."""
        self.send(
            AppendEntriesResponse(
                self.node,
                message.src,
                self.term,
                False,
                0,
                message.prev_log_index,
                conflict_index,
                conflict_term,
                message.round,
            )
        )

    # ---- InstallSnapshot --------------------------------------------------------------------

    def on_install_snapshot(self, message: InstallSnapshot) -> None:
        """Figure 13. Chunks may come twice, late or out of order; the answer names the next one."""
        index, term = message.last_included_index, message.last_included_term
        if not self._recognise(message.term, message.src):
            self._answer_chunk(message, offset=0, done=False)
            return
        if index <= self.commit_index:
            self._answer_chunk(message, offset=0, done=True)  # we have it all
            return
        if self.log.term(index) == term:
            # Rule 6: the entry is here, so the log up to it is the leader's, and committed.
            self.commit_index = index
            self._answer_chunk(message, offset=0, done=True)
            return
        key = (message.term, index, term)
        if key != self._receiving:
            if self._receiving is not None and self._receiving > key:
                return  # of an older leader, or an older snapshot: we are past it
            self._receiving, self._received = key, bytearray()
        received = self._received
        if message.offset == len(received):
            received += message.data
            if message.done:
                self._install(Snapshot(index, term, bytes(received)), message.src)
                self._answer_chunk(message, offset=message.offset, done=True)
                return
        self._answer_chunk(message, offset=len(received), done=False)

    def _install(self, snapshot: Snapshot, src: str) -> None:
        """Rules 5, 7 and 8: it replaces the log and the state machine."""
        assert snapshot.last_index > self.commit_index, (snapshot.last_index, self.commit_index)
        self.log.reset(snapshot)
        self._unpersisted.clear()
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

    def _answer_chunk(self, message: InstallSnapshot, *, offset: int, done: bool) -> None:
        index = message.last_included_index
        self.send(InstallSnapshotResponse(self.node, message.src, self.term, index, offset, done))
