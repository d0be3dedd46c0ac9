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
    observed = {(op.key, freeze(op.output)) for op in history.ops if _is_read(op)}
    observed |= {
        (op.key, freeze(op.value[0])) for op in history.ops if op.f == "cas" and op.type != "fail"
    }
    made = Sessions()
    numbers: dict[int, int] = {}
    writers: dict[Write, int] = {}
    for op in history.ops:
        if op.f not in ("read", "write", "cas"):
            raise ValueError(f"a register has no operation {op.f!r} (it has read, write, cas)")
        if op.type == "fail" or (op.type == "info" and op.f == "read"):
            continue
        written = None if op.f == "read" else freeze(op.value if op.f == "write" else op.value[1])
        if op.type == "info" and (op.key, written) not in observed:
            continue
        session = numbers.setdefault(op.process, len(numbers))
        if session == len(made.sessions):
            made.sessions.append([])
        node = Node(len(made.nodes), op, session, len(made.sessions[session]), key=op.key)
        node.reads, node.writes = op.f != "write", op.f != "read"
        if node.writes:
            if (op.key, written) in writers or written is None:
                raise NotDifferentiated(f"{written!r} was written to {op.key!r} twice")
            writers[op.key, written] = node.number
        made.nodes.append(node)
        made.sessions[session].append(node.number)
    for node in made.nodes:
        if node.reads:
            value = freeze(node.op.output if node.op.f == "read" else node.op.value[0])
            if value is not None:
                node.source = writers.get((node.key, value), -1)
                if node.source < 0:
                    made.thin_air.append(node)
    return made


def _is_read(op: Op) -> bool:
    return op.f == "read" and op.type == "ok"


def topological(made: Sessions, extra: dict[int, list[int]] | None = None) -> list[int]:
    """The nodes in an order consistent with sessions and reads-from (and `extra` edges).

    Shorter than the nodes iff these relations form a cycle: then it holds those before the cycle.
    """
    count = len(made.nodes)
    missing = [0] * count
    after: list[list[int]] = [[] for _ in range(count)]
    for session in made.sessions:
        for at in range(1, len(session)):
            after[session[at - 1]].append(session[at])
            missing[session[at]] += 1
    for node in made.nodes:
        if node.source >= 0:
            after[node.source].append(node.number)
            missing[node.number] += 1
    for before, followers in (extra or {}).items():
        for number in followers:
            after[before].append(number)
            missing[number] += 1
    order = [number for number in range(count) if not missing[number]]
    for number in order:  # grows while it is read
        for follower in after[number]:
            missing[follower] -= 1
            if not missing[follower]:
                order.append(follower)
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
