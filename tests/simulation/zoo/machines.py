"""Planted bugs of the state machine: the same under every protocol."""

from __future__ import annotations

import json

from services.protocols.core import Entry
from services.protocols.sessions import SessionTable
from tests.simulation.sessions import SessionMachine


class SnapshotLosesSessions(SessionMachine):
    """A node that was given a snapshot without the session table carries out a repeated write that
    all others skip."""

    def snapshot(self) -> bytes:
        values, (capacity, _) = json.loads(super().snapshot())
        return json.dumps([values, [capacity, []]], sort_keys=True).encode()


class NoClientTable(SessionMachine):
    """§4: a retry is carried out again. The primary committed `x += 1` and died before it answered;
    the client asks the next primary, whose log has it already."""

    def apply(self, entry: Entry) -> None:
        if self.sessions.lookup(entry.command.decode(), entry.command.decode()) is not None:
            self.sessions = SessionTable(self.sessions.capacity)
        super().apply(entry)
