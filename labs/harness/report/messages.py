"""Frames between nodes: what was sent joined to what came; and the roles that nodes played."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from labs.harness.report.data import Message, Stay
from labs.harness.report.events import Wide

TERMS = ("term", "epoch", "view", "ballot", "token")


def join(frames: Iterable[Wide], start_ns: int) -> list[Message]:
    """Messages in the order in which they were sent.

    A link numbers its frames from 1; a node that restarts begins anew. So a receipt belongs to the
    last frame of that number sent before it.
    """
    came: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    sent = []
    for wide in frames:
        for at_ns, peer, number in wide.received:
            came[peer, wide.node, number].append(at_ns)
        for at_ns, peer, number, names, count, term in wide.sent:
            sent.append((at_ns, wide.node, peer, number, names, count, term))
    sent.sort()
    for receipts in came.values():
        receipts.sort(reverse=True)
    found = []
    for at_ns, src, dst, number, names, count, term in sent:
        receipts = came.get((src, dst, number), [])
        while receipts and receipts[-1] < at_ns:
            receipts.pop()  # of a frame whose sending was not told: its node was killed
        received_us = (receipts.pop() - start_ns) // 1000 if receipts else None
        sent_us = (at_ns - start_ns) // 1000
        found.append(Message(sent_us, received_us, src, dst, names, count, term))
    return found


_ROLES = {
    "start": "starting",
    "step_down": "follower",
    "follow": "follower",
    "look": "looking",  # Zab
    "start_view_change": "view-change",  # Viewstamped Replication
    "recover": "backup",  # has recovered, and takes part again
    "acquire": "holder",  # of a lease
    "lose": "contender",
    "stop": "",
    "fatal": "",
}


def role_after(event: str) -> str | None:
    """The role that a step of a protocol leads to, by its name; None if it leads to none.

    "" is no role: the node is not there.
    """
    if event.startswith("become_"):
        return event.removeprefix("become_").replace("_", "-")
    return _ROLES.get(event)


def stays(
    steps: Iterable[tuple[int, str, str, bytes]], killed: Iterable[tuple[int, str]], end_us: int
) -> list[Stay]:
    """Who was what, and when.

    Args:
        steps: (time, node, event, its line), in order of time.
        killed: when a node was killed: it could not say so itself.
        end_us: the end of the picture.
    """
    ends = [(at_us, node, "stop", b"{}") for at_us, node in killed]
    now: dict[str, tuple[int, str, int | None]] = {}
    found: list[Stay] = []
    for at_us, node, event, raw in sorted([*steps, *ends], key=lambda step: step[0]):
        role = role_after(event)
        if role is None:
            continue
        fields: dict[str, Any] = msgspec.json.decode(raw)
        began, before, term = now.get(node, (at_us, "", None))
        if before and at_us > began:
            found.append(Stay(node, began, at_us, before, term))
        number = next((fields[name] for name in TERMS if type(fields.get(name)) is int), term)
        now[node] = (at_us, role, number if role != "starting" else None)
    for node, (began, role, term) in now.items():
        if role and end_us > began:
            found.append(Stay(node, began, end_us, role, term))
    # A service without a protocol tells of no role: it starts, and from then on it serves.
    replicas = {stay.node for stay in found if stay.role != "starting"}
    found = [
        stay if stay.node in replicas else stay._replace(role="serves", term=None) for stay in found
    ]
    return sorted(_merged(found), key=lambda stay: (stay.node, stay.begin_us))


def _merged(found: Iterable[Stay]) -> list[Stay]:
    """Neighbours that say the same (`become_follower`, then `follow`) made one."""
    merged: list[Stay] = []
    for stay in sorted(found, key=lambda stay: (stay.node, stay.begin_us)):
        last = merged[-1] if merged else None
        if last is not None and last[0] == stay.node and last[3:] == stay[3:]:
            merged[-1] = last._replace(end_us=stay.end_us)
        else:
            merged.append(stay)
    return merged
