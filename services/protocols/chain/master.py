"""The configuration master: a Raft whose log holds one chain after another.

Every server runs a member of it. Its leader is the master: it hears by Raft's own heartbeats who is
alive, hears by `Report` what only members of the chain can tell, and decides on the next chain. The
index of a configuration in that log is its epoch, hence unique; and a leader proposes only once it
has applied its whole log, so each chain is made from the one before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from services.protocols.chain.messages import (
    Configuration,
    Finding,
    MasterEntry,
    MasterRecord,
    MasterSnapshot,
    Report,
)
from services.protocols.chain.reads import Reads
from services.protocols.core import Entry, Event, NodeId, Snapshot
from services.protocols.raft import Role
from services.protocols.raft.messages import HardState, Record


def encode(config: Configuration) -> bytes:
    """For the master's log (where the index is the epoch), and for its snapshot."""
    return json.dumps([config.epoch, config.chain, config.joining]).encode()


def decode(data: bytes) -> Configuration:
    epoch, chain, joining = json.loads(data)
    return Configuration(epoch, tuple(chain), tuple(joining))


def wrap(record: Record) -> MasterRecord:
    """A record of the master's, so that it can't be taken for one of the chain."""
    if isinstance(record, Entry):
        return MasterEntry(record.index, record.term, record.command)
    if isinstance(record, Snapshot):
        return MasterSnapshot(record.last_index, record.last_term, record.data)
    return record


def unwrap(records: Iterable[MasterRecord]) -> list[Record]:
    """What Raft may be restarted from.

    Unlike a `Snapshot`, a MasterSnapshot does not replace the storage, and a torn write may have
    kept it without what came behind it. So the term, the vote and all entries that it does not
    cover are taken from before it.
    """
    hard: HardState | None = None
    snapshot: Snapshot | None = None
    entries: list[Entry] = []
    for record in records:
        if isinstance(record, HardState):
            hard = record
        elif isinstance(record, MasterEntry):
            while entries and entries[-1].index >= record.index:
                entries.pop()
            entries.append(Entry(record.index, record.term, record.command))
        else:
            last = record.last_index, record.last_term
            same = any((entry.index, entry.term) == last for entry in entries)
            entries = [entry for entry in entries if same and entry.index > last[0]]
            snapshot = Snapshot(*last, record.data)
    first: list[Record | None] = [hard, snapshot]
    return [record for record in first if record is not None] + entries


class Master(Reads):
    """Running the embedded Raft; and, where it leads, deciding on chains."""

    def forget_findings(self) -> None:
        """Reports are of one epoch."""
        self._found: dict[Finding, set[NodeId]] = {
            "silent": set(),
            "caught_up": set(),
            "synced": set(),
        }

    # ---- any server -------------------------------------------------------------------------

    def pump_master(self) -> list[MasterRecord]:
        """Take over what the master has to send and has decided; returns what to persist."""
        ready = self.master.ready()
        if not ready:
            return []
        self._messages += ready.messages
        self._events += [Event(f"master_{event.name}", event.fields) for event in ready.events]
        if ready.restore is not None:
            self._decided(decode(ready.restore.data))
        for entry in ready.committed:
            if entry.command:
                decided = decode(entry.command)
                decided.epoch = entry.index
                self._decided(decided)
        if ready.committed:
            self._compact_master()
        # The term first: no prefix of these may have a log of a later term.
        records = [record for record in ready.persist if isinstance(record, HardState)]
        records += [record for record in ready.persist if not isinstance(record, HardState)]
        return [wrap(record) for record in records]

    def _decided(self, config: Configuration) -> None:
        if config.epoch <= self.epoch:
            return  # it was entered before a restart
        self.enter(config)
        if self.master.role is Role.LEADER:
            # That it is decided, the others would learn a heartbeat later; writes wait for them.
            self.master.broadcast_heartbeat()

    def newest_epoch(self) -> int:
        """Of all configurations that this server has from the master, decided or not.

        One that came in a snapshot may not have been handed over yet.
        """
        log, newest = self.master.log, self.epoch
        if log.snapshot is not None and log.snapshot.last_index > newest:
            newest = max(newest, decode(log.snapshot.data).epoch)
        after = min(max(log.offset, newest), log.last_index)
        commands = [entry.index for entry in log.between(after, log.last_index) if entry.command]
        return max([newest, *commands])

    def _compact_master(self) -> None:
        applied = self.master.applied_index
        if applied - self.master.log.snapshot_index >= self.limits.configurations:
            self.master.compact(applied, encode(self.config))

    def master_records(self) -> list[MasterRecord]:
        """All that the master has to have on disk."""
        log = self.master.log
        records: list[Record] = [HardState(self.master.term, self.master.vote)]
        if log.snapshot is not None:
            records.append(log.snapshot)
        records += log.between(log.snapshot_index, log.last_index)
        return [wrap(record) for record in records]

    def report(self, node: NodeId, finding: Finding) -> None:
        """Tell the master, if one is known; it is told again at the next heartbeat."""
        if self.master.leader == self.node:
            self._found[finding].add(node)
        elif self.master.leader is not None:
            self.send(Report(self.node, self.master.leader, self.epoch, node, finding))

    def on_report(self, message: Report) -> None:
        if message.epoch == self.epoch and message.node in self.members:
            self._found[message.finding].add(message.node)

    # ---- the leader -------------------------------------------------------------------------

    def is_alive(self, node: NodeId) -> bool:
        """Has it answered a heartbeat of the master's within an election timeout?"""
        if node == self.node:
            return True
        peer = self.master.progress[node]
        return self.master.ticks - peer.heard_tick < self.election_ticks

    def supervise(self) -> None:
        """Is it time for another chain?"""
        master = self.master
        if master.role is not Role.LEADER or master.applied_index != master.log.last_index:
            return
        config = self.config
        chain, joining = self.next_chain() if config.chain else (self.members, ())
        if (chain, joining) != (config.chain, config.joining):
            self.emit("decide_chain", chain=" ".join(chain), joining=" ".join(joining))
            master.propose(encode(Configuration(0, chain, joining)))

    def next_chain(self) -> tuple[tuple[NodeId, ...], tuple[NodeId, ...]]:
        """The chain and who in it is joining: by what is known now, which may be as it is.

        First come, in their old order, those that have all that was ever acknowledged. Without one
        of them, or without a majority that is alive, there can be no other chain.
        """
        config, found = self.config, self._found
        alive = [node for node in self.members if self.is_alive(node)]
        there = [node for node in config.chain if node in alive and node not in found["silent"]]
        full = [node for node in there if self.is_full(node)]
        joining = [node for node in there if node not in full]
        joining += [n for n in alive if n not in config.chain and n in found["caught_up"]]
        lacking = self.quorum - len(full) - len(joining)
        if lacking > 0:
            # What is acknowledged shall be on a majority of disks, even if that takes waiting for
            # somebody who lacks much: a silent one last, for it may be silent to one other only.
            others = [node for node in alive if node not in full and node not in joining]
            others.sort(key=lambda node: node in found["silent"])
            joining += others[:lacking]
        if not full or len(full) + len(joining) < self.quorum:
            return config.chain, config.joining
        return (*full, *joining), tuple(joining)

    def is_full(self, node: NodeId) -> bool:
        """Has this member all that was acknowledged in earlier epochs?"""
        return node not in self.config.joining or node in self._found["synced"]


def status_of(master: Any) -> dict[str, Any]:
    """What `/status` tells of the master."""
    return {"leader": master.leader, "term": master.term, "role": master.role.value}
