"""The state that all roles share (figure 2, "State"), and the one way from any role to follower."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Unpack

from services.protocols import member
from services.protocols.core import Entry, NodeId, Snapshot
from services.protocols.log import Log
from services.protocols.raft.messages import AppendEntriesResponse, HardState
from services.protocols.raft.progress import Progress
from services.protocols.rounds import ReadRounds

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from services.protocols.member import Settings
    from services.protocols.raft.messages import Record


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(member.Limits):
    """`member.Limits`, and these."""

    messages_in_flight: int = 64  # AppendEntries with entries, per follower


class RaftState(ReadRounds):
    """Fields and the steps that belong to no role."""

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
        self.random = random

        # Persistent state (figure 2): survives as records.
        self.term = 0
        self.vote: NodeId | None = None
        self.log = Log()

        # Volatile state.
        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        self.commit_index = 0
        self.applied_index = 0  # the last index handed over in `Ready.committed` or `restore`
        self.election_deadline = 0  # the tick at which this node campaigns
        self.votes_refused_until = 0  # the tick until which a leader is taken to be alive
        self.votes: dict[NodeId, bool] = {}  # answers to the campaign that is running
        self.progress = {peer: Progress(peer) for peer in peers}
        self.reset_election_timer()

        # What the next ready() hands over.
        self._hard_state_changed = False
        self._snapshot_changed = False
        self._unpersisted: list[Entry] = []
        self._pending_ack: AppendEntriesResponse | None = None  # in _messages; may be widened

    # ---- restart ----------------------------------------------------------------------------

    def replay(self, records: Iterable[Record]) -> None:
        """Rebuild the persistent state. Raises ValueError if the records cannot be Raft's."""
        restarted = False
        for record in records:
            restarted = True
            if isinstance(record, Entry):
                self._replay_entry(record)
            elif isinstance(record, HardState):
                self.term, self.vote = record.term, record.vote
            elif isinstance(record, Snapshot):
                self.log.reset(record)
                self._restore = record
                self.commit_index = self.applied_index = record.last_index
            else:
                raise ValueError(f"not a record of Raft: {record!r}")
        if self.log.last_term > self.term:
            raise ValueError(f"log of term {self.log.last_term} but hard state of {self.term}")
        if restarted:
            # It may have acknowledged a heartbeat just before it stopped, and a lease may stand on
            # that acknowledgement: to vote at once could elect a second leader inside the lease.
            self.votes_refused_until = self.election_ticks

    def _replay_entry(self, entry: Entry) -> None:
        log = self.log
        if log.snapshot_index < entry.index <= log.last_index:
            log.truncate(entry.index - 1)
        if entry.index != log.last_index + 1:
            raise ValueError(f"entry {entry.index} does not follow entry {log.last_index}")
        log.append(entry)

    # ---- time -------------------------------------------------------------------------------

    def reset_election_timer(self) -> None:
        """A new random timeout from [election_ticks, 2 · election_ticks) (§5.2, §9.3)."""
        timeout = self.election_ticks + self.random.randrange(self.election_ticks)
        self.election_deadline = self.ticks + timeout

    def hears_leader(self) -> bool:
        """Is a leader alive as far as this node can tell (dissertation §4.2.3)?"""
        return self.role is Role.LEADER or self.ticks < self.votes_refused_until

    # ---- terms and roles --------------------------------------------------------------------

    def set_hard_state(self, term: int, vote: NodeId | None) -> None:
        assert term > self.term or (term == self.term and self.vote in (None, vote)), (
            f"{self.node}: term {self.term} → {term}, vote {self.vote} → {vote}"
        )
        self.term, self.vote = term, vote
        self._hard_state_changed = True

    def become_follower(self, term: int, leader: NodeId | None, reason: str) -> None:
        """Into `term` (§5.1: a higher one is adopted at once), following `leader` if known."""
        assert term >= self.term, (term, self.term)
        before, changed = self.role, term > self.term or self.role is not Role.FOLLOWER
        if term > self.term:
            self.set_hard_state(term, None)
        self.role = Role.FOLLOWER
        self.leader = leader
        self.votes = {}
        if before is Role.LEADER:
            self.emit("step_down", term=term, reason=reason)
            self._leave_leadership()
        if before is not Role.FOLLOWER:
            # Only then: a follower whose timer any higher term could reset would let a server that
            # cannot win keep everybody from campaigning.
            self.reset_election_timer()
        if changed:
            self.emit("become_follower", term=term, leader=leader, reason=reason)

    def newer_term(self, term: int, src: NodeId) -> bool:
        """For answers: True if the message is not of this term (§5.1) and is done with."""
        if term > self.term:
            self.become_follower(term, None, f"{src} has a higher term")
        return term != self.term

    # ---- what one role needs of another -----------------------------------------------------

    def become_leader(self) -> None:
        raise NotImplementedError

    def start_election(self, *, transfer: bool = False) -> None:
        raise NotImplementedError

    def _leave_leadership(self) -> None:
        raise NotImplementedError
