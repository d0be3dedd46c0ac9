"""How a transcript words what a Paxos node does: one line per fact. Pure formatting.

Ballots are written `round.leader`: 2.n1 is round 2 of n1. `5 x=1 (of 1.n1)` is the value of slot 5,
the command x=1, first proposed in ballot 1.n1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.protocols.core import Entry, Event, Snapshot
from services.protocols.paxos.ballots import Ballots
from services.protocols.paxos.messages import (
    Accepted,
    Decided,
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
    SnapshotChunk,
)
from tests.protocols.raft.trace import kind

EVENTS = {
    "become_follower": "is passive: {reason}",
    "become_pre_candidate": "asks who would promise {ballot}",
    "become_candidate": "sends out a scout with {ballot}",
    "become_leader": "is active in {ballot}: {adopted} values to propose again, {no_ops} gaps",
    "follow": "follows {leader} in {ballot}",
    "grant_vote": "{would} {candidate} ballot {ballot}",
    "reject_vote": "does not {promise} {candidate} ballot {ballot}: {reason}",
    "step_down": "is no longer active in {ballot}: {reason}",
    "send_snapshot": "has collected what {peer} needs: sends its snapshot up to {last_index}",
    "install_snapshot": "installs the snapshot up to {last_index}, {bytes} bytes",
    "lease_lost": "loses its lease: {reason}",
}


class Words:
    """The words for a cluster of this size: a ballot's number alone does not say whose it is."""

    def __init__(self, size: int) -> None:
        self.ballots = Ballots(f"n{i + 1}" for i in range(size))

    def entry(self, entry: Entry) -> str:
        command = entry.command.decode() or "no-op"
        return f"{entry.index} {command} (of {self.ballots.text(entry.term)})"

    def entries(self, entries: Sequence[Entry]) -> str:
        return ", ".join(self.entry(entry) for entry in entries)

    def event(self, event: Event) -> str:
        fields = dict(event.fields)
        if "term" in fields:
            fields["ballot"] = self.ballots.text(fields["term"])
        if "pre_vote" in fields:
            fields["would"] = "would promise" if fields["pre_vote"] else "promises"
            fields["promise"] = "offer" if fields["pre_vote"] else "promise"
        return EVENTS[event.name].format(**fields)

    def record(self, record: Any) -> str:
        match record:
            case Promised(ballot=ballot):
                return f"ballot {self.ballots.text(ballot)} is adopted"
            case Accepted(ballot=ballot, entries=entries):
                return f"accepted in {self.ballots.text(ballot)}: {self.entries(entries)}"
            case Learned(entries=entries):
                return f"learned: {self.entries(entries)}"
            case Decided(slot=slot):
                return f"all up to slot {slot} is decided"
        assert isinstance(record, Snapshot), record
        return f"the snapshot up to {record.last_index} in place of all that"

    def message(self, message: Any) -> str:
        return f"{message.src} → {message.dst} {kind(message)}{self._body(message)}"

    def _body(self, message: Any) -> str:
        text = self.ballots.text
        match message:
            case P0a(ballot=ballot) | P1a(ballot=ballot):
                return f" {text(ballot)}"
            case P0b(ballot=ballot, granted=granted):
                return f" {text(ballot)}, " + ("yes" if granted else "no")
            case P1b(ballot=ballot, decided=decided, accepted=accepted):
                held = [f"{text(p.ballot)}: {self.entry(p.entry)}" for p in accepted]
                return f" {text(ballot)}, decided {decided}, accepted {'; '.join(held) or 'none'}"
            case P2a(ballot=ballot, entries=entries, decided=decided, round=number):
                what = self.entries(entries) or "heartbeat"
                return f" {text(ballot)}: {what}; decided {decided}, round {number}"
            case P2b(ballot=ballot, slots=slots, round=number):
                runs = [str(a) if a == b else f"{a}-{b}" for a, b in slots]
                return f" {text(ballot)}: slots {', '.join(runs) or 'none'}, round {number}"
            case Learn(after=after, offset=offset):
                return f" what is after {after}" + (f", from byte {offset}" if offset else "")
            case Decisions(entries=entries, decided=decided):
                return f" {self.entries(entries)}; of {decided}"
        assert isinstance(message, SnapshotChunk), message
        last = ", the last" if message.done else ""
        end = message.offset + len(message.data)
        return f" of the snapshot up to {message.last_index}: bytes {message.offset} to {end}{last}"
