"""The commonest case of all: keys on which hardly two operations ever overlap.

A *quiescent cut* of a key is an instant at which every operation called so far has returned. All
linearizations respect it: what is before the cut comes first. So a register is linearizable iff,
from cut to cut, each group of overlapping operations can be ordered from one of the values that the
group before it may have left. A group of one operation is simply carried out; a small one is tried
in every order. Values may repeat: nothing but the present value is remembered of a key, no matter
how many operations it has. That is why this comes before the zones (`zone_pass.py`), which keep two
instants for every value and are bound by the memory's speed at a million operations.

This pass only ever says "linearizable". A key with a larger group, a cas, a delete, an operation of
unknown fate or a violation is left to the algorithms that can say more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labs.harness.checkers.result import PLAIN, freeze
from labs.harness.checkers.zones import BEFORE_ALL, NEVER, ended, sweep
from labs.harness.history import Op

Key = str | None

LARGEST_GROUP = 24
"""Overlapping operations that are looked at here; a key with more is left to the zones."""

LARGEST_REPEATING = 5
"""Overlapping operations with repeated values that are tried in every order."""

_SEVERAL = object()
"""In place of a value: one of `_Register.values`."""


class _Register:
    """One key as of its latest operation.

    Attributes:
        value: what it holds, or `_SEVERAL`.
        busy: the latest return so far: what is called after it comes after everything else.
        latest: the operation called last.
        before: the value before the operations since the latest cut, if those are a write or more.
        group: the operations since the latest cut, if they overlap; None: there is but `latest`.
        values: what it may have held when it last held `_SEVERAL`.
    """

    __slots__ = ("before", "busy", "group", "latest", "value", "values")

    def __init__(self, initial: Any) -> None:
        self.value: Any = initial
        self.busy = BEFORE_ALL
        self.latest: Op | None = None
        self.before: Any = initial
        self.group: list[Op] | None = None
        self.values: Sequence[Any] = ()


def hard(ops: Sequence[Op], initial: Any) -> tuple[Sequence[Op], int]:
    """The operations of keys that this pass could not prove linearizable; how many it did prove."""
    if type(initial) not in PLAIN:
        return ops, 0
    keys: dict[Key, _Register] = {}
    left: set[Key] = set()
    latest = BEFORE_ALL
    for op in ops:  # this loop is most of the time of a check
        invoked = op.invoke_ns
        if invoked < latest:  # not in the order of the calls
            return ops, 0
        latest = invoked
        try:
            key = keys[op.key]
        except KeyError:
            key = keys[op.key] = _Register(initial)
        if op.type == "ok" and invoked > key.busy and (key.group is None or _settle(key)):
            if op.f == "read":
                got = op.output
                if got == key.value and type(got) in PLAIN:
                    key.busy = op.return_ns  # type: ignore[assignment]
                    key.latest = op
                    continue
            elif op.f == "write":
                value = op.value
                if type(value) in PLAIN:
                    key.before, key.value = key.value, value
                    key.busy = op.return_ns  # type: ignore[assignment]
                    key.latest = op
                    continue
        if not _joined(key, op):
            left.add(op.key)
            if len(left) == len(keys):  # a history of another kind: its time is not wasted here
                return ops, 0
    for name, key in keys.items():
        if key.group is not None and not _settle(key):
            left.add(name)
    return [op for op in ops if op.key in left] if left else (), len(keys) - len(left)


def _joined(key: _Register, op: Op) -> bool:
    """Put an operation into the group since the latest cut; False: the key is left to others."""
    busy = key.busy
    if op.type != "ok":
        if op.f == "read" or (op.type == "fail" and op.f in ("write", "delete")):
            return True  # it says nothing
        busy = NEVER
    elif op.f != "read" and (op.f != "write" or type(op.value) not in PLAIN):
        busy = NEVER
    group = key.group
    if op.invoke_ns > busy:
        # A read of what is not there: a write to come may overlap it.
        key.before = key.value
        group = key.group = []
    elif group is None and busy != NEVER:
        latest = key.latest
        assert latest is not None
        if latest.f == "read":
            key.before = key.value
        group = key.group = [latest]
    if busy == NEVER or group is None or len(group) == LARGEST_GROUP:
        key.busy, key.group = NEVER, None
        return False
    group.append(op)
    returned = ended(op)
    if returned > busy:
        key.busy = returned
    return True


def _settle(key: _Register) -> bool:
    """Order the group that ends at a cut; False: there is no order, and the key is left."""
    assert key.group is not None
    found = _finals(key.group, key.values if key.before is _SEVERAL else (key.before,))
    key.group = None
    if len(found) == 1:
        key.value = found[0]
    elif found:
        key.value, key.values = _SEVERAL, found
    else:
        key.busy = NEVER
    return bool(found)


def _finals(group: list[Op], starts: Sequence[Any]) -> Sequence[Any]:
    """The values that overlapping operations may leave behind; none: no order was found.

    By zones (see zones.py): a cluster of which no other one must come behind may be the last.
    """
    if len(group) == 2:
        return _pair(group[0], group[1], starts)
    first: dict[Any, int] = {}
    last: dict[Any, int] = {}
    reads = []
    for op in group:
        if op.f == "read":
            reads.append(op)
            continue
        value = op.value
        if value in first or value in starts:
            return _orders(group, starts) if len(group) <= LARGEST_REPEATING else ()
        first[value], last[value] = ended(op), op.invoke_ns
    found: Sequence[Any] = starts
    old = BEFORE_ALL
    for op in reads:
        value = op.output
        if type(value) not in PLAIN:
            return ()
        if value in first:
            if op.return_ns < first[value]:  # type: ignore[operator]
                if op.return_ns < last[value]:  # type: ignore[operator]
                    return ()  # before it was written, or at odds with another read of it
                first[value] = op.return_ns  # type: ignore[assignment]
            last[value] = max(last[value], op.invoke_ns)
        elif value in found:
            found, old = (value,), op.invoke_ns
        else:
            return ()
    if not first:
        return found
    if min(first.values()) < old:
        return ()
    if len(first) == 1:
        return list(first)
    if sweep(list(first.values()), list(last.values())) is not None:
        return ()
    *_, second, most = sorted(last.values())
    return [v for v, f in first.items() if f >= (second if last[v] == most else most)]


def _pair(one: Op, other: Op, starts: Sequence[Any]) -> Sequence[Any]:
    """The same of two: by far the most groups."""
    if one.f == "read":
        one, other = other, one
    if other.f == "write":
        return (one.value,) if one.value == other.value else (one.value, other.value)
    got = other.output
    if type(got) not in PLAIN:
        return ()
    if one.f == "write":
        return (one.value,) if got == one.value or got in starts else ()
    return (got,) if got in starts and type(one.output) in PLAIN and one.output == got else ()


def _orders(group: list[Op], starts: Sequence[Any]) -> Sequence[Any]:
    """The same by trying every order: values repeat."""
    ops = []
    for op in group:
        reads = op.f == "read"
        ops.append((op.invoke_ns, ended(op), reads, freeze(op.output if reads else op.value)))
    found: set[Any] = set()
    stack = [(value, ops) for value in starts]
    while stack:
        now, rest = stack.pop()
        if not rest:
            found.add(now)
            continue
        deadline = NEVER
        nexts = []
        for at, (invoked, returned, reads, value) in enumerate(rest):
            if invoked > deadline:
                break
            if not reads:
                nexts.append((value, rest[:at] + rest[at + 1 :]))
            elif value == now:  # taken at once: an early read constrains nothing
                nexts = [(now, rest[:at] + rest[at + 1 :])]
                break
            deadline = min(deadline, returned)
        stack += nexts
    return list(found)
