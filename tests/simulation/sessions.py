"""Writes that are repeated, and a state machine that carries each out once (`sessions.py`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from services.protocols.core import Entry, Snapshot
from services.protocols.sessions import SessionTable
from tests.simulation.cluster import Machine
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.cluster import Node


class SessionMachine(Machine):
    """Each command carries out once however often it is committed: the command is its own key.

    `times` counts what was carried out, so that no later write covers a repetition up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sessions = SessionTable(capacity=100_000)

    def apply(self, entry: Entry) -> None:
        command = entry.command.decode()
        if self.sessions.lookup(command, command) is not None:
            super().apply(Entry(entry.index, entry.term, b""))
            return
        super().apply(entry)
        self.sessions.record(command, command, "ok")
        self.values["times"] = str(int(self.values.get("times", "0")) + 1)

    def snapshot(self) -> bytes:
        return json.dumps([self.values, self.sessions.to_plain()], sort_keys=True).encode()

    def restore(self, snapshot: Snapshot) -> None:
        if snapshot.last_index == 0:  # what log shipping begins from when a whole log has to go
            self.__init__()  # type: ignore[misc]
            return
        self.values, sessions = json.loads(snapshot.data)
        self.sessions = SessionTable.from_plain(sessions)
        self.applied_index = snapshot.last_index


class RetryingWorkload(Workload):
    """Clients that repeat a write now and then, as one does who had no answer."""

    retries = 0.2

    def write(self, node: Node) -> tuple[int, int]:
        if self.written == 0 or self.random.random() >= self.retries:
            return super().write(node)
        written = self.written
        self.written = max(0, written - 1 - self.random.randrange(4))
        try:
            return super().write(node)
        finally:
            self.written = written
