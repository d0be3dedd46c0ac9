"""The common case first: all keys of a register at once, each read given to a write as it comes.

Theory of operation. Say which write every read observed, and the rest is easy, whether values are
unique or not: a write and its readers are a *block*, and the blocks can be put in order iff no two
of them must each stand before the other. That is the theorem of `zones.py`, with its f and s: the
least return and the greatest call in a block. A must stand before B iff f(A) < s(B).

Operations come in the order of their calls, so at the call c of the next one no s is beyond c. A
block with f >= c (none of its operations has returned) need not stand before any other so far: it
is *free*. One with f < c is *sealed*. One block, the *last*, need not stand before any other even
if it is sealed: its f is at least s of each. Therefore

- a write is always possible: its block is free, and becomes the last one;
- a read of the last block's value is always possible: it only raises s of the last block to c;
- a read that raises s of another block B to c puts all that is sealed before B: possible iff
  f(B) is at least s of every sealed block. If the last one is sealed, a free one, or B if there is
  none, becomes the last;
- a read of a value that no open block has waits for its write, which has to be called before the
  reader returns.

With repeated values a read may have several blocks to choose from: the newest possible one is taken
and never given back. So this pass only ever says "linearizable". A key where it finds no block, one
with many blocks open at a time, with a cas, a delete or an operation of unknown fate is left to the
algorithms that can say more. Nothing is remembered of a key but a handful of blocks, no matter how
many operations it has: that is why this comes before the zones (`zone_pass.py`), which keep two
instants for every value and are bound by the memory's speed at a million operations.

Most writes find the last block sealed and no other one open. Then two blocks are enough to go on:
the new one, and the one *before* it, which can be read as long as the new one is free. All that was
there before those two can be forgotten: f of either is at least s of any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labs.harness.checkers.result import PLAIN
from labs.harness.checkers.zones import BEFORE_ALL
from labs.harness.history import Op

Key = str | None

MOST_OPEN = 6
"""Blocks of a key that are remembered beside the last one; a key with more is left to the zones."""

NO_TIME = BEFORE_ALL - 1
"""Before every f and s."""

_NONE = object()
"""In place of a value: equal to nothing."""


class _Register:
    """One key as of its latest operation.

    Attributes:
        value, f, s: the last block.
        before: the value of the block before it, if `others` is empty.
        others: (value, f, s) of all blocks but the last one, if more than one may be read again.
        most: at least every f and s of those.
        waiting: value -> the least return of the reads that observed a write not called yet.
    """

    __slots__ = ("before", "f", "most", "others", "s", "value", "waiting")

    def __init__(self, initial: Any) -> None:
        self.value = initial
        self.f = self.s = BEFORE_ALL
        self.before: Any = _NONE
        self.others: list[tuple[Any, int, int]] = []
        self.most = NO_TIME
        self.waiting: dict[Any, int] = {}


def hard(ops: Sequence[Op], initial: Any) -> tuple[Sequence[Op], int]:
    """The operations of keys that this pass could not prove linearizable; how many it did prove."""
    if type(initial) not in PLAIN:
        return ops, 0
    keys: dict[Key, _Register | None] = {}  # None: left to others
    left: set[Key] = set()
    latest = BEFORE_ALL
    for op in ops:  # this loop is most of the time of a check
        called = op.invoke_ns
        if called < latest:  # not in the order of the calls
            return ops, 0
        latest = called
        try:
            key = keys[op.key]
        except KeyError:
            key = keys[op.key] = _Register(initial)
        if key is None:
            continue
        if op.type == "ok":
            returned: int = op.return_ns  # type: ignore[assignment]
            if op.f == "read":
                value = op.output
                if value == key.value:
                    if value is not True and value is not False:  # Python takes them for 1 and 0
                        key.s = called
                        if returned < key.f:
                            key.f = returned
                        continue
                elif type(value) in PLAIN:
                    if not _joined(key, value, called, returned):
                        key.waiting[value] = min(key.waiting.get(value, returned), returned)
                    continue
            elif op.f == "write":
                value = op.value
                kind = type(value)
                if kind is int or kind in PLAIN:
                    if key.f < called and key.most < key.s:
                        # All others have to stand before the last one, and that one is sealed.
                        key.before, room = key.value, True
                        if key.others:
                            key.others, key.most = [], NO_TIME
                    else:
                        room = _kept(key, called)
                    key.value = value
                    key.f = returned
                    key.s = called
                    if room and (not key.waiting or value not in key.waiting or _observed(key)):
                        continue
        elif op.f == "read" or (op.type == "fail" and op.f in ("write", "delete")):
            continue  # it says nothing
        keys[op.key] = None
        left.add(op.key)
        if len(left) == len(keys):  # a history of another kind: its time is not wasted here
            return ops, 0
    left |= {name for name, key in keys.items() if key is not None and key.waiting}
    return [op for op in ops if op.key in left] if left else (), len(keys) - len(left)


def _kept(key: _Register, now: int) -> bool:
    """Remember the last block, for another one follows it; False: there are too many."""
    others = key.others
    if not others:  # the one before the last can still be read
        # That one stands before the last: f is less than s of the last, which is all that matters.
        others.append((key.before, key.s - 1, now))
        key.most = now
    elif len(others) == MOST_OPEN:
        # What has to stand before a sealed block cannot be read any more. It can be forgotten, too:
        # f of what is kept is at least s of what is gone.
        sealed = [s for _, f, s in (*others, (None, key.f, key.s)) if f < now]
        latest = max(sealed, default=BEFORE_ALL)
        kept = [block for block in others if block[1] >= latest or block[2] == latest]
        key.others = others = kept
    others.append((key.value, key.f, key.s))
    key.most = max(key.most, key.f, key.s)
    return len(others) <= MOST_OPEN


def _joined(key: _Register, value: Any, called: int, returned: int) -> bool:
    """Put a read into the newest block of its value that can take it, other than the last one."""
    others = key.others
    if not others:
        return bool(value == key.before) and key.f >= called
    for at in range(len(others) - 1, -1, -1):
        if others[at][0] == value and _may_follow_sealed(key, at, called):
            break
    else:
        return False
    others[at] = (value, min(others[at][1], returned), called)
    key.most = max(key.most, key.f, called)
    if key.f < called:  # sealed: it stands before this block now, so it is the last no longer
        free = next((n for n, (_, f, _) in enumerate(others) if f >= called and n != at), at)
        block, others[free] = others[free], (key.value, key.f, key.s)
        key.value, key.f, key.s = block
    return True


def _may_follow_sealed(key: _Register, at: int, now: int) -> bool:
    """All sealed blocks may stand before `others[at]`."""
    f = key.others[at][1]
    if key.f < now and f < key.s:
        return False
    for n, (_, other_f, other_s) in enumerate(key.others):
        if other_f < now and f < other_s and n != at:
            return False
    return True


def _observed(key: _Register) -> bool:
    """The last block's write was read before; was it called before the first reader returned?"""
    key.f = min(key.f, key.waiting.pop(key.value))
    return key.f >= key.s
