"""How a transcript words what a Zab node does: one line per fact. Pure formatting.

`2/1 x=5` is the transaction with counter 2 of epoch 1 (its zxid) and the command `x=5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.protocols.core import Entry, Event, Snapshot
from services.protocols.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    AckSync,
    CEpoch,
    Commit,
    CommitNewLeader,
    Diff,
    Epochs,
    NewEpoch,
    NewLeader,
    Notification,
    Ping,
    Pong,
    Propose,
    Snap,
    Trunc,
    Truncate,
)
from tests.protocols.raft.trace import entries_text, kind

EVENTS = {
    "look": "looks for a leader, round {round}: {reason}",
    "become_follower": "follows {leader}: phase 1",
    "become_candidate": "is elected: prospective leader, phase 1",
    "become_leader": "leads epoch {term}: phase 3, the initial history ends at {last_index}",
    "accept_epoch": "promises epoch {term} to {leader}: phase 2",
    "accept_leader": "accepts {leader} as leader of epoch {term}",
    "follow": "is in phase 3 with {leader}, epoch {term}",
    "step_down": "gives up leading: {reason}",
    "truncate_log": "drops its history from {first} to {last}: {leader} never saw it",
    "send_snapshot": "has compacted what {peer} needs: sends its snapshot up to {last_index}",
    "log_lost": "notices that {peer} lost its history: it had {matched}, and now has {has}",
    "install_snapshot": "installs the snapshot up to {last_index}/{last_term}, {bytes} bytes",
}


def event_text(event: Event) -> str:
    return EVENTS[event.name].format(**event.fields)


def records_text(records: Sequence[Any]) -> list[str]:
    """What is persisted, in its order: runs of entries share a line."""
    lines: list[str] = []
    entries: list[Entry] = []
    for record in [*records, None]:
        if isinstance(record, Entry):
            entries.append(record)
            continue
        if entries:
            lines.append(entries_text(entries))
            entries = []
        if isinstance(record, Epochs):
            lines.append(f"acceptedEpoch {record.accepted_epoch}, "
                         f"currentEpoch {record.current_epoch}")  # fmt: skip
        elif isinstance(record, Truncate):
            lines.append(f"that its history ends at {record.counter}")
        elif isinstance(record, Snapshot):
            zxid = f"{record.last_index}/{record.last_term}"
            lines.append(f"the snapshot up to {zxid} in place of its history")
    return lines


def message_text(message: Any) -> str:
    return f"{message.src} → {message.dst} {kind(message)} {_body(message)}"


def _body(message: Any) -> str:
    match message:
        case Notification():
            vote = f"vote {message.vote or 'none'}"
            if message.state != "looking":
                return f"round {message.round}: {message.state}, {vote}"
            stands = "stands" if message.stands else "does not stand"
            ends = f"epoch {message.current_epoch}, history ends {message.last}"
            return f"round {message.round}: looking, {vote}; {stands}, {ends}"
        case CEpoch():
            return f"promised {message.accepted_epoch}"
        case NewEpoch():
            return f"{message.epoch}"
        case AckEpoch():
            promised = "promised" if message.promised else "no promise"
            ends = ", ".join(map(str, message.history)) or "nothing"
            return f"{message.epoch} {promised}: epoch {message.current_epoch}, history {ends}"
    return f"epoch {message.epoch}{_of_the_epoch(message)}"


def _of_the_epoch(message: Any) -> str:
    match message:
        case Trunc() | NewLeader():
            return f", history up to {message.last}"
        case Diff() | Propose():
            return f" after {message.prev}: {entries_text(message.entries)}"
        case Snap():
            end = message.offset + len(message.data)
            last = ", the last" if message.done else ""
            return f", snapshot up to {message.last}: bytes {message.offset} to {end}{last}"
        case AckSync():
            more = f", send from byte {message.offset}" if message.offset else ""
            return f", history ends {message.last}{more}"
        case Ack():
            return f", up to {message.counter}" + (", then there is a gap" if message.gap else "")
        case AckNewLeader() | CommitNewLeader() | Commit():
            return f", up to {message.counter}"
        case Ping():
            return f", round {message.round}, committed {message.counter}"
        case Pong():
            return f", round {message.round}, up to {message.counter}"
    raise AssertionError(message)
