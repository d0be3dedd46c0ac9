"""How a transcript words what a server of a chain does: one line per fact. Pure formatting.

`2/7 x=5` is the update of index 2 that the head of epoch 7 took in. Of the master's own talk
nothing is told but who is it: that is Raft's, and tests/protocols/raft tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.protocols.chain.messages import (
    Acknowledge,
    Configuration,
    Confirm,
    Confirmed,
    Forward,
    Report,
    StateTransferred,
    TransferState,
)
from services.protocols.core import Entry, Event, Snapshot
from tests.protocols.raft.trace import entries_text, kind

EVENTS = {
    "enter_epoch": "enters epoch {epoch}: {place}",
    "become_leader": "is the head in epoch {term}, its log ends with {last_index}",
    "step_down": "is not the head any more: {reason}",
    "decide_chain": "proposes, as the master, the chain {chain}{new}",
    "truncate_log": "deletes its log from {first} to {last}: {leader} has other updates there",
    "send_snapshot": "has compacted what {peer} needs: sends its state up to {last_index}",
    "install_snapshot": "takes over the state up to {last_index}/{last_term}, {bytes} bytes",
    "master_become_leader": "is the master",
}
FINDINGS = {
    "silent": "{} does not answer me",
    "caught_up": "{} has nearly all that I have",
    "synced": "{} has all that was acknowledged before",
}


def chain_text(chain: Sequence[str], joining: Sequence[str] = ()) -> str:
    return "→".join(chain) + (f", {' '.join(joining)} joining" if joining else "")


def event_text(event: Event) -> str:
    """Empty for what is not told."""
    fields = dict(event.fields)
    if event.name in ("enter_epoch", "decide_chain"):
        fields["chain"] = chain_text(fields["chain"].split())
        fields["new"] = f", {fields['joining']} joining" if fields["joining"] else ""
        fields["place"] = f"{fields['chain']}{fields['new']}"
    return EVENTS[event.name].format(**fields) if event.name in EVENTS else ""


def records_text(records: Sequence[Any]) -> list[str]:
    """What is persisted, the master's records left out."""
    lines: list[str] = []
    entries = [record for record in records if isinstance(record, Entry)]
    for record in records:
        if isinstance(record, Configuration):
            lines.append(f"epoch {record.epoch}: {chain_text(record.chain, record.joining)}")
        elif isinstance(record, Snapshot):
            lines.append(
                f"the state up to {record.last_index}/{record.last_term} in place of its log"
            )
    return lines + ([entries_text(entries)] if entries else [])


def message_text(message: Any) -> str:
    return f"{message.src} → {message.dst} {kind(message)} epoch {message.epoch}{_body(message)}"


def _body(message: Any) -> str:
    match message:
        case Forward():
            what = entries_text(message.entries) or "nothing"
            prev = f"{message.prev_index}/{message.prev_epoch}"
            return f": {what} after {prev}, stable {message.stable}"
        case Acknowledge(accepted=True):
            return f": has {message.index}, stable {message.stable}"
        case Acknowledge():
            return f": not there; perhaps after {message.index}"
        case TransferState():
            upto = f"{message.last_index}/{message.last_epoch}"
            return f": the state up to {upto}, from byte {message.offset}"
        case StateTransferred():
            return ": it is here" if message.done else f": go on at byte {message.offset}"
        case Confirm():
            return ": do you know of a later one?"
        case Confirmed():
            return ": no"
    assert isinstance(message, Report), message
    return ": " + FINDINGS[message.finding].format(message.node)
