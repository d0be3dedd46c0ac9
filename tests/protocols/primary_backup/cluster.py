"""Nodes in memory: a disk that loses what was not persisted, a network under the test's control.

The state machine is the list of commands applied, so a state tells the whole history it came from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from services.protocols.core import Entry, Event, ReadGrant, ReadRefusal, Snapshot
from services.protocols.primary_backup import PrimaryBackup


class Node:
    """A core and what a driver would keep for it, the order of `Ready` included."""

    def __init__(self, name: str, peers: Iterable[str], seed: int, options: dict[str, Any]) -> None:
        self.name = name
        self.records: list[Any] = []
        self.up = True
        self._make: Callable[[], PrimaryBackup] = lambda: PrimaryBackup(
            name, tuple(peers), random=Random(seed), records=tuple(self.records), **options
        )
        self.start()

    def start(self) -> None:
        self.core = self._make()
        self.state: list[str] = []
        self.applied_index = 0
        self.reads: list[ReadGrant | ReadRefusal] = []
        self.up = True

    def carry_out(self, events: list[tuple[str, Event]]) -> tuple[list[Any], list[Entry]]:
        """One Ready: returns the messages to send and the entries applied."""
        ready = self.core.ready()
        for record in ready.persist:
            if isinstance(record, Snapshot):
                self.records = []
            self.records.append(record)
        if ready.restore is not None:
            self.state = json.loads(ready.restore.data) if ready.restore.data else []
            self.applied_index = ready.restore.last_index
        for entry in ready.committed:
            assert entry.index == self.applied_index + 1, (self.name, entry, self.applied_index)
            self.state.append(entry.command.decode())
            self.applied_index = entry.index
        self.reads += ready.reads
        events += [(self.name, event) for event in ready.events]
        return ready.messages, ready.committed

    def compact(self) -> None:
        self.core.compact(self.applied_index, json.dumps(self.state).encode())


class Cluster:
    """`Cluster(3, acknowledgement=…)`: nodes n1 … n3 and the messages between them."""

    def __init__(self, size: int, *, seed: int = 0, **options: Any) -> None:
        self.random = Random(seed)
        names = [f"n{number}" for number in range(1, size + 1)]
        options = {"election_ticks": 10, "heartbeat_ticks": 2, **options}
        self.nodes = {
            name: Node(name, [n for n in names if n != name], seed, options) for name in names
        }
        self.in_flight: list[Any] = []
        self.cut: set[tuple[str, str]] = set()
        self.events: list[tuple[str, Event]] = []
        self.acknowledged: list[str] = []
        self._proposed: dict[tuple[str, int, int], str] = {}
        self._writes = 0

    def core(self, name: str) -> PrimaryBackup:
        return self.nodes[name].core

    def collect(self) -> None:
        """Carry out what every live node has to do; its messages are in flight after that."""
        for node in self.nodes.values():
            while node.up:
                messages, committed = node.carry_out(self.events)
                self.in_flight += messages
                for entry in committed:
                    # Only the node that proposed it answers the client.
                    command = self._proposed.pop((node.name, entry.index, entry.term), None)
                    if command is not None:
                        self.acknowledged.append(command)
                if not messages and not committed:
                    break

    def write(self, name: str, count: int = 1) -> list[str]:
        """Propose `count` new commands on `name`; they are unique over the cluster."""
        commands = []
        for _ in range(count):
            self._writes += 1
            command = f"w{self._writes}@{name}"
            index, term = self.core(name).propose(command.encode())
            self._proposed[name, index, term] = command
            commands.append(command)
        self.collect()
        return commands

    def deliver(self, position: int = 0, *, keep: bool = False) -> None:
        """One message arrives (and stays in flight when `keep`), unless its link is cut."""
        message = self.in_flight[position]
        if not keep:
            del self.in_flight[position]
        target = self.nodes[message.dst]
        if target.up and (message.src, message.dst) not in self.cut:
            target.core.step(message)
            self.collect()

    def settle(self) -> None:
        """Deliver in order until nothing is in flight."""
        self.collect()
        for _ in range(100_000):
            if not self.in_flight:
                return
            self.deliver()
        raise AssertionError("messages without end")

    def run(self, ticks: int) -> None:
        """Let `ticks` pass, delivering everything in between."""
        for _ in range(ticks):
            for node in self.nodes.values():
                if node.up:
                    node.core.tick()
            self.settle()

    def partition(self, *sides: str) -> None:
        """`partition("n1 n2", "n3 n4 n5")`: nothing passes from side to side."""
        side_of = {name: number for number, side in enumerate(sides) for name in side.split()}
        self.cut = {(a, b) for a in side_of for b in side_of if side_of[a] != side_of[b]}

    def heal(self) -> None:
        self.cut = set()

    def crash(self, name: str) -> None:
        """What is not in its records is gone; so are its clients' answers."""
        self.nodes[name].up = False
        self._proposed = {key: c for key, c in self._proposed.items() if key[0] != name}

    def restart(self, name: str, *, wipe: bool = False) -> None:
        self.crash(name)
        if wipe:
            self.nodes[name].records = []
        self.nodes[name].start()
        self.collect()

    def primaries(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.up and node.core.is_primary]

    def states(self) -> list[list[str]]:
        return [node.state for node in self.nodes.values()]

    def told(self, name: str, node: str | None = None) -> list[dict[str, Any]]:
        """The fields of all events called `name` (of one node)."""
        return [e.fields for n, e in self.events if e.name == name and node in (None, n)]

    def check_invariants(self) -> None:
        for node in self.nodes.values():
            if node.up:
                node.core.check_invariants()
                assert node.applied_index == len(node.state), node.name
        live = [node.core for node in self.nodes.values() if node.up]
        for a in live:
            for b in live:
                first = max(a.history.log.base_index, b.history.log.base_index)
                last = min(a.history.log.last_index, b.history.log.last_index)
                common = [
                    index
                    for index in range(first, last + 1)
                    if a.history.log.digest(index) == b.history.log.digest(index)
                ]
                if common:  # the same at one index: the same at all before it
                    assert common == list(range(first, common[-1] + 1)), (a.node, b.node, common)
