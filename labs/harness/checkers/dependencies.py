"""The graph of dependencies between transactions, and the cycles in it (Adya 1999, Elle 2020).

Vertices are transactions; an edge a -> b says that a must come before b:

- `ww`: b wrote the version after a's;  `wr`: b read what a wrote;  `rw`: b overwrote what a read;
- `process`: a was over before b began, in one process;  `realtime`: in any.

A cycle means that no order exists; its edges name the anomaly:

- G0: `ww` only. G1c: `ww` and `wr`. G-single: exactly one `rw`. G-nonadjacent: several `rw`, no two
  in a row. G2-item: two `rw` in a row. With `process` or `realtime` edges the name gets a suffix.

Whether there is a cycle of a kind is decided exactly, in linear time, by strongly connected
components (for G-nonadjacent: of the product of the graph with "was the last edge rw?"). The cycle
shown is the shortest through any of up to `MAX_STARTS` of the component's edges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

Edge = tuple[int, int, str]  # from, to, kind
MAX_STARTS = 50
"""Edges from which a cycle of the exact name is looked for; that one exists is known before."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """An anomaly and the edges of one cycle that shows it, in order."""

    anomaly: str
    edges: tuple[Edge, ...]


class Graph:
    """Edges by kind, with the reason for each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.out: dict[str, list[set[int]]] = {
            kind: [set() for _ in range(count)]
            for kind in ("ww", "wr", "rw", "process", "realtime")
        }
        self.why: dict[Edge, str] = {}

    def add(self, before: int, after: int, kind: str, why: str) -> None:
        """`before` must come before `after`; a transaction never depends on itself."""
        if before != after and after not in self.out[kind][before]:
            self.out[kind][before].add(after)
            self.why[before, after, kind] = why

    def edges_from(self, vertex: int, kinds: Iterable[str]) -> Iterator[tuple[int, str]]:
        """(to, kind) of each edge."""
        for kind in kinds:
            for after in self.out[kind][vertex]:
                yield after, kind


def components(count: int, after: Callable[[int], Iterable[int]]) -> list[int]:
    """The number of the strongly connected component of each vertex; -1: alone (Tarjan 1972)."""
    index = [-1] * count
    low = [0] * count
    on_stack = bytearray(count)
    result = [-1] * count
    stack: list[int] = []
    counter = found = 0
    for root in range(count):
        if index[root] >= 0:
            continue
        index[root] = low[root] = counter
        counter += 1
        stack.append(root)
        on_stack[root] = 1
        work = [(root, iter(after(root)))]
        while work:
            vertex, edges = work[-1]
            for other in edges:
                if index[other] < 0:
                    index[other] = low[other] = counter
                    counter += 1
                    stack.append(other)
                    on_stack[other] = 1
                    work.append((other, iter(after(other))))
                    break
                if on_stack[other]:
                    low[vertex] = min(low[vertex], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[vertex])
                if low[vertex] == index[vertex]:
                    members = []
                    while True:
                        member = stack.pop()
                        on_stack[member] = 0
                        members.append(member)
                        if member == vertex:
                            break
                    if len(members) > 1:
                        for member in members:
                            result[member] = found
                        found += 1
    return result


def cycles(graph: Graph) -> list[Cycle]:
    """One cycle of every kind that the graph has."""
    found: list[Cycle] = []
    for extra, suffix in (((), ""), (("process",), "-process"), (("realtime",), "-realtime")):
        found += _of_kind(graph, extra, suffix)
    return found


def _of_kind(graph: Graph, extra: tuple[str, ...], suffix: str) -> list[Cycle]:
    """The kinds of cycles with `extra` edges; at least one of those when there are any."""
    found: list[Cycle] = []

    def add(name: str, paths: Iterable[tuple[Edge, ...]]) -> None:
        if shortest := min(paths, key=len, default=None):
            found.append(Cycle(f"{name}{suffix}", shortest))

    add("G0", _walks(graph, ("ww", *extra), extra or ("ww",), ("ww",)))
    add("G1c", _walks(graph, ("ww", "wr", *extra), ("wr",), extra))
    apart = list(_walks(graph, ("ww", "wr", "rw", *extra), ("rw",), extra, apart=True))
    add("G-single", (path for path in apart if _count(path) == 1))
    add("G-nonadjacent", (path for path in apart if _count(path) > 1))
    anywhere = _walks(graph, ("ww", "wr", "rw", *extra), ("rw",), extra)
    add("G2-item", filter(_in_a_row, anywhere))
    return found


def _count(path: tuple[Edge, ...]) -> int:
    return sum(kind == "rw" for _, _, kind in path)


def _in_a_row(path: tuple[Edge, ...]) -> bool:
    ring = [kind for _, _, kind in path]
    return len(ring) > 1 and any(ring[at - 1] == ring[at] == "rw" for at in range(len(ring)))


def _walks(
    graph: Graph,
    kinds: tuple[str, ...],
    must: tuple[str, ...],
    need: tuple[str, ...],
    *,
    apart: bool = False,
) -> Iterator[tuple[Edge, ...]]:
    """Short closed walks of `kinds` with an edge of `must` and, if given, one of `need`.

    With `apart`, no two rw edges in a row: states are then (vertex, was the last edge rw?),
    numbered vertex * 2 + 1 if it was. At least one is found if there is any: edges of `must` and
    of `need` inside one strongly connected component lie on a common closed walk.
    """
    size = 2 if apart else 1

    def after(state: int) -> Iterator[tuple[int, Edge]]:
        vertex, was = (state >> 1, state & 1) if apart else (state, 0)
        for to, kind in graph.edges_from(vertex, kinds):
            if kind == "rw" and was:
                continue
            yield (to * 2 + (kind == "rw") if apart else to), (vertex, to, kind)

    part = components(graph.count * size, lambda state: [to for to, _ in after(state)])
    inside = [state for state in range(len(part)) if part[state] >= 0]
    starts: list[tuple[int, int, Edge]] = []
    needed: set[int] = set()
    for state in inside:
        for to, edge in after(state):
            if part[to] == part[state]:
                if edge[2] in must:
                    starts.append((state, to, edge))
                if edge[2] in need:
                    needed.add(part[state])
    starts = [start for start in starts if not need or part[start[0]] in needed]
    stride = max(len(starts) // MAX_STARTS, 1)
    for state, to, edge in starts[::stride][:MAX_STARTS]:
        rest = _path(after, part, to, state, () if edge[2] in need else need)
        if rest is not None:
            yield (edge, *rest)


def _path(
    after: Callable[[int], Iterator[tuple[int, Edge]]],
    part: list[int],
    start: int,
    goal: int,
    need: tuple[str, ...],
) -> tuple[Edge, ...] | None:
    """A shortest path inside the component; with `need`, one that uses an edge of those kinds."""
    first = (start, not need)
    came: dict[tuple[int, bool], tuple[tuple[int, bool], Edge] | None] = {first: None}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        if state == (goal, True):
            edges: list[Edge] = []
            while (step := came[state]) is not None:
                state, edge = step
                edges.append(edge)
            return tuple(edges[::-1])
        for to, edge in after(state[0]):
            then = (to, state[1] or edge[2] in need)
            if part[to] == part[goal] and then not in came:
                came[then] = (state, edge)
                queue.append(then)
    return None
