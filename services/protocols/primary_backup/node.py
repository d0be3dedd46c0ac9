"""One node of a primary with backups. The theory is in the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from services.protocols.core import (
    Busy,
    Entry,
    Event,
    NodeId,
    NotLeader,
    ReadGrant,
    ReadRefusal,
    Ready,
)
from services.protocols.primary_backup.acknowledgement import backups_required
from services.protocols.primary_backup.history import History
from services.protocols.primary_backup.log import chain
from services.protocols.primary_backup.messages import (
    Acknowledge,
    Heartbeat,
    InstallSnapshot,
    Replicate,
)
from services.protocols.primary_backup.promotion import PROMOTIONS, may_promote
from services.protocols.primary_backup.shipping import Shipping

if TYPE_CHECKING:
    from random import Random

READS_WAITING_MAX = 10_000
# The processes of a cluster do not come up in one moment: a backup that is first must not take the
# place of a primary that is still starting.
START_GRACE_ELECTIONS = 4


class PrimaryBackup:
    """A `services.protocols.core.Core` that ships the primary's log to its backups.

    Args:
        node, peers: this node and the others. The same ids on all nodes, in any order.
        random: part of every core's interface; this protocol draws no lots.
        records: what was persisted, since the last Snapshot record, in that order.
        acknowledgement: when a write is acknowledged, one of ACKNOWLEDGEMENTS.
        promotion: what a backup does when the primary falls silent, one of PROMOTIONS.
        election_ticks: ticks of silence after which a node counts as gone.
        heartbeat_ticks: ticks between heartbeats.
        uncommitted_max: entries not yet acknowledged, beyond which `propose` raises Busy.
        catch_up_entries: kept in memory below the snapshot, so that a backup that lags a little at
            the moment of a compaction needs no snapshot.
    """

    # Another primary's entry at an index says nothing definite of ours: a third node that has ours
    # may be promoted later, and brings it back.
    commits_are_final = False

    def __init__(
        self,
        node: NodeId,
        peers: Sequence[NodeId],
        *,
        random: Random,
        records: Sequence[Any] = (),
        acknowledgement: str = "asynchronous",
        promotion: str = "none",
        election_ticks: int = 20,
        heartbeat_ticks: int = 3,
        uncommitted_max: int = 10_000,
        catch_up_entries: int = 1000,
    ) -> None:
        if promotion not in PROMOTIONS:
            raise ValueError(f"promotion {promotion!r} is none of {PROMOTIONS}")
        if not 0 < heartbeat_ticks < election_ticks:
            raise ValueError(f"heartbeats every {heartbeat_ticks} of {election_ticks} ticks")
        assert node not in peers, (node, peers)
        self.node = node
        self.peers = tuple(sorted(peers))
        self.acknowledgement = acknowledgement
        self.promotion = promotion
        self.election_ticks = election_ticks
        self.heartbeat_ticks = heartbeat_ticks
        self.uncommitted_max = uncommitted_max
        self.catch_up_entries = catch_up_entries
        self._members = tuple(sorted((node, *peers)))
        self._backups_required = backups_required(acknowledgement, len(self.peers))

        self._messages: list[Any] = []
        self._reads: list[ReadGrant | ReadRefusal] = []
        self._events: list[Event] = []
        self.history = History(records, self._events)

        self._shipping: Shipping | None = None  # while this node is primary
        self._reads_waiting: list[int] = []
        self._ticks_to_heartbeat = 0
        self._unheard_ticks = dict.fromkeys(self.peers, 0)
        self._primary_missed = False
        self._said: dict[NodeId, Heartbeat] = {}
        self._start()

    @property
    def epoch(self) -> int:
        """The highest one known; the `term` of the entries that it brings."""
        return self.history.epoch

    @property
    def primary(self) -> NodeId:
        """Whose epoch it is."""
        return self._members[(self.epoch - 1) % len(self._members)]

    @property
    def is_primary(self) -> bool:
        """Does this node *believe* that it is the primary? Another one may, too."""
        return self.primary == self.node

    # The interface of a core.

    def propose(self, command: bytes) -> tuple[int, int]:
        """Append `command`; returns its (index, epoch). Raises NotLeader or Busy."""
        if not self.is_primary:
            raise NotLeader(self._leader_hint())
        if self.history.log.last_index - self.history.commit_index >= self.uncommitted_max:
            raise Busy(f"{self.uncommitted_max} writes wait for their acknowledgement")
        entry = Entry(self.history.log.last_index + 1, self.epoch, command)
        self.history.append(entry)
        return entry.index, entry.term

    def read(self, read_id: int, *, lease: bool = False) -> None:
        """Granted by whoever believes it is the primary, with no round trip: maybe from the past.

        A primary that has just started or was just promoted does not know which of its entries were
        acknowledged before: its first reads wait until all of them are.
        """
        if not self.is_primary:
            raise NotLeader(self._leader_hint())
        if len(self._reads_waiting) >= READS_WAITING_MAX:
            raise Busy(f"{READS_WAITING_MAX} reads wait")
        self._reads_waiting.append(read_id)

    def step(self, message: Any) -> None:
        """Take in a message. What is unknown, outdated or not for this node is ignored."""
        if message.dst != self.node or message.src not in self._unheard_ticks:
            return
        self._unheard_ticks[message.src] = 0
        if message.epoch > self.epoch:
            self._take_epoch(message.epoch)
        if message.src == self.primary:
            self._primary_missed = False
        if message.epoch < self.epoch:
            return  # its sender learns of the newer epoch from our next heartbeat
        match message:
            case Replicate() if message.src == self.primary:
                self._on_replicate(message)
            case InstallSnapshot() if message.src == self.primary:
                self._on_install_snapshot(message)
            case Acknowledge() if self.is_primary:
                self._on_acknowledge(message)
            case Heartbeat():
                self._said[message.src] = message

    def tick(self) -> None:
        """One unit of time has passed: heartbeats are due, or overdue."""
        for peer in self.peers:
            self._unheard_ticks[peer] += 1
        self._ticks_to_heartbeat -= 1
        if self._ticks_to_heartbeat <= 0:
            self._send_heartbeats()
        if not self.is_primary:
            self._watch_primary()

    def ready(self) -> Ready:
        """What is to be done now (see `services.protocols.core`)."""
        history = self.history
        if self._shipping is not None:
            # Our own entries count at once: `persist` comes before `committed`.
            history.advance_commit_index(self._shipping.acknowledged_index(self._backups_required))
            self._shipping.ship()
            self._grant_reads()
        persist, history.persist = history.persist, []
        restore, history.restore = history.restore, None
        ready = Ready(
            persist=persist,
            messages=self._messages,
            restore=restore,
            committed=history.deliver(),
            reads=self._reads,
            events=self._events.copy(),
        )
        self._messages, self._reads = [], []
        self._events.clear()
        return ready

    def compact(self, index: int, data: bytes) -> None:
        """The state machine after `index` is `data`: the log up to there may go.

        Ignored when a newer snapshot is here, or when the entries that `data` was made of have
        been discarded since.
        """
        self.history.compact(index, data, catch_up_entries=self.catch_up_entries)

    def status(self) -> dict[str, Any]:
        """Role, term (the epoch), leader, commit_index, last_index and what is known of peers."""
        peers: dict[NodeId, dict[str, Any]] = {}
        for peer in self.peers:
            peers[peer] = {"heard": not self._silent(peer)}
            if self._shipping is not None:
                peers[peer]["match_index"] = self._shipping.progress[peer].match_index
        return {
            "role": "primary" if self.is_primary else "backup",
            "term": self.epoch,
            "leader": self._leader_hint(),
            "commit_index": self.history.commit_index,
            "last_index": self.history.log.last_index,
            "acknowledgement": self.acknowledgement,
            "promotion": self.promotion,
            "peers": peers,
        }

    def check_invariants(self) -> None:
        """Raise AssertionError, with the numbers, if this node's state is impossible."""
        self.history.check_invariants()
        assert (self._shipping is not None) == self.is_primary, (self.node, self.epoch)
        if self._shipping is not None:
            assert self._shipping.epoch == self.epoch, (self._shipping.epoch, self.epoch)
            self._shipping.check_invariants(self._backups_required)

    # Roles. Who is primary follows from the epoch alone, so these are the only two transitions.

    def _start(self) -> None:
        if self.is_primary:
            self._become_primary(self.epoch)
            return
        self._unheard_ticks[self.primary] = -START_GRACE_ELECTIONS * self.election_ticks
        self._events.append(Event("become_backup", {"epoch": self.epoch, "primary": self.primary}))

    def _take_epoch(self, epoch: int) -> None:
        """A higher epoch is the better claim, and nobody is asked who else agrees."""
        if self._members[(epoch - 1) % len(self._members)] == self.node:
            # An epoch of our own, and we do not know it: it was persisted, so the disk is lost.
            self._lose_log(epoch)
        else:
            self._become_backup(epoch)

    def _become_primary(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.history.set_epoch(epoch)
        assert self.is_primary, (self.node, epoch)
        self._shipping = Shipping(
            self.node,
            self.peers,
            epoch=epoch,
            history=self.history,
            silent=self._silent,
            send=self._send,
            resend_ticks=self.election_ticks,
        )
        last_index = self.history.log.last_index
        self._events.append(Event("become_primary", {"epoch": epoch, "last_index": last_index}))
        self._send_heartbeats()

    def _become_backup(self, epoch: int) -> None:
        self.history.set_epoch(epoch)
        assert not self.is_primary, (self.node, epoch)
        self._shipping = None
        self._reads += [ReadRefusal(read_id, self.primary) for read_id in self._reads_waiting]
        self._reads_waiting = []
        self._unheard_ticks[self.primary] = 0
        self._primary_missed = False
        self._events.append(Event("become_backup", {"epoch": epoch, "primary": self.primary}))

    def _lose_log(self, epoch: int) -> None:
        """This primary has lost its disk, and goes on with what it has, in a new epoch."""
        last_index = self.history.log.last_index
        self._events.append(Event("lose_log", {"epoch": epoch, "last_index": last_index}))
        self._become_primary(self._own_epoch_after(epoch))

    def _own_epoch_after(self, epoch: int) -> int:
        rank = self._members.index(self.node)
        return epoch + 1 + (rank - epoch) % len(self._members)

    def _watch_primary(self) -> None:
        """The failure detector, and the decision that no single node should take alone."""
        if not self._silent(self.primary):
            return
        if not self._primary_missed:
            self._primary_missed = True
            # What was said before may be out of date: whoever has heard the primary again since
            # may have acknowledged more to it.
            self._said.clear()
            missed = {"primary": self.primary, "epoch": self.epoch}
            self._events.append(Event("miss_heartbeats", missed))
        own = self._heartbeat(self.node)
        if may_promote(self.promotion, own, self.peers, self._silent, self._said):
            self._become_primary(self._own_epoch_after(self.epoch))

    # The primary.

    def _grant_reads(self) -> None:
        assert self._shipping is not None, self.epoch
        index = self.history.commit_index
        if self._reads_waiting and index >= self._shipping.first_index - 1:
            self._reads += [ReadGrant(read_id, index) for read_id in self._reads_waiting]
            self._reads_waiting = []

    def _send_heartbeats(self) -> None:
        self._ticks_to_heartbeat = self.heartbeat_ticks
        if self._shipping is not None:
            self._shipping.heartbeat(self.heartbeat_ticks)
            return
        for peer in self.peers:
            self._send(self._heartbeat(peer))

    def _heartbeat(self, peer: NodeId) -> Heartbeat:
        log, lost = self.history.log, self._silent(self.primary)
        return Heartbeat(self.node, peer, self.epoch, log.last_term, log.last_index, lost)

    def _on_acknowledge(self, message: Acknowledge) -> None:
        assert self._shipping is not None, self.epoch
        last_index = self.history.log.last_index
        if message.last_term == self.epoch and message.last_index > last_index:
            # Entries of this epoch that we do not have, though only we can have made them.
            self._lose_log(self.epoch)
        else:
            self._shipping.on_acknowledge(message)

    # A backup.

    def _on_replicate(self, message: Replicate) -> None:
        """Find the last common entry, discard what is beyond it, take the primary's entries."""
        history, log = self.history, self.history.log
        prev_index, end = message.prev_index, message.prev_index + len(message.entries)
        if prev_index > log.last_index:
            self._acknowledge(message, matched=False, index=log.last_index)
            return
        if end < log.base_index:
            history.discard_unknown_to_primary(message.last_index)
            self._acknowledge(message, matched=False, index=history.log.base_index)
            return
        first = max(prev_index, log.base_index)  # from here on both logs are known
        digests = chain(message.prev_digest, message.entries)
        if log.digest(first) != digests[first - prev_index]:
            hint = log.before_term_of(first)
            if first == log.base_index:  # what was compacted is not the primary's history
                history.discard_all()
                hint = 0
            self._acknowledge(message, matched=False, index=hint)
            return
        common = log.last_common(first, prev_index, digests)
        if common < min(end, log.last_index):
            history.discard_after(common)
        elif end == message.last_index:
            history.discard_unknown_to_primary(end)
        if history.log.last_index < common:  # the common part lies before the snapshot
            self._acknowledge(message, matched=False, index=history.log.last_index)
            return
        for entry in message.entries[common - prev_index :]:
            history.append(entry)
        history.advance_commit_index(min(message.commit_index, end))
        self._acknowledge(message, matched=True, index=end)

    def _on_install_snapshot(self, message: InstallSnapshot) -> None:
        history, index = self.history, message.snapshot.last_index
        if index < history.log.base_index:
            # A late one, or the histories parted long ago: let the primary probe where we are.
            self._acknowledge(message, matched=False, index=history.log.base_index)
            return
        if index > history.log.last_index or history.log.digest(index) != message.digest:
            history.install(message.snapshot, message.digest)
        history.advance_commit_index(index)
        self._acknowledge(message, matched=True, index=index)

    def _acknowledge(
        self, message: Replicate | InstallSnapshot, *, matched: bool, index: int
    ) -> None:
        log = self.history.log
        self._send(
            Acknowledge(
                src=self.node,
                dst=message.src,
                epoch=self.epoch,
                matched=matched,
                index=index,
                prev_index=message.prev_index,
                last_index=log.last_index,
                last_term=log.last_term,
            )
        )

    def _leader_hint(self) -> NodeId | None:
        if self.is_primary or not self._silent(self.primary):
            return self.primary
        return None

    def _silent(self, peer: NodeId) -> bool:
        """Nothing was heard from it for so long that it counts as gone."""
        return self._unheard_ticks[peer] >= self.election_ticks

    def _send(self, message: Any) -> None:
        self._messages.append(message)
