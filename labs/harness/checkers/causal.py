"""Causal consistency, by bad patterns (Bouajjani, Enea, Guerraoui, Hamza, POPL 2017).

Causal order is the closure of program order and reads-from. A history of unique values is causally
consistent (CC) iff causal order has no cycle, no read is out of thin air, no read of the initial
value has a write of its key in its causal past (*WriteCOInitRead*), and no read of w1 has in its
causal past another write w2 of the key that itself comes causally after w1 (*WriteCORead*). It is
causally convergent (CCv) iff moreover causal order together with the *conflict* order is acyclic:
w1 conflicts before w2 if a read of w2 has w1 in its causal past (*CyclicCF*).

Vector clocks (one count per session) decide "in the causal past" by one comparison; of the writes
of a key in one session only the latest in the past matters.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Literal

from labs.harness.checkers.result import Counterexample, Result, collector_off
from labs.harness.checkers.sessions_graph import (
    Node,
    Sessions,
    build,
    find_cycle,
    topological,
)
from labs.harness.checkers.story import tell
from labs.harness.history import History, Op


class Violation(Exception):
    """A bad pattern."""

    def __init__(self, anomaly: str, summary: str, ops: list[Op]) -> None:
        super().__init__(anomaly)
        self.anomaly, self.summary, self.ops = anomaly, summary, ops


def check_causal(
    history: History, level: Literal["CC", "CCv"] = "CC", *, explain: bool = True
) -> Result:
    """Is the history causally consistent ("CC"), or causally convergent ("CCv")?

    Registers with unique values; real time does not matter. Clients are sessions (`process`).

    Raises:
        NotDifferentiated: a value was written twice to one key.
        ValueError: unknown level, or another operation than read, write, cas.
    """
    if level not in ("CC", "CCv"):
        raise ValueError(f"no level {level!r}; there are CC and CCv")
    name = f"bad patterns of {level}"
    with collector_off():
        made = build(history)
        stats: dict[str, Any] = {"operations": len(made.nodes), "sessions": len(made.sessions)}
        try:
            conflicts = causal(made)
            if level == "CCv":
                convergent(made, conflicts)
        except Violation as found:
            story = None
            if explain:
                key = found.ops[-1].key if found.ops else None
                story = Counterexample(found.anomaly, found.summary, found.ops[:6], key)
                tell(history, story)
            return Result(False, name, story, stats=stats)
    return Result(True, name, stats=stats)


_Writes = tuple[int, list[int], list[int]]  # session, places of its writes of a key, their numbers


def causal(made: Sessions) -> dict[int, list[int]]:
    """Check CC; returns the edges of the conflict order (of a session's writes, the latest).

    Raises:
        Violation: a bad pattern.
    """
    if made.thin_air:
        node = made.thin_air[0]
        raise Violation("thin-air read", "a value was read that nobody wrote", [node.op])
    order = topological(made)
    nodes = made.nodes
    if len(order) < len(nodes):
        ops = [nodes[number].op for number in find_cycle(made, {}, order)]
        raise Violation("CyclicCO", "program order and reads-from form a cycle", ops)
    width = len(made.sessions)
    clocks: list[list[int]] = [[]] * len(nodes)
    current = [[0] * width for _ in range(width)]
    writes: dict[Any, list[_Writes]] = {}
    for session, numbers in enumerate(made.sessions):
        mine: dict[Any, _Writes] = {}
        for number in numbers:
            node = nodes[number]
            if node.writes:
                _, places, of_key = mine.setdefault(node.key, (session, [], []))
                places.append(node.place)
                of_key.append(number)
        for key, found in mine.items():
            writes.setdefault(key, []).append(found)
    conflicts: dict[int, list[int]] = {}
    for number in order:
        node = nodes[number]
        clock = current[node.session]
        source = node.source
        # A write that is in the past already has brought its own past with it.
        if source >= 0 and clock[nodes[source].session] <= nodes[source].place:
            clock = list(map(max, clock, clocks[source]))
            current[node.session] = clock
        if node.reads and node.key in writes:
            _judge(made, node, clock, clocks, writes[node.key], conflicts)
        if node.writes:
            clock = clock.copy()
            clock[node.session] = node.place + 1
            current[node.session] = clock
            clocks[number] = clock
    return conflicts


def _judge(
    made: Sessions,
    node: Node,
    clock: list[int],
    clocks: list[list[int]],
    writes: list[_Writes],
    conflicts: dict[int, list[int]],
) -> None:
    """The latest write of the key in each session that is in the causal past of this read."""
    nodes, source = made.nodes, node.source
    known = [-1] * len(clock)
    session = mark = 0
    if source >= 0:
        origin = nodes[source]
        session, mark, known = origin.session, origin.place, clocks[source]
    for other_session, places, numbers in writes:
        past = clock[other_session]
        # What the write read here had in its own past was overwritten by it, and rightly.
        if known[other_session] >= past or past <= places[0]:
            continue
        other = numbers[bisect_left(places, past) - 1]
        if other == source:
            continue
        if source < 0:
            ops = [nodes[other].op, node.op]
            raise Violation("WriteCOInitRead", "nothing was read although a write came before", ops)
        if clocks[other][session] > mark:
            ops = [nodes[source].op, nodes[other].op, node.op]
            raise Violation("WriteCORead", "an overwritten value was read", ops)
        conflicts.setdefault(other, []).append(source)


def convergent(made: Sessions, conflicts: dict[int, list[int]]) -> None:
    """Check the conflict order.

    Raises:
        Violation: it forms a cycle with causal order.
    """
    order = topological(made, conflicts)
    if len(order) < len(made.nodes):
        ops = [made.nodes[number].op for number in find_cycle(made, conflicts, order)]
        raise Violation("CyclicCF", "sessions disagree about the order of writes", ops)
