"""Phase 2: the active leader's commanders, its heartbeat, and whether it is still heard.

`propose` only gives the command a slot. Commanders are spawned in `ready()`, for all that came in
since the last call, so many slots share one p2a per acceptor and one fsync. Slots are decided in
any order inside the window; a lost p2a holds up the slots behind it only in being applied.
"""

from __future__ import annotations

from collections import deque

from services.protocols.core import Busy, Entry, NodeId, NotLeader
from services.protocols.log import batch
from services.protocols.paxos.messages import P2a, P2b, PValue
from services.protocols.paxos.state import PaxosState, Role


class Commander:
    """One slot of the active leader's ballot: who has accepted. (`waitfor` inverted.)"""

    __slots__ = ("accepted", "entry", "sent_tick")

    def __init__(self, entry: Entry, node: NodeId, tick: int) -> None:
        self.entry = entry
        self.accepted = {node}  # a set: the network may repeat an answer
        self.sent_tick = tick


class Commanders(PaxosState):
    """The leader, once it is active."""

    heartbeat_due = 0  # the tick of the next heartbeat round
    round = 0  # heartbeat rounds begun in this ballot
    next_slot = 1
    takeover_slot = 0  # the last slot that may have been decided in an earlier ballot
    uncommitted_bytes = 0
    commanders: dict[int, Commander]
    pending: deque[Entry]  # have their slots, but no commanders yet

    def become_leader(self) -> None:
        """The ballot is adopted: propose again what may be decided, no-ops in the gaps.

        A gap is a slot below one that is taken, with no pvalue among the promises: nothing is
        decided there, and nothing after it can be applied until something is.
        """
        assert self.role is Role.CANDIDATE, f"invalid transition {self.role} → leader"
        assert self.ballots.belongs_to(self.ballot, self.node), self.ballot
        highest = self.pmax()
        decided = self.slots.decided
        self.role = Role.LEADER
        self.leader = self.node
        for peer in self.acceptors.values():
            peer.heard_tick, peer.round = self.ticks, 0
        self.takeover_slot = max(highest, default=decided)
        taken = range(decided + 1, self.takeover_slot + 1)
        self.pending = deque(
            highest[slot].entry if slot in highest else Entry(slot, self.ballot, b"")
            for slot in taken
        )
        self.commanders = {}
        self.next_slot = self.takeover_slot + 1
        self.uncommitted_bytes = sum(len(entry.command) for entry in self.pending)
        self.round = 0
        self.begin_reads()
        no_ops = sum(slot not in highest for slot in taken)
        self.emit(
            "become_leader",
            term=self.ballot,
            last_index=self.takeover_slot,
            adopted=len(taken) - no_ops,
            no_ops=no_ops,
        )
        self._leave_campaign()
        self.broadcast_heartbeat()  # that it leads; proposals may be long in coming

    def propose(self, command: bytes) -> tuple[int, int]:
        """Give `command` the next slot; the (slot, ballot) to wait for.

        Raises NotLeader; Busy when the undecided commands have reached
        `limits.uncommitted_bytes`. Both definite: nothing was proposed.
        """
        if self.role is not Role.LEADER:
            raise NotLeader(self.leader)
        assert command, "an empty command is a no-op, and that is the protocol's own"
        size = self.uncommitted_bytes + len(command)
        if size > self.limits.uncommitted_bytes and self.uncommitted_bytes:
            raise Busy(f"{self.uncommitted_bytes} bytes wait to be decided")
        self.uncommitted_bytes = size
        entry = Entry(self.next_slot, self.ballot, command)
        self.next_slot += 1
        self.pending.append(entry)
        return entry.index, entry.term

    # ---- sending ----------------------------------------------------------------------------

    def spawn_commanders(self) -> None:
        """For what is pending, as far as the window allows: accept it here, and ask the others."""
        limits, pending = self.limits, self.pending
        while pending and pending[0].index <= self.slots.decided + limits.window:
            room = self.slots.decided + limits.window - pending[0].index + 1
            most = min(room, limits.entries_per_message)
            waiting = [pending[i] for i in range(min(most + 1, len(pending)))]
            entries = batch(waiting, most, limits.bytes_per_message)
            for entry in entries:
                pending.popleft()
                assert entry.index not in self.commanders, f"C1: two commanders for {entry}"
                self.commanders[entry.index] = Commander(entry, self.node, self.ticks)
            self.accept(entries)
            for peer in self.peers:
                self._send_p2a(peer, entries)
            if self.quorum == 1:
                self.advance()

    def _send_p2a(self, peer: NodeId, entries: list[Entry]) -> None:
        self._messages.append(
            P2a(self.node, peer, self.ballot, entries, self.slots.decided, self.round)
        )

    def broadcast_heartbeat(self) -> None:
        """A new round: every answer to it proves that this ballot was still adopted after now."""
        self.round += 1
        self.note_round_sent(self.round)
        self.heartbeat_due = self.ticks + self.heartbeat_ticks
        for peer in self.peers:
            self._send_p2a(peer, self._unanswered(peer))

    def _unanswered(self, peer: NodeId) -> list[Entry]:
        """The first slots whose p2a, or whose answer from `peer`, seems to be lost."""
        overdue = self.ticks - 2 * self.heartbeat_ticks
        limits = self.limits
        entries: list[Entry] = []
        for commander in self.commanders.values():
            if len(entries) == limits.entries_per_message or commander.sent_tick > overdue:
                break  # later slots were sent later
            if peer not in commander.accepted:
                entries.append(commander.entry)
        return batch(entries, limits.entries_per_message, limits.bytes_per_message)

    # ---- answers ----------------------------------------------------------------------------

    def on_p2b(self, message: P2b) -> None:
        if message.ballot > self.ballot:
            self.preempted(message.ballot, message.src)
            return
        if self.role is not Role.LEADER or message.ballot != self.ballot:
            return
        peer = self.acceptors[message.src]
        peer.heard_tick = self.ticks
        for first, last in message.slots:
            for slot in range(max(first, self.slots.decided + 1), min(last, self.next_slot) + 1):
                commander = self.commanders.get(slot)
                if commander is not None:
                    commander.accepted.add(message.src)
        self.advance()
        if message.round > peer.round:
            peer.round = message.round
            self.confirm_round()

    def is_chosen(self, commander: Commander) -> bool:
        """Has a majority of acceptors accepted its pvalue?"""
        return len(commander.accepted) >= self.quorum

    def advance(self) -> None:
        """The next slots, as far as they are chosen, are decisions."""
        slots, commanders = self.slots, self.commanders
        while (commander := commanders.get(slots.decided + 1)) and self.is_chosen(commander):
            del commanders[commander.entry.index]
            self.uncommitted_bytes -= len(commander.entry.command)
            slots.decide(commander.entry)
            self.calm()

    # ---- time -------------------------------------------------------------------------------

    def tick_leader(self) -> None:
        heard = sorted(peer.heard_tick for peer in self.acceptors.values())
        if self.quorum > 1 and self.ticks - heard[1 - self.quorum] >= self.election_ticks:
            # A leader that nobody hears would keep its clients waiting, and serve no one.
            self.become_follower(None, "no majority heard for an election timeout")
            return
        self.watch_lease()
        if self.ticks >= self.heartbeat_due:
            self.broadcast_heartbeat()

    def _leave_leadership(self) -> None:
        self.commanders, self.pending = {}, deque()
        self.uncommitted_bytes = 0
        self.refuse_reads()

    # ---- what it needs of the other parts ---------------------------------------------------

    def pmax(self) -> dict[int, PValue]:
        raise NotImplementedError

    def preempted(self, ballot: int, src: NodeId) -> None:
        raise NotImplementedError
