"""Sequential consistency: one order of all operations that respects every process' own order.

Deciding it is NP-complete even with unique values (Gibbons & Korach 1997), so: first what is cheap
and refutes (causal, then causally convergent consistency, which every sequentially consistent
history has), then what is cheap and proves (the order of the versions in the replies, if it is
consistent with all reads), then a search over the positions in the sessions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from labs.harness.checkers.causal import Violation, causal, convergent
from labs.harness.checkers.result import Counterexample, Result, Valid, collector_off
from labs.harness.checkers.sessions_graph import Sessions, build, topological
from labs.harness.checkers.story import tell
from labs.harness.history import History

MAX_STATES = 1_000_000
OPS_TOLD = 6


def check_sequential(history: History, *, timeout_s: float = 60.0, explain: bool = True) -> Result:
    """Is there one order of all operations, consistent with each process' own?

    Raises:
        NotDifferentiated: a value was written twice to one key.
        ValueError: another operation than read, write, cas.
    """
    with collector_off():
        made = build(history)
        stats: dict[str, Any] = {"operations": len(made.nodes), "sessions": len(made.sessions)}
        algorithm = "causal consistency"
        try:
            conflicts = causal(made)
            algorithm = "causal convergence"
            convergent(made, conflicts)
        except Violation as found:
            story = None
            if explain:
                story = Counterexample(found.anomaly, found.summary, found.ops[:6])
                tell(history, story)
            return Result(False, algorithm, story, stats=stats)
        if _by_versions(made):
            return Result(True, "version order", stats=stats)
        verdict, deepest = _search(made, conflicts, time.monotonic() + timeout_s, stats)
    story = None
    if verdict is False and explain:
        summary = "no order of all operations respects every process' own order"
        stuck = [
            made.nodes[s[p]].op for s, p in zip(made.sessions, deepest, strict=True) if p < len(s)
        ]
        if len(made.nodes) <= OPS_TOLD:  # as short as that, a history is its own counterexample
            stuck = [node.op for node in made.nodes]
        name = "store buffering" if _store_buffering(made) else "not sequential"
        story = tell(history, Counterexample(name, summary, stuck[:OPS_TOLD]))
    return Result(verdict, "sequential search", story, stats=stats)


def _store_buffering(made: Sessions) -> bool:
    """Two sessions that each write, then read the other's key as it was before (Dekker's idea of
    mutual exclusion, and the litmus test SB of memory models): each is late for the other."""
    if [len(session) for session in made.sessions] != [2, 2]:
        return False
    (write, read), (other, other_read) = ([made.nodes[n] for n in s] for s in made.sessions)
    ops = [node.op.f for node in (write, read, other, other_read)]
    crossed = write.key == other_read.key and read.key == other.key and write.key != other.key
    return crossed and ops == ["write", "read", "write", "read"]


def _by_versions(made: Sessions) -> bool:
    """The versions give an order: writes by version, each read before the next write of its key."""
    nodes = made.nodes
    writes = [node for node in nodes if node.writes]
    versions = {node.number: node.op.version for node in writes}
    for node in nodes:
        # Of a write that nobody answered, whoever read it knows the version.
        if node.reads and not node.writes and versions.get(node.source, 0) is None:
            versions[node.source] = node.op.version
    order = [(version, number) for number, version in versions.items() if version is not None]
    if not writes or len(order) < len(writes):
        return False
    order.sort()
    extra: dict[int, list[int]] = {}
    for (version, before), (next_version, after) in pairwise(order):
        if version == next_version:
            return False
        extra.setdefault(before, []).append(after)
    following: dict[Any, dict[int, int]] = {}  # key -> write -> the next write of the key
    latest: dict[Any, int] = {}
    for _, number in order:
        node = nodes[number]
        following.setdefault(node.key, {})[latest.get(node.key, -1)] = node.number
        latest[node.key] = node.number
    for node in nodes:
        if node.reads:
            overwriter = following.get(node.key, {}).get(node.source)
            if overwriter is not None and overwriter != node.number:
                extra.setdefault(node.number, []).append(overwriter)
    return len(topological(made, extra)) == len(nodes)


def _search(
    made: Sessions, conflicts: dict[int, list[int]], deadline: float, stats: dict[str, Any]
) -> tuple[Valid, tuple[int, ...]]:
    """Depth first over (position in each session, value of each key); reads are taken at once."""
    nodes, sessions = made.nodes, made.sessions
    needed: list[list[int]] = [[] for _ in nodes]  # writes that must come before a write
    for before, after in conflicts.items():
        for number in after:
            needed[number].append(before)
    numbering = {key: at for at, key in enumerate({node.key for node in nodes})}
    start = (0,) * len(sessions), (-1,) * len(numbering)
    memory = {start}
    stack = [start]
    deepest, most = start[0], -1
    goal = tuple(map(len, sessions))
    visited = 0
    while stack:
        visited += 1
        if visited % 256 == 0 and (time.monotonic() > deadline or len(memory) > MAX_STATES):
            stats["states"] = len(memory)
            return "unknown", deepest
        places, state = _take_reads(made, numbering, *stack.pop())
        if sum(places) > most:
            deepest, most = places, sum(places)
        if places == goal:
            stats["states"] = len(memory)
            return True, deepest
        for child in _writes(made, numbering, needed, places, state):
            if child not in memory:
                memory.add(child)
                stack.append(child)
    stats["states"] = len(memory)
    return False, deepest


def _take_reads(
    made: Sessions, numbering: dict[Any, int], places: tuple[int, ...], state: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    at = list(places)
    for session, numbers in enumerate(made.sessions):
        while at[session] < len(numbers):
            node = made.nodes[numbers[at[session]]]
            if node.writes or state[numbering[node.key]] != node.source:
                break
            at[session] += 1
    return tuple(at), state


def _writes(
    made: Sessions,
    numbering: dict[Any, int],
    needed: list[list[int]],
    places: tuple[int, ...],
    state: tuple[int, ...],
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for session, numbers in enumerate(made.sessions):
        if places[session] == len(numbers):
            continue
        node = made.nodes[numbers[places[session]]]
        key = numbering[node.key]
        if not node.writes or (node.reads and state[key] != node.source):
            continue
        if any(places[made.nodes[n].session] <= made.nodes[n].place for n in needed[node.number]):
            continue
        after = (*places[:session], places[session] + 1, *places[session + 1 :])
        yield after, (*state[:key], node.number, *state[key + 1 :])
