"""From a verdict to a handful of operations that show it, with the anomaly's standard name."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from labs.harness.checkers import wgl
from labs.harness.checkers.register_order import order
from labs.harness.checkers.register_search import RegisterSearch
from labs.harness.checkers.registers import KeyOps
from labs.harness.checkers.result import Counterexample, freeze
from labs.harness.checkers.story import tell
from labs.harness.checkers.values import found, left
from labs.harness.checkers.zones import NEVER, Conflict
from labs.harness.history import History, Op

MAX_OPS = 6


def _end(op: Op) -> int:
    return NEVER if op.return_ns is None else op.return_ns


def _show(op: Op) -> str:
    value = op.output if op.f == "read" else op.extra.get("current", op.value[0])
    return "nothing" if value is None else repr(value)


def tell_conflict(history: History, key: str | None, conflict: Conflict) -> Counterexample:
    """The story of a conflict that zones found: two clusters, at most six operations."""
    name, summary, forbidden = _RULES[conflict.rule](history, conflict)
    ops = sorted(conflict.ops[:MAX_OPS], key=lambda op: (op.invoke_ns, op.index))
    return tell(history, Counterexample(name, summary, ops, key, forbidden, _reason(summary)))


def _reason(summary: str) -> str:
    return summary.partition(" although ")[2].removesuffix(" before")


_Told = tuple[str, str, tuple[int, int] | None]


def _unwritten(history: History, conflict: Conflict) -> _Told:
    ops = conflict.ops
    op = ops[0]
    value = found(op)
    refused = [w for w in history.ops if w.type == "fail" and w.key == op.key and w.f == "write"]
    for write in refused:
        if freeze(write.value) == value:
            ops.append(write)
            return "aborted read (G1a)", f"{_show(op)} was read although its write failed", None
    return "thin-air read", f"{_show(op)} was read although nobody wrote it", None


def _early(history: History, conflict: Conflict) -> _Told:
    del history
    read, write = conflict.ops[:2]
    summary = f"{_show(read)} was read before its write was called"
    return "read from the future", summary, (read.invoke_ns, write.invoke_ns)


def _order(history: History, conflict: Conflict) -> _Told:
    """Two values that each had to come before the other."""
    del history
    ops = conflict.ops
    stale = max((op for op in ops if op.f != "write"), key=lambda op: op.invoke_ns, default=None)
    if stale is None:
        return "cycle", "two values each had to come before the other", None
    mine = stale in conflict.first
    seen = min((op for op in ops if (op in conflict.first) != mine), key=_end)
    what = _show(seen) if seen.f == "read" else repr(left(seen))
    how = "read" if seen.f == "read" else "acknowledged"
    summary = f"{_show(stale)} was read although {what} had been {how} before"
    # A successful cas on an old value overwrote what came since, unseen.
    name = "lost update" if stale.f == "cas" and stale.type == "ok" else "stale read"
    return name, summary, (_end(seen), _end(stale))


def _two_cas(history: History, conflict: Conflict) -> _Told:
    del history
    first, second = sorted(conflict.ops[-2:], key=_end)
    old = second.value[0]
    if _end(first) < second.invoke_ns:
        new, newer = first.value[1], second.value[1]
        summary = f"{old!r} was replaced by {newer!r} although {new!r} had replaced it before"
        return "lost update", summary, (_end(first), _end(second))
    return "lost update", f"two compare-and-sets both replaced {old!r}", None


def _cas_order(history: History, conflict: Conflict) -> _Told:
    del history
    ops = conflict.ops
    late = max(ops, key=lambda op: op.invoke_ns)
    seen = min(ops, key=_end)
    shown = _show(late) if late.f != "write" else repr(late.value)
    newer = _show(seen) if seen.f == "read" else repr(left(seen))
    how = "read" if seen.f == "read" else "acknowledged"
    summary = f"{shown} was there although {newer}, which replaced it, had been {how} before"
    name = "stale read" if late.f == "read" or late.type == "fail" else "read from the future"
    return name, summary, (_end(seen), late.invoke_ns)


def _cas_cycle(history: History, conflict: Conflict) -> _Told:
    del history, conflict
    name = "circular information flow (G1c)"
    return name, "compare-and-sets that each need the value of the other", None


_RULES = {
    "unwritten": _unwritten,
    "early": _early,
    "order": _order,
    "two-cas": _two_cas,
    "cas-order": _cas_order,
    "cas-cycle": _cas_cycle,
}


def tell_search(
    history: History,
    key: Hashable,
    search: RegisterSearch | wgl.Search,
    ops: KeyOps | None,
    initial: Any,
) -> Counterexample:
    """The story of a search that failed: a plain pattern if there is one, else where it ended."""
    name = key if isinstance(key, str) else None
    if ops is not None and (pattern := _stale(ops, initial)) is not None:
        anomaly, summary, evidence, forbidden = pattern
        reason = _reason(summary)
        story = Counterexample(anomaly, summary, evidence, name, forbidden, reason)
        return tell(history, story)
    if isinstance(search, RegisterSearch):
        path, rest = order(search, search.deepest_path), search.ops
    else:
        path, rest = search.order(search.deepest_path), search.ops
    taken = {id(op) for op in path}
    waiting = sorted((op for op in rest if id(op) not in taken), key=_end)
    stuck = waiting[0]
    changing = [op for op in path if op.f != "read"]
    rivals = [op for op in waiting[1:] if op.invoke_ns <= _end(stuck)]
    # Who may have written what it found, then what stood before it, then what was still open.
    writers = [op for op in rest if left(op) == found(stuck) and op.invoke_ns <= _end(stuck)]
    evidence = [stuck, *writers[-2:], *changing[-2:], *path[-1:], *rivals[:2]][:MAX_OPS]
    unique = list({id(op): op for op in evidence}.values())
    unique.sort(key=lambda op: (op.invoke_ns, op.index))
    summary = (
        f"no order lets process {stuck.process}'s {stuck.f} take effect before it returned: "
        f"the longest one found has {len(path)} of {len(rest)} operations"
    )
    forbidden = (stuck.invoke_ns, _end(stuck))
    story = Counterexample("not linearizable", summary, unique[:MAX_OPS], name, forbidden)
    return tell(history, story)


def _stale(ops: KeyOps, initial: Any) -> tuple[str, str, list[Op], tuple[int, int] | None] | None:
    """A read all of whose writers had certainly been overwritten when it was called."""
    changes = [*ops.writes, *ops.swaps, *ops.deletes]
    finders = [*ops.reads, *ops.swaps, *(op for op in ops.refused if "current" in op.extra)]
    witnesses = sorted([*changes, *ops.reads], key=_end)
    for read in sorted(finders, key=_end):
        value = found(read)
        writers = [op for op in (*changes, *ops.pending) if left(op) == value and op is not read]
        writers = [op for op in writers if op.invoke_ns <= _end(read)]
        if not writers and value != freeze(initial):
            return "thin-air read", f"{_show(read)} was read, but nobody wrote it", [read], None
        # The latest instant at which the value can have begun to be overwritten.
        last = max(map(_end, writers), default=-1)
        for op in witnesses:
            if _end(op) >= read.invoke_ns:
                break
            if op.invoke_ns > last and value not in (left(op), found(op)):
                latest = max(writers, key=_end, default=None)
                evidence = [*([latest] if latest else []), op, read]
                shown = _show(op) if op.f == "read" else repr(left(op))
                how = "read" if op.f == "read" else "acknowledged"
                summary = f"{_show(read)} was read although {shown} had been {how} before"
                return "stale read", summary, evidence, (_end(op), _end(read))
    return None
