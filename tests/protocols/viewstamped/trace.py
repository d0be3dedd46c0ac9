"""How a transcript words what a replica does: one line per fact. Pure formatting.

`2/3 x=5` is the entry with op-number 2, proposed in view 3, of the request `x=5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.protocols.core import Entry, Event, Snapshot
from services.protocols.viewstamped.messages import (
    Commit,
    DoViewChange,
    Founding,
    GetState,
    Incarnation,
    NewCheckpoint,
    NewState,
    Prepare,
    PrepareOk,
    Recovery,
    RecoveryResponse,
    StartView,
    StartViewChange,
    Truncate,
    ViewState,
)
from tests.protocols.raft.trace import entries_text, kind

EVENTS = {
    "become_recovering": "has an empty disk, names it {incarnation}, and recovers",
    "found": "knows that all disks were empty: the group is founded, view {term}",
    "recover": "learns of view {term}, led by {leader}; this is its life {life}",
    "become_leader": "is primary of view {term}, whose log begins with {last_index} entries",
    "become_backup": "is a backup in view {term} of {leader}",
    "follow": "follows {leader} in view {term}",
    "start_view_change": "suspects, would go to view {term}: {reason}",
    "enter_view": "moves to view {term}: {reason}",
    "choose_log": "chooses the log of {source}: v' {last_normal_view}, n {op_number}",
    "step_down": "leads view {term} no more: {reason}",
    "truncate_log": "cuts off its log from {first} to {last}: that of {leader} differs",
    "send_snapshot": "has only a checkpoint of what {peer} needs: sends it, up to {last_index}",
    "install_snapshot": "installs the checkpoint up to {last_index}/{last_term}, {bytes} bytes",
    "lease_lost": "loses its lease: {reason}",
}


def event_text(event: Event) -> str:
    return EVENTS[event.name].format(**event.fields)


def lives_text(lives: dict[str, int]) -> str:
    named = " ".join(f"{node}:{life}" for node, life in sorted(lives.items()))
    return f", lives {named}" if named else ""


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
        if record is not None:
            lines.append(_record_text(record))
    return lines


def _record_text(record: Any) -> str:
    match record:
        case ViewState(view, last_normal_view, lives):
            return f"view {view}, v' {last_normal_view}{lives_text(lives)}"
        case Truncate(op_number):
            return f"that its log ends with {op_number}"
        case Incarnation(nonce):
            return f"the name {nonce} of its disk"
        case Founding(names):
            return f"the founding by {' '.join(f'{n}:{x}' for n, x in sorted(names.items()))}"
    assert isinstance(record, Snapshot), record
    return f"the checkpoint up to {record.last_index}/{record.last_term} in place of its log"


def message_text(message: Any) -> str:
    return f"{message.src} → {message.dst} {kind(message)} {_body(message)}"


def _body(message: Any) -> str:
    match message:
        case Prepare():
            what = entries_text(message.entries)
            return f"v {message.view}: {what}; k {message.commit_number}"
        case PrepareOk():
            return f"v {message.view}, n {message.op_number}, round {message.round}"
        case Commit():
            n, k = message.op_number, message.commit_number
            return f"v {message.view}, n {n}, k {k}, round {message.round}"
        case StartViewChange():
            resigned = ", resigned" if message.resigned else ""
            return f"to v {message.target}, from v {message.view}{resigned}"
        case DoViewChange():
            normal, n, k = message.last_normal_view, message.op_number, message.commit_number
            return f"v {message.view}, v' {normal}, n {n}, k {k}{lives_text(message.lives)}"
        case StartView():
            log = f"{message.op_number}/{message.op_view}"
            return f"v {message.view}, log ends {log}, k {message.commit_number}"
        case GetState() if message.checkpoint:
            return f"v {message.view}: checkpoint {message.checkpoint} from byte {message.offset}"
        case GetState():
            return f"v {message.view}: what follows {message.op_number}/{message.op_view}?"
        case NewState():
            at = f"{message.after}/{message.after_view}"
            if not message.matched:
                return f"v {message.view}: not here; {at} is the nearest"
            what = entries_text(message.entries) or "nothing"
            return f"v {message.view} after {at}: {what}; k {message.commit_number}"
        case NewCheckpoint():
            upto = f"{message.op_number}/{message.op_view}"
            return f"v {message.view}: the state up to {upto}, from byte {message.offset}"
        case Recovery():
            life = f"my life {message.life}" if message.life else "who knows me?"
            return f"x {message.nonce}: {life}"
    assert isinstance(message, RecoveryResponse), message
    return _response_body(message)


def _response_body(message: RecoveryResponse) -> str:
    if not message.view:
        return f"x {message.nonce}: empty too, named {message.incarnation}"
    if not message.nonce:
        return f"v {message.view}: the founding"
    log = ""
    if message.primary:
        log = f", I lead it, log ends {message.op_number}/{message.op_view}"
    return f"x {message.nonce}, life {message.life}: v {message.view}{log}"
