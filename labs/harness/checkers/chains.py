"""Zones for a register with compare-and-set: clusters glued into chains.

A successful cas from a to b (b unique) reads a and at once writes b: nothing fits between the
clusters of a and b, so they stand together, a's first. Chains of such clusters are merged into one
block, whose inner order is checked here, and whose zone then takes part in the sweep of
`zones.py`. Two successful cas from one value contradict each other. A pending cas counts iff the
value it would have written was observed, directly or through another one that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from labs.harness.checkers.result import freeze
from labs.harness.checkers.zones import BEFORE_ALL, NEVER, Conflict, clashing, ended, sweep
from labs.harness.history import Op


@dataclass(slots=True)
class _Cluster:
    value: Any
    writer: Op | None  # None: the initial value
    observers: list[Op] = field(default_factory=list)  # reads, and failed cas that reported it
    source: Any = None  # of a cas: the value that it found
    successor: _Cluster | None = None  # whose writer is the cas that replaced this value

    def bounds(self) -> tuple[int, int]:
        """(least return, greatest call); the cas that replaces the value is not in it."""
        f, s = BEFORE_ALL, BEFORE_ALL
        if self.writer is not None:
            f, s = ended(self.writer), self.writer.invoke_ns
        for op in self.observers:
            f, s = min(f, ended(op)), max(s, op.invoke_ns)
        return f, s


def check_chains(
    writes: Sequence[Op],
    swaps: Sequence[Op],
    observers: Sequence[tuple[Any, Op]],
    pending: Sequence[Op],
    initial: Any,
) -> bool | Conflict | None:
    """One key with cas: True, a conflict, or None when zones do not apply.

    Args:
        writes: acknowledged writes.
        swaps: successful cas.
        observers: (frozen value, operation) of completed reads, and of failed cas that reported
            the current value.
        pending: writes and cas of unknown fate.
        initial: the value before any write.
    """
    initial = freeze(initial)
    clusters = {initial: _Cluster(initial, None)}
    for op in (*writes, *swaps, *_counted(swaps, observers, pending)):
        value = freeze(op.value if op.f == "write" else op.value[1])
        if value in clusters:
            return None
        source = None if op.f == "write" else freeze(op.value[0])
        clusters[value] = _Cluster(value, op, source=source)
    for value, op in observers:
        if value not in clusters:
            return Conflict("unwritten", [op])
        clusters[value].observers.append(op)
    for cluster in list(clusters.values()):
        swap = cluster.writer
        if swap is None or swap.f == "write":
            continue
        before = clusters.get(cluster.source)
        if before is None:
            return Conflict("unwritten", [swap])
        if before.successor is not None:
            other = before.successor.writer
            assert other is not None
            return Conflict("two-cas", [*([before.writer] if before.writer else []), other, swap])
        before.successor = cluster
    return _blocks(clusters)


def _counted(
    swaps: Sequence[Op], observers: Sequence[tuple[Any, Op]], pending: Sequence[Op]
) -> list[Op]:
    """The pending operations whose value somebody observed: those must have happened."""
    by_value: dict[Any, list[Op]] = {}
    for op in pending:
        value = freeze(op.value if op.f == "write" else op.value[1])
        by_value.setdefault(value, []).append(op)
    waiting = [value for value, _ in observers] + [freeze(op.value[0]) for op in swaps]
    counted: list[Op] = []
    while waiting:
        # A value written twice, even by pending operations, leaves a choice: both are kept, and
        # the caller sees the repetition.
        for op in by_value.pop(waiting.pop(), ()):
            counted.append(op)
            if op.f == "cas":
                waiting.append(freeze(op.value[0]))
    return counted


def _blocks(clusters: dict[Any, _Cluster]) -> bool | Conflict:
    zones: list[tuple[int, int]] = []
    members: dict[tuple[int, int], list[list[_Cluster]]] = {}
    reached = 0
    for root in clusters.values():
        if root.writer is not None and root.writer.f == "cas":
            continue
        chain = [root]
        while (after := chain[-1].successor) is not None:
            chain.append(after)
        reached += len(chain)
        zone = _chain_zone(chain)
        if isinstance(zone, Conflict):
            return zone
        zones.append(zone)
        members.setdefault(zone, []).append(chain)
    if reached < len(clusters):  # cas that feed each other, with no write to start from
        return Conflict("cas-cycle", _cycle(clusters))
    clash = sweep([f for f, _ in zones], [s for _, s in zones])
    if clash is None:
        return True
    # Two chains may have the very same zone: take a different one each time.
    groups = [[op for cluster in members[zone].pop() for op in _ops(cluster)] for zone in clash]
    return clashing(clash, groups)


def _chain_zone(chain: list[_Cluster]) -> tuple[int, int] | Conflict:
    """The zone of a chain, or the conflict inside it."""
    f, s = NEVER, BEFORE_ALL - 1
    before: list[Op] = []
    for cluster in chain:
        least, greatest = cluster.bounds()
        if cluster.writer is not None and least < cluster.writer.invoke_ns:
            early = min(cluster.observers, key=ended)
            return Conflict("early", [early, cluster.writer])
        if least < s:
            late = max(before, key=lambda op: op.invoke_ns)
            soon = min(_ops(cluster), key=ended)
            writer = [op for op in (chain[0].writer, cluster.writer) if op not in (None, soon)]
            ops = [op for op in (*writer, soon, late) if op is not None]
            return Conflict("cas-order", sorted(ops, key=lambda op: op.invoke_ns))
        f, s = min(f, least), max(s, greatest)
        before = [*_ops(cluster)] if not before else _latest(before, _ops(cluster))
    return f, s


def _latest(before: list[Op], ops: list[Op]) -> list[Op]:
    """Only the operation with the greatest call is ever asked for."""
    return [max((*before, *ops), key=lambda op: op.invoke_ns)]


def _ops(cluster: _Cluster) -> list[Op]:
    return [*([cluster.writer] if cluster.writer is not None else []), *cluster.observers]


def _cycle(clusters: dict[Any, _Cluster]) -> list[Op]:
    on_chain = set()
    for root in clusters.values():
        if root.writer is None or root.writer.f == "write":
            cluster: _Cluster | None = root
            while cluster is not None:
                on_chain.add(cluster.value)
                cluster = cluster.successor
    left = [c.writer for c in clusters.values() if c.value not in on_chain and c.writer]
    return left[:6]
