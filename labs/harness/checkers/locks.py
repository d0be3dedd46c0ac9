"""Locks: never two holders, and a resource that refuses the token of a former holder."""

from __future__ import annotations

from typing import Any

from labs.harness.checkers.result import Counterexample, Result
from labs.harness.checkers.story import tell
from labs.harness.history import History, Op

_NEVER = 1 << 62


def check_lock(history: History, *, lease: bool = True, explain: bool = True) -> Result:
    """Operations: `acquire`, `release`, and `write` to the resource that the lock protects.

    A process holds the lock for sure from the return of its acquire to the call of its release.
    Two such times of one key that overlap are *two holders*. Without `lease`, a lock never released
    is held for ever; with it, one never released proves nothing.

    Fencing: an acquire returns a token (its output, or `extra["token"]`). Of two acquires, one over
    before the other began, the later has the greater token. A `write` carries its token in
    `extra["token"]`: one accepted after a write with a greater token was accepted is a *fencing
    violation*; refused (`fail`) is right.

    `stats`: acquired, two_holders, token_order, fencing (counts).
    """
    holds: dict[str | None, list[tuple[int, int, Op]]] = {}
    held: dict[tuple[int, str | None], Op] = {}
    acquires: dict[str | None, list[Op]] = {}
    writes: dict[str | None, list[Op]] = {}
    for op in history.ops:
        place = (op.process, op.key)
        if op.f == "acquire" and op.type == "ok":
            held[place] = op
            acquires.setdefault(op.key, []).append(op)
        elif op.f == "release" and op.type != "fail" and place in held:
            acquired = held.pop(place)
            span = (acquired.return_ns or 0, op.invoke_ns, acquired)
            holds.setdefault(op.key, []).append(span)
        elif op.f == "write" and op.type == "ok" and "token" in op.extra:
            writes.setdefault(op.key, []).append(op)
    if not lease:
        for (_, key), op in held.items():
            holds.setdefault(key, []).append((op.return_ns or 0, _NEVER, op))
    two = [pair for spans in holds.values() for pair in _overlaps(spans)]
    order = [pair for ops in acquires.values() for pair in _inversions(ops)]
    fencing = [pair for ops in writes.values() for pair in _inversions(ops)]
    stats: dict[str, Any] = {"acquired": sum(map(len, acquires.values()))}
    stats |= {"two_holders": len(two), "token_order": len(order), "fencing": len(fencing)}
    bad = (
        ("fencing violation", "a write with an outdated token was accepted", fencing),
        ("two holders", "two processes held the lock at once", two),
        ("token order", "a later holder got no greater token", order),
    )
    for name, summary, pairs in bad:
        if pairs:
            first, second = pairs[0]
            story = Counterexample(name, summary, [first, second], first.key)
            if pairs is fencing:
                assert first.return_ns is not None
                story.forbidden = (first.return_ns, second.return_ns or second.invoke_ns)
                story.reason = f"token {_token(first)} had been accepted"
            told = tell(history, story) if explain else None
            return Result(False, "lock", told, stats=stats)
    return Result(True if acquires else "unknown", "lock", stats=stats)


def _overlaps(spans: list[tuple[int, int, Op]]) -> list[tuple[Op, Op]]:
    """Spans that overlap beyond doubt, each with the one that reaches furthest before it."""
    found: list[tuple[Op, Op]] = []
    spans.sort(key=lambda span: (span[0], span[1]))
    end, holder = -1, None
    for begin, over, op in spans:
        if holder is not None and begin < end and op.process != holder.process:
            found.append((holder, op))
        if over > end:
            end, holder = over, op
    return found


def _token(op: Op) -> Any:
    return op.extra.get("token", op.output if op.f == "acquire" else None)


def _inversions(ops: list[Op]) -> list[tuple[Op, Op]]:
    """(earlier, later) beyond doubt, where the later one's token is not the greater.

    Equal tokens are right for two writes (one holder writes twice), not for two acquires.
    """
    known = [op for op in ops if type(_token(op)) is int]
    by_return = sorted(known, key=lambda op: op.return_ns or 0)
    found: list[tuple[Op, Op]] = []
    at, greatest = 0, None
    for op in sorted(known, key=lambda op: op.invoke_ns):
        while at < len(by_return) and (by_return[at].return_ns or 0) < op.invoke_ns:
            if greatest is None or _token(by_return[at]) > _token(greatest):
                greatest = by_return[at]
            at += 1
        if greatest is not None:
            worse = _token(op) < _token(greatest)
            if worse or (op.f == "acquire" and _token(op) == _token(greatest)):
                found.append((greatest, op))
    return found
