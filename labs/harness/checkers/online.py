"""`OnlineRegister`: red at the very completion that broke linearizability.

The zones of `zones.py`, kept while the run goes on. Completions arrive in the order of their
returns, so the f of a cluster (its least return) is fixed by its first completion, later clusters
have a greater f, and only s (the greatest call) still grows. While nothing is wrong forward zones
are disjoint, so a zone that grows is compared with its neighbour, and with the few clusters that
completed inside it: at most as many as there were open operations, or one of them proves a
conflict.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Any

from labs.harness.checkers.result import Valid, freeze
from labs.harness.checkers.zones import BEFORE_ALL
from labs.harness.history import Op


@dataclass(slots=True)
class _Key:
    """The clusters of one key, numbered in the order of their first completion."""

    first: list[int] = field(default_factory=list)  # f; increasing
    last: list[int] = field(default_factory=list)  # s
    number: dict[Any, int] = field(default_factory=dict)  # value -> cluster
    forward: list[int] = field(default_factory=list)  # numbers of forward clusters, increasing
    calls: dict[Any, int] = field(default_factory=dict)  # value -> when its write was called
    decidable: bool = True


class OnlineRegister:
    """Reads and writes of unique values, per key; feed it events in the order of time.

    Call `invoke` with every write that is about to be sent, and `complete` with every operation
    that returned. A key with a cas, a delete or a repeated value cannot be judged so: it is left
    out from then on, and the verdict is "unknown" unless another key is wrong.

    Attributes:
        violation: the operation whose completion broke the promise.
        against: the value that contradicts it (None: the value was never written).
    """

    def __init__(self, initial: Any = None) -> None:
        self._initial = freeze(initial)
        self._keys: dict[str | None, _Key] = {}
        self.violation: Op | None = None
        self.against: Any = None

    @property
    def valid(self) -> Valid:
        """So far: True, False for good, or "unknown"."""
        if self.violation is not None:
            return False
        return True if all(key.decidable for key in self._keys.values()) else "unknown"

    def invoke(self, f: str, key: str | None, value: Any, time_ns: int) -> None:
        """An operation is about to be sent."""
        if f == "read":
            return
        of_key = self._key(key)
        name = freeze(value)
        if f != "write" or name in of_key.calls or name == self._initial:
            of_key.decidable = False
            return
        of_key.calls[name] = time_ns

    def complete(self, op: Op) -> bool:
        """An operation returned; False if this broke linearizability (or it was broken before)."""
        if op.type != "ok" or op.return_ns is None or self.violation is not None:
            return self.violation is None
        key = self._key(op.key)
        if not key.decidable:
            return True
        value = freeze(op.output if op.f == "read" else op.value)
        at = key.number.get(value)
        if at is None:
            called = key.calls.get(value)
            if called is None:
                return self._wrong(op, None)
            key.number[value] = len(key.first)
            key.first.append(op.return_ns)
            key.last.append(called if called > op.invoke_ns else op.invoke_ns)
            # Its zone is backward, and nothing that has completed was called after this instant,
            # so it conflicts only with a forward zone around it, and there is none yet.
            return self._inside(key, len(key.first) - 1, op)
        if op.invoke_ns <= key.last[at]:
            return True
        key.last[at] = op.invoke_ns
        return self._inside(key, at, op)

    def _inside(self, key: _Key, at: int, op: Op) -> bool:
        """Compare a cluster that is new, or whose s has grown, with those around it."""
        first, last, forward = key.first, key.last, key.forward
        f, s = first[at], last[at]
        if s <= f:
            place = bisect_left(forward, bisect_left(first, s))
            if place and last[forward[place - 1]] > f and forward[place - 1] != at:
                return self._wrong(op, self._value(key, forward[place - 1]))
            return True
        place = bisect_left(forward, at)
        if place and last[forward[place - 1]] > f:
            return self._wrong(op, self._value(key, forward[place - 1]))
        other = at + 1
        while other < len(first) and first[other] < s:
            if last[other] > f:
                return self._wrong(op, self._value(key, other))
            other += 1
        if place == len(forward) or forward[place] != at:
            insort(forward, at)
        return True

    def _wrong(self, op: Op, against: Any) -> bool:
        self.violation, self.against = op, against
        return False

    def _value(self, key: _Key, number: int) -> Any:
        return next(value for value, at in key.number.items() if at == number)

    def _key(self, name: str | None) -> _Key:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = _Key()
            # The initial value was written, and first seen, before everything.
            key.first.append(BEFORE_ALL)
            key.last.append(BEFORE_ALL)
            key.number[self._initial] = 0
        return key
