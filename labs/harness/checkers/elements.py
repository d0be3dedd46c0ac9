"""Sets, queues and unique ids: was every acknowledged element kept, once, and in order?"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any

from labs.harness.checkers.result import Counterexample, Result, freeze, thaw
from labs.harness.checkers.story import short, tell
from labs.harness.history import History, Op

_NEVER = 1 << 62


def check_set(history: History, *, linearizable: bool = False, explain: bool = True) -> Result:
    """Elements added and the sets read: none lost, none twice, none that nobody added.

    Jepsen's set-full. An element is known from the acknowledgement of its add, or from the return
    of the first read that shows it. It is *lost* if a read called after that misses it and no later
    read shows it; *stale* if a later read shows it again (bad only if `linearizable`).

    `stats`: lost, stale, duplicated, unexpected (lists of elements), never_read, stable (counts).
    """
    adds: dict[Any, Op] = {}
    for op in history.ops:
        if op.f == "add" and op.type != "fail":
            adds[freeze(op.value)] = op
    reads = [op for op in history.ops if op.f == "read" and op.type == "ok"]
    reads.sort(key=lambda op: op.invoke_ns)
    shown: list[set[Any]] = []
    duplicated: dict[Any, Op] = {}
    unexpected: dict[Any, Op] = {}
    known = {key: op.return_ns for key, op in adds.items() if op.return_ns is not None}
    last_seen: dict[Any, int] = {}
    for at, read in enumerate(reads):
        elements = list(map(freeze, read.output or ()))
        counts = Counter(elements)
        shown.append(set(counts))
        for element, count in counts.items():
            if count > 1:
                duplicated.setdefault(element, read)
            if element not in adds:
                unexpected.setdefault(element, read)
            known[element] = min(known.get(element, _NEVER), read.return_ns or _NEVER)
            last_seen[element] = at
    calls = [op.invoke_ns for op in reads]
    lost: dict[Any, Op] = {}
    stale: dict[Any, Op] = {}
    never_read = 0
    for element, since in known.items():
        after = bisect_left(calls, since + 1)
        missing = [at for at in range(after, len(reads)) if element not in shown[at]]
        if after == len(reads) and element not in last_seen:
            never_read += 1
        elif missing:
            gone = missing[-1] > last_seen.get(element, -1)
            (lost if gone else stale)[element] = reads[missing[-1]]
    stats: dict[str, Any] = {
        "lost": list(map(thaw, lost)),
        "stale": list(map(thaw, stale)),
        "duplicated": list(map(thaw, duplicated)),
        "unexpected": list(map(thaw, unexpected)),
        "never_read": never_read,
        "stable": len(known) - len(lost) - len(stale) - never_read,
    }
    bad = [("lost element", lost), ("duplicated element", duplicated)]
    bad += [("thin-air read", unexpected)] + ([("stale read", stale)] if linearizable else [])
    return _verdict(history, "set-full", bad, adds, stats, explain)


def _verdict(
    history: History,
    algorithm: str,
    bad: list[tuple[str, dict[Any, Op]]],
    origins: dict[Any, Op],
    stats: dict[str, Any],
    explain: bool,
) -> Result:
    for name, elements in bad:
        if elements:
            if not explain:
                return Result(False, algorithm, stats=stats)
            element, op = next(iter(elements.items()))
            origin = origins.get(element)
            ops = [op] if origin is None or origin is op else [origin, op]
            what = short(thaw(element[1] if algorithm == "queue" else element))
            others = f" (and {len(elements) - 1} more)" if len(elements) > 1 else ""
            summary = f"{what} {_SAID[name]}{others}"
            story = Counterexample(name, summary, ops, op.key)
            return Result(False, algorithm, tell(history, story), stats=stats)
    if not any(op.type == "ok" and op.f in _ANSWERS for op in history.ops):
        return Result("unknown", algorithm, stats=stats)
    return Result(True, algorithm, stats=stats)


_SAID = {
    "lost element": "had been added, and no later read shows it",
    "duplicated element": "was twice in one read",
    "thin-air read": "was read, but nobody put it there",
    "stale read": "was missed by a read although it was there before and after",
    "lost message": "had been enqueued, and never came out",
    "duplicated message": "came out more often than it was put in",
    "duplicated id": "was given out twice",
}
_ANSWERS = ("read", "dequeue", "drain", "generate")


def check_queue(history: History, *, drained: bool = True, explain: bool = True) -> Result:
    """Elements enqueued and dequeued: none lost, none twice, none reordered within its key.

    A dequeue of None found the queue empty; a `drain` returns a list. With `drained` (the history
    ends with the queue emptied), an acknowledged element that never came out is lost; as many as
    there are dequeues of unknown fate may have gone to those, and then the verdict is "unknown".
    Reordered: a was enqueued before b was, and b dequeued before a was, both beyond doubt.

    `stats`: lost, duplicated, unexpected, reordered (pairs), recovered (unacknowledged, came out).
    """
    enqueued: dict[Any, Op] = {}
    tried: Counter[Any] = Counter()
    for op in history.ops:
        if op.f == "enqueue" and op.type != "fail":
            enqueued[op.key, freeze(op.value)] = op
            tried[op.key, freeze(op.value)] += 1
    out: dict[Any, list[Op]] = {}
    open_dequeues = 0
    for op in history.ops:
        if op.f == "dequeue" and op.type == "ok" and op.output is not None:
            out.setdefault((op.key, freeze(op.output)), []).append(op)
        elif op.f == "drain" and op.type == "ok":
            for item in op.output or ():
                out.setdefault((op.key, freeze(item)), []).append(op)
        elif op.f in ("dequeue", "drain") and op.type == "info":
            open_dequeues += 1
    missing = {e: op for e, op in enqueued.items() if op.type == "ok" and e not in out}
    lost = missing if drained else {}
    duplicated = {e: ops[-1] for e, ops in out.items() if len(ops) > max(tried[e], 1)}
    unexpected = {e: ops[0] for e, ops in out.items() if e not in enqueued}
    reordered = _reordered(enqueued, out)
    stats: dict[str, Any] = {
        "lost": [thaw(element) for _, element in lost],
        "duplicated": [thaw(element) for _, element in duplicated],
        "unexpected": [thaw(element) for _, element in unexpected],
        "reordered": [(thaw(a[1]), thaw(b[1])) for a, b in reordered],
        "recovered": sum(op.type == "info" and e in out for e, op in enqueued.items()),
    }
    unsure = 0 < len(lost) <= open_dequeues
    bad = [("lost message", {} if unsure else lost), ("duplicated message", duplicated)]
    bad.append(("thin-air read", unexpected))
    result = _verdict(history, "queue", bad, enqueued, stats, explain)
    if result.valid is False:
        return result
    if reordered:
        story = None
        if explain:
            a, b = reordered[0]
            ops = [enqueued[a], enqueued[b], out[b][0], out[a][0]]
            summary = f"{thaw(a[1])!r} was enqueued before {thaw(b[1])!r} and dequeued after it"
            story = tell(history, Counterexample("reordered message", summary, ops, a[0]))
        return Result(False, "queue", story, stats=stats)
    if unsure:
        result.valid = "unknown"
    return result


def _reordered(enqueued: dict[Any, Op], out: dict[Any, list[Op]]) -> list[tuple[Any, Any]]:
    """Pairs (a, b), at most one for each b: a sweep in order of enqueueing."""
    found: list[tuple[Any, Any]] = []
    keys = {element[0] for element in enqueued}
    for key in keys:
        both = [e for e, op in enqueued.items() if e[0] == key and op.type == "ok" and e in out]
        by_call = sorted(both, key=lambda e: enqueued[e].invoke_ns)
        by_return = sorted(both, key=lambda e: enqueued[e].return_ns or 0)
        at, latest = 0, None
        for b in by_call:
            while at < len(by_return) and (enqueued[by_return[at]].return_ns or 0) < (
                enqueued[b].invoke_ns
            ):
                a = by_return[at]
                if latest is None or out[a][0].invoke_ns > out[latest][0].invoke_ns:
                    latest = a
                at += 1
            if latest is not None and (out[b][0].return_ns or _NEVER) < out[latest][0].invoke_ns:
                found.append((latest, b))
    return found


def check_unique_ids(history: History, *, explain: bool = True) -> Result:
    """Every `generate` that was answered returned an id of its own. `stats["duplicated"]`."""
    first: dict[Any, Op] = {}
    duplicated: dict[Any, Op] = {}
    for op in history.ops:
        if op.f == "generate" and op.type == "ok":
            name = freeze(op.output)
            if name in first:
                duplicated.setdefault(name, op)
            else:
                first[name] = op
    stats: dict[str, Any] = {"ids": len(first), "duplicated": list(map(thaw, duplicated))}
    bad = [("duplicated id", duplicated)]
    return _verdict(history, "unique ids", bad, first, stats, explain)
