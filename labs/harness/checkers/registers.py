"""One key of a register: which algorithm may decide it, and the operations it needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from labs.harness.checkers.chains import check_chains
from labs.harness.checkers.register_search import RegisterSearch
from labs.harness.checkers.result import PLAIN, freeze
from labs.harness.checkers.zones import Conflict, check_zones
from labs.harness.history import Op

OPERATIONS = ("read", "write", "cas", "delete")
Key = str | None


@dataclass(slots=True)
class KeyOps:
    """The operations of one key that say something, by kind."""

    writes: list[Op] = field(default_factory=list)
    reads: list[Op] = field(default_factory=list)
    swaps: list[Op] = field(default_factory=list)  # successful cas
    refused: list[Op] = field(default_factory=list)  # failed cas that say something
    deletes: list[Op] = field(default_factory=list)
    pending: list[Op] = field(default_factory=list)  # not reads: a pending read says nothing

    def completed(self) -> list[Op]:
        """All completed operations that say something."""
        return [*self.writes, *self.reads, *self.swaps, *self.refused, *self.deletes]


def split(ops: Iterable[Op]) -> dict[Key, KeyOps]:
    """Operations by key and kind.

    Raises:
        ValueError: an operation that a register does not have.
    """
    groups: defaultdict[tuple[Key, str, str], list[Op]] = defaultdict(list)
    # The frequent kinds have tables of their own: a string is looked up faster than a triple.
    reads: defaultdict[Key, list[Op]] = defaultdict(list)
    writes: defaultdict[Key, list[Op]] = defaultdict(list)
    swaps: defaultdict[Key, list[Op]] = defaultdict(list)
    refused: defaultdict[Key, list[Op]] = defaultdict(list)
    for op in ops:
        f = op.f
        if op.type == "ok":
            if f == "read":
                reads[op.key].append(op)
                continue
            if f == "write":
                writes[op.key].append(op)
                continue
            if f == "cas":
                swaps[op.key].append(op)
                continue
        elif f == "cas" and op.type == "fail" and _says_something(op):
            refused[op.key].append(op)
            continue
        groups[op.key, f, op.type].append(op)
    keys: defaultdict[Key, KeyOps] = defaultdict(KeyOps)
    for key, found in reads.items():
        keys[key].reads = found
    for key, found in writes.items():
        keys[key].writes = found
    for key, found in swaps.items():
        keys[key].swaps = found
    for key, found in refused.items():
        keys[key].refused = found
    for (key, f, kind), found in groups.items():
        if f not in OPERATIONS:
            raise ValueError(f"a register has no operation {f!r} (it has {', '.join(OPERATIONS)})")
        of_key = keys[key]
        if kind == "info":
            if f != "read":
                of_key.pending += found
        elif kind == "ok":
            of_key.deletes = found
    return keys


def _says_something(op: Op) -> bool:
    return "current" in op.extra or op.extra.get("mismatch") is True


def by_zones(ops: KeyOps, initial: Any) -> bool | Conflict | None:
    """True, a conflict, or None when zones do not apply to this key."""
    if ops.deletes or any("current" not in op.extra for op in ops.refused):
        return None
    if any(op.f == "delete" for op in ops.pending):
        return None
    swaps = ops.swaps or ops.refused or any(op.f == "cas" for op in ops.pending)
    try:
        if _repeats(ops.writes):
            return None
        if not swaps and type(initial) in PLAIN:
            return check_zones(ops.writes, ops.reads, ops.pending, initial)
    except TypeError:
        pass  # values that are no dictionary keys, or truth values
    observers = [(freeze(op.output), op) for op in ops.reads]
    observers += [(freeze(op.extra["current"]), op) for op in ops.refused]
    return check_chains(ops.writes, ops.swaps, observers, ops.pending, initial)


def _repeats(writes: list[Op]) -> bool:
    """A cheap look at the beginning: repeated values show early, unique ones cost nothing."""
    some = [op.value for op in writes[:100]]
    if not {type(value) for value in some} <= PLAIN:
        return False
    return len(set(some)) < len(some)


def by_search(ops: KeyOps, initial: Any) -> RegisterSearch:
    """The search over this key, not yet begun."""
    return RegisterSearch(ops.completed(), ops.pending, initial)
