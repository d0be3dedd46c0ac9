"""Histories of registers as sessions: program order, reads-from, and causal order.

For causal and sequential consistency real time does not count and keys cannot be taken apart: what
a process did on one key orders what it did on another. Every written value is unique per key, so a
read names its write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from labs.harness.checkers.result import freeze
from labs.harness.history import History, Op

Write = tuple[Any, Any]  # key, frozen value


class NotDifferentiated(ValueError):
    """A value was written twice to one key: reads do not name their write."""


@dataclass(slots=True)
class Node:
    """An operation as these checkers see it."""

    number: int
    op: Op
    session: int
    place: int  # in its session
    source: int = -1  # the node whose write it read; -1: the initial value, or no read
    key: str | None = None
    reads: bool = False
    writes: bool = False


@dataclass(slots=True)
class Sessions:
    """All nodes, the sessions as lists of nodes, and the writes by key and session."""

    nodes: list[Node] = field(default_factory=list)
    sessions: list[list[int]] = field(default_factory=list)
    thin_air: list[Node] = field(default_factory=list)


def build(history: History) -> Sessions:
    """Sessions of a history of read, write and cas.

    Failed operations did not happen. Pending writes count if somebody observed them.

    Raises:
        NotDifferentiated: a value was written twice to one key.
        ValueError: another operation than read, write, cas.
    """
    # Only of pending writes it matters whether somebody saw them.
    observed = _observed(history) if any(op.type == "info" for op in history.ops) else set()
    made = Sessions()
    nodes, sessions = made.nodes, made.sessions
    numbers: dict[int, int] = {}
    writers: dict[Write, int] = {}
    for op in history.ops:
        f, written = op.f, None
        if f not in ("read", "write", "cas"):
            raise ValueError(f"a register has no operation {f!r} (it has read, write, cas)")
        if op.type == "fail" or (op.type == "info" and f == "read"):
            continue
        if f != "read":
            written = freeze(op.value if f == "write" else op.value[1])
            if op.type == "info" and (op.key, written) not in observed:
                continue
        session = numbers.get(op.process)
        if session is None:
            session = numbers[op.process] = len(sessions)
            sessions.append([])
        number, mine = len(nodes), sessions[session]
        nodes.append(Node(number, op, session, len(mine), -1, op.key, f != "write", f != "read"))
        mine.append(number)
        if f != "read":
            if written is None or (op.key, written) in writers:
                raise NotDifferentiated(f"{written!r} was written to {op.key!r} twice")
            writers[op.key, written] = number
    for node in made.nodes:
        if node.reads:
            value = freeze(node.op.output if node.op.f == "read" else node.op.value[0])
            if value is not None:
                node.source = writers.get((node.key, value), -1)
                if node.source < 0:
                    made.thin_air.append(node)
    return made


def _observed(history: History) -> set[Write]:
    """What reads and compare-and-sets found."""
    found = {
        (op.key, freeze(op.output)) for op in history.ops if op.f == "read" and op.type == "ok"
    }
    found |= {
        (op.key, freeze(op.value[0])) for op in history.ops if op.f == "cas" and op.type != "fail"
    }
    return found


def topological(made: Sessions, extra: dict[int, list[int]] | None = None) -> list[int]:
    """The nodes in an order consistent with sessions and reads-from (and `extra` edges).

    Shorter than the nodes iff these relations form a cycle: then it holds those before the cycle.
    """
    nodes, sessions = made.nodes, made.sessions
    before: dict[int, list[int]] = {}
    for number, followers in (extra or {}).items():
        for follower in followers:
            before.setdefault(follower, []).append(number)
    # Each session goes on until its next node waits for another session's.
    done = bytearray(len(nodes))
    reached = [0] * len(sessions)
    waiting: dict[int, list[int]] = {}  # by the node that they wait for
    order: list[int] = []
    going = list(range(len(sessions)))
    while going:
        session = going.pop()
        numbers = sessions[session]
        for place in range(reached[session], len(numbers)):
            number = numbers[place]
            awaited = nodes[number].source
            if awaited < 0 or done[awaited]:
                awaited = -1
                if number in before:
                    awaited = next((each for each in before[number] if not done[each]), -1)
            if awaited >= 0:
                reached[session] = place
                waiting.setdefault(awaited, []).append(session)
                break
            done[number] = 1
            order.append(number)
            if number in waiting:
                going += waiting.pop(number)
    return order


def find_cycle(made: Sessions, extra: dict[int, list[int]], order: list[int]) -> list[int]:
    """A cycle of sessions, reads-from and `extra` edges among the nodes left out of `order`."""
    left = set(range(len(made.nodes))) - set(order)
    before: dict[int, list[int]] = {number: [] for number in left}
    for number in left:
        node = made.nodes[number]
        session = made.sessions[node.session]
        candidates = [session[node.place - 1]] if node.place else []
        candidates += [node.source] if node.source >= 0 else []
        before[number] += [other for other in candidates if other in left]
    for other, followers in extra.items():
        if other in left:
            for number in followers:
                if number in left:
                    before[number].append(other)
    # Every node left has a predecessor that is left, so walking back must close.
    walk = [min(left)]
    seen = {walk[0]: 0}
    while True:
        previous = before[walk[-1]][-1]
        if previous in seen:
            return walk[seen[previous] :][::-1]
        seen[previous] = len(walk)
        walk.append(previous)
