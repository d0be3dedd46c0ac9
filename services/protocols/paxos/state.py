"""The state that all of a node's parts share, and the one way from any role back to passive.

A node is replica, leader and acceptor at once (*Paxos Made Moderately Complex* §4, colocation).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Unpack

from services.protocols import member
from services.protocols.core import Entry, NodeId, Snapshot
from services.protocols.paxos.ballots import BOTTOM, Ballots
from services.protocols.paxos.messages import (
    Accepted,
    Decided,
    Learned,
    P2b,
    Promised,
    Record,
)
from services.protocols.paxos.slots import Slots
from services.protocols.rounds import ReadRounds

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from services.protocols.member import Settings


class Role(Enum):
    """Of the leader part, in the words that `/status` uses for every protocol.

    FOLLOWER: passive. PRE_CANDIDATE: asks who would promise. CANDIDATE: its scout is out.
    LEADER: active, its ballot is adopted.
    """

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(member.Limits):
    """`member.Limits`, and these."""

    window: int = 4_096  # slots above the last decided one that may have commanders


class Peer:
    """What an active leader knows of one acceptor."""

    __slots__ = ("heard_tick", "node", "round")

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.heard_tick = 0  # the leader's tick at which it was last heard in this ballot
        self.round = 0  # the newest heartbeat round it has answered


class PaxosState(ReadRounds):
    """Fields and the steps that belong to no part."""

    limits: Limits

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        random: Random,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(node, peers, **settings)
        self.ballots = Ballots((node, *peers))
        self.random = random

        # Persistent state: survives as records.
        self.ballot = BOTTOM  # the acceptor's ballot_num
        self.slots = Slots()

        # Volatile state.
        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        self.seen = BOTTOM  # the highest ballot that anybody told of; the next own one is above
        self.applied_index = 0  # the last slot handed over in `Ready.committed` or `restore`
        self.patience = self.election_ticks  # the AIMD timeout, see scout.py
        self.election_deadline = 0  # the tick at which this node campaigns
        self.refuses_until = 0  # the tick until which a leader is taken to be alive
        self.acceptors = {peer: Peer(peer) for peer in peers}
        self.reset_election_timer()

        # What the next ready() hands over.
        self._records: list[Record] = []
        self._promise_changed = False
        self._snapshot_changed = False
        self._decided_recorded = 0
        self._pending_p2b: P2b | None = None  # in _messages; may be widened

    # ---- restart ----------------------------------------------------------------------------

    def replay(self, records: Iterable[Record]) -> None:
        """Rebuild the persistent state. Raises ValueError if the records cannot be Paxos'."""
        restarted = False
        for record in records:
            restarted = True
            if isinstance(record, Promised):
                self.ballot = max(self.ballot, record.ballot)
            elif isinstance(record, Accepted):
                self._replay_accepted(record)
            elif isinstance(record, Learned):
                for entry in record.entries:
                    if entry.index != self.slots.decided + 1:
                        raise ValueError(f"decision {entry.index} after {self.slots.decided}")
                    self.slots.decide(entry)
            elif isinstance(record, Decided):
                self._replay_decided(record.slot)
            elif isinstance(record, Snapshot):
                if record.last_index < self.slots.decided:
                    raise ValueError(f"snapshot {record.last_index} after {self.slots.decided}")
                self.slots.reset(record)
                self._restore = record
                self.applied_index = record.last_index
            else:
                raise ValueError(f"not a record of Paxos: {record!r}")
        self.seen = self.ballot
        self._decided_recorded = self.slots.decided
        if restarted:
            # It may have answered a heartbeat just before it stopped, and a lease may stand on
            # that answer: to promise at once could make a second leader active inside the lease.
            self.refuses_until = self.election_ticks

    def _replay_accepted(self, record: Accepted) -> None:
        if record.ballot < self.ballot:
            raise ValueError(f"accepted in ballot {record.ballot} after promising {self.ballot}")
        self.ballot = record.ballot
        for entry in record.entries:
            if entry.index > self.slots.decided:
                self.slots.accept(record.ballot, entry)

    def _replay_decided(self, upto: int) -> None:
        while self.slots.decided < upto:
            slot = self.slots.decided + 1
            if slot not in self.slots.accepted:
                raise ValueError(f"slot {slot} is decided, and nothing was accepted there")
            self.slots.decide(self.slots.accepted[slot].entry)

    # ---- what goes on record ----------------------------------------------------------------

    def promise(self, ballot: int) -> None:
        """Adopt a ballot (invariant A1: strictly increasing)."""
        assert ballot > self.ballot, f"{self.node}: ballot {self.ballot} → {ballot}"
        self.ballot = ballot
        self.seen = max(self.seen, ballot)
        self._records.append(Promised(ballot))
        self._promise_changed = True

    def accept(self, entries: list[Entry]) -> None:
        """Accept ⟨ballot_num, s, c⟩ for each (A2: of the adopted ballot only)."""
        for entry in entries:
            self.slots.accept(self.ballot, entry)
        last = self._records[-1] if self._records else None
        if isinstance(last, Accepted) and last.ballot == self.ballot:
            last.entries.extend(entries)
        else:
            self._records.append(Accepted(self.ballot, list(entries)))

    def decide_learned(self, entries: list[Entry]) -> None:
        """Decisions of the next slots, from another replica.

        The slots before them may be known as decided from the p2a of a leader only, which is not
        recorded by itself: a restart would find a hole there, hence the mark.
        """
        self.record_decided()
        for entry in entries:
            self.slots.decide(entry)
        self._records.append(Learned(list(entries)))
        self._decided_recorded = self.slots.decided

    def record_decided(self) -> None:
        if self._decided_recorded < self.slots.decided:
            self._records.append(Decided(self.slots.decided))
            self._decided_recorded = self.slots.decided

    # ---- time and roles ---------------------------------------------------------------------

    def reset_election_timer(self) -> None:
        """A new random timeout from [patience, 2 · patience)."""
        self.election_deadline = self.ticks + self.patience + self.random.randrange(self.patience)

    def hears_leader(self) -> bool:
        """Is a leader alive as far as this node can tell?"""
        return self.role is Role.LEADER or self.ticks < self.refuses_until

    def become_follower(self, leader: NodeId | None, reason: str) -> None:
        """Passive again, following `leader` if known. The ballot is not changed here."""
        before = self.role
        self.role = Role.FOLLOWER
        self.leader = leader
        if before is Role.LEADER:
            self.emit("step_down", term=self.ballot, reason=reason)
            self._leave_leadership()
        if before is not Role.FOLLOWER:
            self._leave_campaign()
            self.reset_election_timer()
            self.emit("become_follower", term=self.ballot, leader=leader, reason=reason)

    # ---- what one part needs of another -----------------------------------------------------

    def become_leader(self) -> None:
        raise NotImplementedError

    def consider_adoption(self) -> None:
        raise NotImplementedError

    def calm(self) -> None:
        raise NotImplementedError

    def back_off(self) -> None:
        raise NotImplementedError

    def hear_decided(self, src: NodeId, ballot: int, upto: int) -> None:
        raise NotImplementedError

    def catch_up(self, source: NodeId, upto: int) -> None:
        raise NotImplementedError

    def _leave_leadership(self) -> None:
        raise NotImplementedError

    def _leave_campaign(self) -> None:
        raise NotImplementedError
