"""`Paxos`: the parts put together behind the face of a protocol core."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from services.protocols.core import NOTHING, Core, Entry, NodeId, Ready
from services.protocols.paxos.acceptor import Acceptor
from services.protocols.paxos.messages import (
    Accepted,
    Decisions,
    Learn,
    Learned,
    P0a,
    P0b,
    P1a,
    P1b,
    P2a,
    P2b,
    Promised,
    Record,
    SnapshotChunk,
)
from services.protocols.paxos.reads import Reads
from services.protocols.paxos.replica import Replica
from services.protocols.paxos.scout import Scout
from services.protocols.paxos.state import Limits, Role

if TYPE_CHECKING:
    from random import Random


class Paxos(Scout, Acceptor, Replica, Reads):
    """One member of a cluster with fixed membership. See the package's docstring.

    Args:
        node: this node's id.
        peers: the ids of all other members.
        random: chance, for timeouts only.
        records: what was persisted, in that order, since (and with) the last Snapshot record.
        election_ticks: the least timeout; the actual one is random, and grows with failure.
        heartbeat_ticks: the leader's heartbeat period; at most half of `election_ticks`.
        lease_ticks: how long an answered heartbeat lets the leader answer lease reads; less than
            `election_ticks`. The default, three quarters, leaves the rest for clock drift.
        limits: what is bounded, and by how much.

    Raises:
        ValueError: the configuration or the records cannot be.
    """

    def __init__(
        self,
        node: NodeId,
        peers: tuple[NodeId, ...],
        *,
        random: Random,
        records: Iterable[Record] = (),
        election_ticks: int = 20,
        heartbeat_ticks: int = 3,
        lease_ticks: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        if lease_ticks is None:
            lease_ticks = election_ticks * 3 // 4
        super().__init__(
            node,
            tuple(peers),
            random=random,
            election_ticks=election_ticks,
            heartbeat_ticks=heartbeat_ticks,
            lease_ticks=lease_ticks,
            limits=limits or Limits(),
        )
        self._teaching = {}
        self.commanders, self.pending = {}, deque()
        self._leave_campaign()
        self.begin_reads()
        self.replay(records)
        self._handlers: dict[type, Callable[[Any], None]] = {
            P0a: self.on_p0a,
            P0b: self.on_p0b,
            P1a: self.on_p1a,
            P1b: self.on_p1b,
            P2a: self.on_p2a,
            P2b: self.on_p2b,
            Learn: self.on_learn,
            Decisions: self.on_decisions,
            SnapshotChunk: self.on_snapshot_chunk,
        }

    # ---- input ------------------------------------------------------------------------------

    def step(self, message: Any) -> None:
        """Take in one message. Of unknown kind, from or for somebody else: ignored."""
        handler = self._handlers.get(type(message))
        if handler is None or message.src not in self.acceptors or message.dst != self.node:
            return
        handler(message)

    def tick(self) -> None:
        """One unit of time has passed."""
        self.ticks += 1
        if self.role is Role.LEADER:
            self.tick_leader()
        else:
            self.tick_scout()

    # ---- output -----------------------------------------------------------------------------

    def ready(self) -> Ready:
        """What is to be done now; see `services.protocols.core` for the order."""
        early = 0
        if self.role is Role.LEADER:
            early = self._propose_early()
            self.ask_for_reads()
        if not (
            self._messages
            or self._records
            or self._promise_changed
            or self._snapshot_changed
            or self._restore
            or self.slots.decided != self.applied_index
            or self._reads
            or self._events
        ):
            return NOTHING  # after most ticks
        ready = Ready(
            self._take_records(),
            self._messages,
            early,
            self._restore,
            self._take_committed(),
            self._reads,
            self._events,
        )
        self._messages, self._pending_p2b, self._restore = [], None, None
        self._reads, self._events = [], []
        return ready

    def _propose_early(self) -> int:
        """`spawn_commanders`, its p2a before all others; how many may go before the write.

        A p2a asks others to accept and says nothing of this node's own acceptor, which is counted
        when its record is written: until then the core gets no answers to read. If this node
        crashes in between, others hold a pvalue that it does not, as if only its own p2a had been
        lost. What must not be is another value in the same slot and ballot (A4), so the ballot has
        to be on record, lest it is taken again: nothing is early while it is not.
        """
        others, self._messages = self._messages, []
        self.spawn_commanders()
        early = 0 if self._promise_changed or self._snapshot_changed else len(self._messages)
        self._messages += others
        return early

    def _take_records(self) -> list[Record]:
        """As they came about, so that a torn write keeps a prefix that could have been."""
        if self._snapshot_changed:
            records = self._all_records()
            self._decided_recorded = self.slots.decided
        else:
            if self._records:
                self.record_decided()
            records = self._records
        self._records = []
        self._snapshot_changed = self._promise_changed = False
        return records

    def _all_records(self) -> list[Record]:
        """With a Snapshot all is written anew."""
        slots = self.slots
        assert slots.snapshot is not None
        records: list[Record] = [slots.snapshot]
        after = slots.between(slots.snapshot.last_index, slots.decided)
        if after:
            records.append(Learned(after))
        by_ballot: dict[int, list[Entry]] = {}
        for pvalue in slots.pvalues():
            by_ballot.setdefault(pvalue.ballot, []).append(pvalue.entry)
        records.extend(Accepted(ballot, by_ballot[ballot]) for ballot in sorted(by_ballot))
        records.append(Promised(self.ballot))
        return records

    def _take_committed(self) -> list[Entry]:
        if self.slots.decided == self.applied_index:
            return []
        committed = self.slots.between(self.applied_index, self.slots.decided)
        self.applied_index = self.slots.decided
        return committed

    # ---- inspection -------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """For `/status`: `role` is follower, candidate (also while it only asks), leader.

        `term` is the adopted ballot as a number, `ballot` the same for people. `peers` is filled
        on the leader.
        """
        leading = self.role is Role.LEADER
        asking = self.role is Role.PRE_CANDIDATE
        last_index = max(self.slots.last_index, self.next_slot - 1 if leading else 0)
        return {
            "node": self.node,
            "role": "candidate" if asking else self.role.value,
            "pre_vote": asking,
            "term": self.ballot,
            "ballot": self.ballots.text(self.ballot),
            "leader": self.leader,
            "commit_index": self.slots.decided,
            "applied_index": self.applied_index,
            "last_index": last_index,
            "snapshot_index": self.slots.snapshot_index,
            "undecided": len(self.commanders) if leading else len(self.slots.accepted),
            "uncommitted_bytes": self.uncommitted_bytes,
            "patience_ticks": self.patience,
            "lease": leading and self.has_lease(),
            "peers": {
                peer.node: {"round": peer.round, "heard_ticks_ago": self.ticks - peer.heard_tick}
                for peer in (self.acceptors.values() if leading else ())
            },
        }

    def check_invariants(self) -> None:
        """For tests: walks the slots. Raises AssertionError, with the numbers."""
        slots, who = self.slots, f"{self.node} ({self.role.value}, ballot {self.ballot})"
        slots.check_invariants()
        for pvalue in slots.accepted.values():
            assert pvalue.ballot <= self.ballot, f"{who}: accepted {pvalue}"
        assert slots.snapshot_index <= self.applied_index <= slots.decided, (
            f"{who}: snapshot {slots.snapshot_index}, applied {self.applied_index}, decided "
            f"{slots.decided}"
        )
        assert self.ballot <= self.seen, f"{who}: has seen {self.seen}"
        assert self.election_ticks <= self.patience <= 2 * self.election_ticks, self.patience
        if self.role in (Role.CANDIDATE, Role.LEADER):
            assert self.ballots.belongs_to(self.ballot, self.node), f"{who}: not its ballot"
        if self.role is not Role.LEADER:
            assert self.leader != self.node, f"{who}: follows itself"
            assert not self._waiting_reads, f"{who}: {self._waiting_reads} wait"
            assert not self._asked_reads, f"{who}: {self._asked_reads} wait"
            return
        assert self.leader == self.node, f"{who}: follows {self.leader}"
        undecided = [*(c.entry for c in self.commanders.values()), *self.pending]
        assert [entry.index for entry in undecided] == [
            *range(slots.decided + 1, self.next_slot)
        ], f"{who}: commanders {list(self.commanders)} and {len(self.pending)} pending"
        waiting = sum(len(entry.command) for entry in undecided)
        assert self.uncommitted_bytes == waiting, f"{who}: {self.uncommitted_bytes} ≠ {waiting}"
        for peer in self.acceptors.values():
            assert peer.round <= self.round, f"{who}: {peer.node} answered {peer.round}"
        for slot, commander in self.commanders.items():
            held = slots.accepted[slot]
            assert (held.ballot, held.entry) == (self.ballot, commander.entry), f"{who}: {held}"


if TYPE_CHECKING:

    def _is_a_core(paxos: Paxos) -> Core:
        return paxos
