"""`Chain`: the parts put together behind the face of a protocol core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from services.protocols import raft
from services.protocols.chain.master import Master, status_of, unwrap
from services.protocols.chain.messages import (
    Acknowledge,
    Configuration,
    Confirm,
    Confirmed,
    Forward,
    MasterEntry,
    MasterRecord,
    MasterSnapshot,
    Record,
    Report,
    StateTransferred,
    TransferState,
)
from services.protocols.chain.state import Limits
from services.protocols.core import NOTHING, Busy, Core, Entry, NodeId, NotLeader, Ready, Snapshot
from services.protocols.raft.messages import HardState

if TYPE_CHECKING:
    from random import Random


class Chain(Master):
    """One server. See the package's docstring.

    Args:
        node: this node's id.
        peers: the ids of all other servers, in the chain or not.
        random: chance, for the master's election timeouts only.
        records: what was persisted, in that order, since (and with) the last Snapshot record.
        election_ticks: the master's least election timeout; and for how long a server has to be
            silent to be taken for failed.
        heartbeat_ticks: the period of heartbeats; at most half of `election_ticks`.
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
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            node,
            tuple(peers),
            election_ticks=election_ticks,
            heartbeat_ticks=heartbeat_ticks,
            limits=limits or Limits(),
        )
        self._begin_reads()
        self.forget_findings()
        self.master = raft.Raft(
            node,
            tuple(peers),
            random=random,
            records=unwrap(self._replay(records)),
            election_ticks=election_ticks,
            heartbeat_ticks=heartbeat_ticks,
            limits=raft.Limits(kept_entries=self.limits.configurations),
        )
        self._heartbeat_due = heartbeat_ticks
        self._handlers: dict[type, Callable[[Any], None]] = {
            Forward: self.on_forward,
            Acknowledge: self.on_acknowledge,
            TransferState: self.on_transfer_state,
            StateTransferred: self.on_state_transferred,
            Confirm: self.on_confirm,
            Confirmed: self.on_confirmed,
            Report: self.on_report,
            **dict.fromkeys(raft.MESSAGES, self.master.step),
        }
        if self.config.chain:
            self.take_place()
            self.begin_epoch()

    def _replay(self, records: Iterable[Record]) -> list[MasterRecord]:
        """Rebuild the persistent state; returns the master's part of the records."""
        masters: list[MasterRecord] = []
        log = self.log
        for record in records:
            if isinstance(record, Entry):
                if log.snapshot_index < record.index <= log.last_index:
                    log.truncate(record.index - 1)
                if record.index != log.last_index + 1:
                    raise ValueError(f"entry {record.index} does not follow {log.last_index}")
                log.append(record)
            elif isinstance(record, Snapshot):
                log.reset(record)
                self._restore = record
                self.commit_index = self.applied_index = record.last_index
            elif isinstance(record, Configuration):
                self.config = record
            elif isinstance(record, HardState | MasterEntry | MasterSnapshot):
                masters.append(record)
            else:
                raise ValueError(f"not a record of a chain: {record!r}")
        return masters

    # ---- input ------------------------------------------------------------------------------

    def propose(self, command: bytes) -> tuple[int, int]:
        """Take in an update at the head; the (index, epoch) to wait for. Raises NotLeader, Busy."""
        if not self.is_head or self.cut_off():
            raise NotLeader(None if self.is_head else self.leader())
        assert command, "an empty command is a no-op, and there is none here"
        size = self.uncommitted_bytes + len(command)
        if size > self.limits.uncommitted_bytes and self.uncommitted_bytes:
            raise Busy(f"{self.uncommitted_bytes} bytes are in process")
        self.uncommitted_bytes = size
        entry = Entry(self.log.last_index + 1, self.epoch, command)
        self.log.append(entry)
        self._unpersisted.append(entry)
        return entry.index, entry.term

    def step(self, message: Any) -> None:
        """Take in one message. Of unknown kind, from or for somebody else: ignored."""
        handler = self._handlers.get(type(message))
        if handler is not None and message.src in self.peers and message.dst == self.node:
            handler(message)

    def tick(self) -> None:
        """One unit of time has passed."""
        self.ticks += 1
        self.master.tick()
        if self.ticks >= self._heartbeat_due:
            self._heartbeat_due = self.ticks + self.heartbeat_ticks
            self.heartbeat()
            self.repeat_chunks()
            self.watch_reads()
        self.supervise()

    # ---- output -----------------------------------------------------------------------------

    def ready(self) -> Ready:
        """What is to be done now; see `services.protocols.core` for the order.

        Nothing goes early, for a server counts as having an update only once it is on its disk.
        """
        masters = self.pump_master()
        if self.is_head and self.is_tail:
            self.advance(self.verified)
        self.forward()
        self.answer()
        self.ask_for_reads()
        if not (
            masters
            or self._messages
            or self._unpersisted
            or self._config_changed
            or self._snapshot_changed
            or self._restore
            or self.commit_index != self.applied_index
            or self._reads
            or self._events
        ):
            return NOTHING  # after most ticks
        ready = Ready(
            persist=self._take_records(masters),
            messages=self._messages,
            restore=self._restore,
            committed=self.log.between(self.applied_index, self.commit_index),
            reads=self._reads,
            events=self._events,
        )
        self.applied_index = self.commit_index
        self._messages, self._restore, self._reads, self._events = [], None, [], []
        return ready

    def _take_records(self, masters: list[MasterRecord]) -> list[Record]:
        """The epoch before the entries that came in it. With a Snapshot all is written anew."""
        records: list[Record] = []
        if self._snapshot_changed:
            snapshot = self.log.snapshot
            assert snapshot is not None
            records = [snapshot, *self.master_records(), self.config]
            records += self.log.between(snapshot.last_index, self.log.last_index)
        else:
            records += masters
            if self._config_changed:
                records.append(self.config)
            records += self._unpersisted
        self._unpersisted = []
        self._snapshot_changed = self._config_changed = False
        return records

    # ---- inspection -------------------------------------------------------------------------

    @property
    def role(self) -> str:
        """head (even if alone), middle, tail, or outside; cut_off: a head whom nobody hears."""
        if not self.in_chain:
            return "outside"
        if self.is_head:
            return "cut_off" if self.cut_off() else "head"
        return "tail" if self.is_tail else "middle"

    def status(self) -> dict[str, Any]:
        """For `/status`: `term` is the epoch, `leader` the head."""
        return {
            "node": self.node,
            "role": self.role,
            "term": self.epoch,
            "leader": self.leader(),
            "chain": list(self.config.chain),
            "joining": list(self.config.joining),
            "synced": self.synced,
            "commit_index": self.commit_index,
            "applied_index": self.applied_index,
            "last_index": self.log.last_index,
            "snapshot_index": self.log.snapshot_index,
            "uncommitted_bytes": self.uncommitted_bytes if self.is_head else 0,
            "master": status_of(self.master),
        }

    def check_invariants(self) -> None:
        """For tests: walks the log. Raises AssertionError, with the numbers."""
        log, config = self.log, self.config
        who = f"{self.node} ({self.role}, epoch {config.epoch})"
        self.master.check_invariants()
        log.check_invariants()
        assert log.last_term <= config.epoch, f"{who}: log of epoch {log.last_term}"
        assert log.snapshot_index <= self.applied_index <= self.commit_index, (
            f"{who}: snapshot {log.snapshot_index}, applied {self.applied_index}, commit "
            f"{self.commit_index}"
        )
        assert self.commit_index <= self.verified <= log.last_index, (
            f"{who}: commit {self.commit_index}, verified {self.verified}, last {log.last_index}"
        )
        assert len(set(config.chain)) == len(config.chain), f"{who}: {config}"
        assert set(config.joining) <= set(config.chain[1:]), f"{who}: {config}"
        assert not config.chain or len(config.chain) >= self.quorum, f"{who}: {config}"
        for link in self.links.values():
            assert link.match_index < link.next_index, f"{who}: {link.node} {link.match_index}"
            assert link.match_index <= log.last_index, f"{who}: {link.node} {link.match_index}"
        if self.is_head:
            waiting = log.between(self.commit_index, log.last_index)
            size = sum(len(entry.command) for entry in waiting)
            assert self.uncommitted_bytes == size, f"{who}: {self.uncommitted_bytes} ≠ {size}"


if TYPE_CHECKING:

    def _is_a_core(chain: Chain) -> Core:
        return chain
