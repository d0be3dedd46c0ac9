"""How a transcript words what a Raft node does: one line per fact. Pure formatting.

`2/1 x=5` is the log entry of index 2 and term 1 with the command `x=5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.protocols.core import Entry, Event, Snapshot
from services.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    InstallSnapshot,
    InstallSnapshotResponse,
    RequestPreVote,
    RequestVote,
)

ENTRIES_TOLD_MAX = 4
EVENTS = {
    "become_follower": "becomes follower in term {term}: {reason}",
    "become_pre_candidate": "becomes pre-candidate, still in term {term}",
    "become_candidate": "becomes candidate in term {term}",
    "become_leader": "becomes leader of term {term}, its no-op is entry {last_index}",
    "follow": "follows {leader} in term {term}",
    "grant_vote": "grants {candidate} its {ballot} for term {term}",
    "reject_vote": "denies {candidate} its {ballot} for term {term}: {reason}",
    "step_down": "steps down: {reason}",
    "truncate_log": "deletes its log from {first} to {last}: it conflicts with that of {leader}",
    "send_snapshot": "has compacted what {peer} needs: sends its snapshot up to {last_index}",
    "install_snapshot": "installs the snapshot up to {last_index}/{last_term}, {bytes} bytes",
    "lease_lost": "loses its lease: {reason}",
    "transfer_begin": "begins to transfer leadership of term {term} to {target}",
    "transfer_timeout_now": "tells {target}, which is up to date, to campaign now",
    "transfer_abort": "gives up the transfer to {target}",
    "log_lost": "notices that {peer} lost its log: it had {matched}, and now lacks {has}",
}


def entry_text(entry: Entry) -> str:
    return f"{entry.index}/{entry.term} {entry.command.decode() or 'no-op'}"


def entries_text(entries: Sequence[Entry]) -> str:
    if len(entries) > ENTRIES_TOLD_MAX:
        first, last = entry_text(entries[0]), entry_text(entries[-1])
        return f"{first} … {last} ({len(entries)} entries)"
    return ", ".join(entry_text(entry) for entry in entries)


def event_text(event: Event) -> str:
    fields = dict(event.fields)
    if "pre_vote" in fields:
        fields["ballot"] = "pre-vote" if fields["pre_vote"] else "vote"
    return EVENTS[event.name].format(**fields)


def records_text(records: Sequence[Any]) -> list[str]:
    """What is persisted: a line per hard state, per snapshot and per run of entries."""
    lines: list[str] = []
    entries: list[Entry] = []
    for record in records:
        if isinstance(record, Entry):
            entries.append(record)
        elif isinstance(record, HardState):
            lines.append(f"term {record.term}, vote {record.vote or 'none'}")
        else:
            assert isinstance(record, Snapshot), record
            lines.append(
                f"the snapshot up to {record.last_index}/{record.last_term} in place of its log"
            )
    return lines + ([entries_text(entries)] if entries else [])


def kind(message: Any) -> str:
    return type(message).__name__


def message_text(message: Any) -> str:
    return f"{message.src} → {message.dst} {kind(message)} term {message.term}{_body(message)}"


def _body(message: Any) -> str:
    match message:
        case RequestVote() | RequestPreVote():
            marked = ", by transfer" if getattr(message, "transfer", False) else ""
            return f", log ends {message.last_log_index}/{message.last_log_term}{marked}"
        case AppendEntries():
            what = entries_text(message.entries) or "heartbeat"
            return (
                f" after {message.prev_log_index}/{message.prev_log_term}: {what}"
                f"; commit {message.leader_commit}, round {message.round}"
            )
        case AppendEntriesResponse():
            return _append_answer(message)
        case InstallSnapshot():
            upto = f"{message.last_included_index}/{message.last_included_term}"
            end = message.offset + len(message.data)
            last = ", the last" if message.done else ""
            return f", snapshot up to {upto}: bytes {message.offset} to {end}{last}"
        case InstallSnapshotResponse():
            if message.done:
                return f", all up to {message.last_included_index} is here"
            return f", send from byte {message.offset}"
    granted = getattr(message, "vote_granted", None)
    return "" if granted is None else " granted" if granted else " denied"


def _append_answer(message: AppendEntriesResponse) -> str:
    if message.success:
        return f" success: equal up to {message.match_index}, round {message.round}"
    if message.conflict_term:
        hint = f"there is term {message.conflict_term} here, from {message.conflict_index} on"
        return f" no match at {message.prev_log_index}: {hint}"
    if message.conflict_index:
        return (
            f" no match at {message.prev_log_index}: the first missing is {message.conflict_index}"
        )
    return " no: your term is old"
