"""The primary in normal operation (§4.1): it orders, counts, commits, and watches its quorum.

`propose` only appends. What goes out is built in `prepare`, called once by `ready()`: requests that
came in since the last call share one PREPARE per backup, one write and one sync (§6.2, batching).
"""

from __future__ import annotations

from services.protocols.core import Busy, Entry, NotLeader
from services.protocols.viewstamped.messages import Commit, Prepare, PrepareOk, StartView
from services.protocols.viewstamped.state import Peer, ReplicaState, Status


class Primary(ReplicaState):
    """What the replica does that leads the view."""

    start_number = 0  # the last op-number of the log that this view began with
    prepared_number = 0  # the last one sent in a PREPARE
    heartbeat_due = 0  # the tick of the next COMMIT
    round = 0  # heartbeat rounds begun in this view
    uncommitted_bytes = 0

    def lead(self) -> None:
        """The log is complete: "sets op-number to that of the topmost entry in the new log" (§4.2).

        No no-op is needed as in Raft: what a replica acknowledges in this view is the whole log
        of this view, entries of earlier ones included, and v' puts it before all others.
        """
        assert self.primary(self.view) == self.node, f"{self.node} is not primary of {self.view}"
        assert self.status_ is Status.NORMAL, f"invalid transition {self.status_} → primary"
        assert not self.resigned, f"{self.node} resigned from view {self.view}"
        self.leading, self.leader = True, self.node
        for peer in self.others:
            self.others[peer] = Peer(heard_tick=self.ticks)
        self.start_number = self.prepared_number = self.log.last_index
        self.uncommitted_bytes = sum(
            len(entry.command)
            for entry in self.log.between(self.commit_number, self.log.last_index)
        )
        self.round = 0
        self.heartbeat_due = self.ticks + self.heartbeat_ticks
        self.begin_reads()
        self.emit("become_leader", term=self.view, last_index=self.log.last_index)
        for peer in self.peers:
            self.tell_view(peer)

    def tell_view(self, peer: str) -> None:
        log = self.log
        self.send(
            StartView(self.node, peer, self.view, log.last_index, log.last_term, self.commit_number)
        )

    def propose(self, command: bytes) -> tuple[int, int]:
        """Append `command`; the (op-number, view) to wait for.

        Raises NotLeader; Busy when the uncommitted commands have reached
        `limits.uncommitted_bytes`. Both definite: nothing was appended.
        """
        if not self.leading:
            raise NotLeader(self.leader)
        assert command, "an empty command is a no-op, and that is the protocol's own"
        size = self.uncommitted_bytes + len(command)
        if size > self.limits.uncommitted_bytes and self.uncommitted_bytes:
            raise Busy(f"{self.uncommitted_bytes} bytes wait to be committed")
        self.uncommitted_bytes = size
        entry = Entry(self.log.last_index + 1, self.view, command)
        self.append([entry])
        return entry.index, entry.term

    def prepare(self) -> None:
        """PREPARE what is new, to all. A backup that misses one asks for it (transfer.py)."""
        log, limits = self.log, self.limits
        while self.prepared_number < log.last_index:
            after = self.prepared_number
            entries = log.batch(after, limits.entries_per_message, limits.bytes_per_message)
            for peer in self.peers:
                self.send(
                    Prepare(
                        self.node,
                        peer,
                        self.view,
                        after,
                        entries,
                        self.commit_number,
                        self.round,
                    )
                )
            self.prepared_number = after + len(entries)
        if self.quorum == 1:
            self.advance_commit_number()

    def broadcast_commit(self) -> None:
        """A new round: every answer to it proves that this primary was followed after now."""
        self.round += 1
        self.note_round_sent(self.round)
        self.heartbeat_due = self.ticks + self.heartbeat_ticks
        for peer in self.peers:
            self.send(
                Commit(
                    self.node, peer, self.view, self.log.last_index, self.commit_number, self.round
                )
            )

    def on_prepare_ok(self, message: PrepareOk) -> None:
        if message.view != self.view or not self.leading:
            return
        peer = self.others[message.src]
        peer.heard_tick = self.ticks
        assert message.op_number <= self.log.last_index, (
            f"{message.src} has prepared {message.op_number}, beyond {self.log.last_index}"
        )
        if message.op_number > peer.prepared:
            peer.prepared = message.op_number
            self.advance_commit_number()
        if message.round > peer.round:
            peer.round = message.round
            self.confirm_round()

    def quorum_number(self) -> int:
        """The highest op-number that f backups have prepared: with this replica, a quorum."""
        if self.quorum == 1:
            return self.log.last_index
        prepared = sorted(peer.prepared for peer in self.others.values())
        return prepared[1 - self.quorum]

    def advance_commit_number(self) -> None:
        """§4.1: "The primary waits for f PREPAREOK messages from different backups; at this point
        it considers the operation (and all earlier ones) to be committed."
        """
        number = self.quorum_number()
        if number > self.commit_number:
            for entry in self.log.between(self.commit_number, number):
                self.uncommitted_bytes -= len(entry.command)
            self.commit_number = number

    def tick_primary(self) -> None:
        heard = sorted(peer.heard_tick for peer in self.others.values())
        if self.quorum > 1 and self.ticks - heard[1 - self.quorum] >= self.election_ticks:
            # A primary that hears nobody would keep its clients waiting, and if its own COMMITs
            # still arrive, keep the others from ever replacing it.
            self.resign("no quorum heard for an election timeout")
            return
        self.watch_lease()
        if self.ticks >= self.heartbeat_due:
            self.broadcast_commit()

    def leave_leadership(self) -> None:
        self.uncommitted_bytes = 0
        self.refuse_reads()
