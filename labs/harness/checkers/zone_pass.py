"""The common case first: all keys of a register at once, in one pass over the history.

Most keys of most histories have unique values, reads and writes only, and are linearizable. For
them `zones.py` needs no more than f and s of every cluster, and these can be gathered while the
operations lie in memory one after the other: collecting the operations of each key first, and
looking at them again key by key, takes twice as long at a hundred keys.

This pass only ever says "linearizable". Every other key (repeated values, cas, deletes, a
violation) is left to the algorithms that can say more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import Any

from labs.harness.checkers.result import PLAIN
from labs.harness.checkers.zones import BEFORE_ALL, NEVER, sweep
from labs.harness.history import Op

Key = str | None
Values = dict[Any, int]  # value -> an instant

_NOTHING: Values = {}

LARGE = 10_000
"""Operations of one key from which on it is not swept as a whole."""


def undecided(ops: Sequence[Op], initial: Any) -> tuple[set[Key], int]:
    """The keys that this pass could not prove linearizable, and how many it did."""
    if type(initial) not in PLAIN:
        return {op.key for op in ops}, 0
    keys: dict[Key, tuple[Values, Values]] = {}  # f and s of each value (see zones.py)
    waiting: set[tuple[Key, Any]] = set()  # read, and their write was not called yet
    rest: list[Op] = []
    left: set[Key] = set()
    latest = BEFORE_ALL
    name: Any = _NOTHING
    first, last = _NOTHING, _NOTHING  # of the key of that name
    hot = len(ops) >= LARGE  # there is one key only, with many operations
    forward: set[Any] = set()  # then: the values whose zone is forward
    for op in ops:  # this loop is most of the time of a check
        invoked = op.invoke_ns
        if invoked < latest:  # not in the order of the calls, on which s relies
            return {op.key for op in ops}, 0
        latest = invoked
        if op.type != "ok":
            rest.append(op)
            continue
        if op.key != name:
            name = op.key
            if name not in keys:
                keys[name] = {initial: BEFORE_ALL}, {initial: BEFORE_ALL}
                hot = hot and len(keys) == 1
            first, last = keys[name]
        try:
            if op.f == "read":
                value = op.output
                f = first[value]
                last[value] = invoked
                if f < invoked:
                    if hot:
                        forward.add(value)
                elif op.return_ns < f:  # type: ignore[operator]
                    first[value] = op.return_ns  # type: ignore[assignment]
                if value is not True and value is not False:
                    continue  # Python takes them for 1 and 0
            elif op.f == "write":
                value = op.value
                kind = type(value)
                if kind is not int and kind not in PLAIN:
                    pass
                elif value not in first:
                    first[value], last[value] = op.return_ns, invoked  # type: ignore[assignment]
                    continue
                elif (op.key, value) in waiting and first[value] >= invoked:
                    waiting.remove((op.key, value))
                    first[value] = min(first[value], op.return_ns)  # type: ignore[type-var, assignment]
                    last[value] = invoked
                    continue
        except KeyError:  # read, and not written so far
            if type(value) in PLAIN:
                waiting.add((op.key, value))
                first[value], last[value] = op.return_ns, invoked  # type: ignore[assignment]
                continue
        except TypeError:  # no dictionary key
            pass
        left.add(op.key)
        if len(left) == len(keys):  # a history of another kind: its time is not wasted here
            return {op.key for op in ops}, 0
    _settle(keys, rest, waiting, left)
    for key, (first, last) in keys.items():
        if key in left:
            continue
        if _clash(key, ops, first, last, forward) if hot else _swept(first, last):
            left.add(key)
    return left, len(keys.keys() - left)


def _clash(key: Key, ops: Sequence[Op], first: Values, last: Values, forward: set[Any]) -> bool:
    """Two zones of the only key that must each stand before the other: the same as `sweep`.

    Of a hot key few zones are forward, so to sort all of them is most of a sweep. The others that
    lie inside a forward zone have a call in it, and the operations are in order of their calls.
    """
    zones = sorted([(first[value], last[value], value) for value in forward], key=itemgetter(0))
    if any(f < s for (_, s, _), (f, _, _) in pairwise(zones)):
        return True
    call = attrgetter("invoke_ns")
    for f, s, inside in zones:
        begin = bisect_right(ops, f, key=call)
        called = ops[begin : bisect_left(ops, s, begin, key=call)]
        # Another key may have operations, too, that were never answered.
        values = {
            op.value if op.f == "write" else op.output
            for op in called
            if op.key == key and op.type != "fail"
        }
        for value in values:
            if value in first and first[value] < s and f < last[value] and value != inside:
                return True
    return False


def _swept(first: Values, last: Values) -> bool:
    return sweep([*first.values()], [*last.values()]) is not None


def _settle(
    keys: dict[Key, tuple[Values, Values]],
    rest: list[Op],
    waiting: set[tuple[Key, Any]],
    left: set[Key],
) -> None:
    """Match what was not acknowledged with the values that were read and not written so far.

    A pending write that nobody read may never have happened. Leaves alone the keys whose
    operations of unknown fate say more than that.
    """
    for op in rest:
        key = op.key
        if op.type == "fail" and op.f in ("read", "write", "delete"):
            continue
        if op.f == "read":
            continue
        if key not in keys or op.f != "write" or type(op.value) not in PLAIN:
            left.add(key)
            continue
        first, last = keys[key]
        if op.value not in first:
            # Its value is taken now: another write of it would find it.
            first[op.value], last[op.value] = NEVER, BEFORE_ALL
        elif (key, op.value) in waiting and first[op.value] >= op.invoke_ns:
            waiting.remove((key, op.value))
            last[op.value] = max(last[op.value], op.invoke_ns)
        else:
            left.add(key)
    left |= {key for key, _ in waiting}
