"""Regular registers (Lamport, *On Interprocess Communication*, 1986, part II): what a cache owes.

One writer per key, so that its writes have an order without any clock. A read that overlaps no
write returns the last one before it; a read that overlaps some returns the one before them or one
of them. Weaker than linearizable by one thing: of two reads during a write the first may see the
new value and the second the old. A cache-aside reader during an invalidation does just that, and
nobody is harmed; but who *knows* that a write has been acknowledged never sees the value before.

A write of unknown fate (`info`) may take effect at any time after its call, so its value is allowed
from then on.
"""

from __future__ import annotations

from labs.harness.checkers.result import Counterexample, Result, freeze
from labs.harness.checkers.story import tell
from labs.harness.history import History, Op


def check_regular(history: History) -> Result:
    """Does every key behave as a regular register with one writer?

    Values of a key are unique. `stats`: `reads` judged, `stale` (a value that had been overwritten
    when the read began), `phantoms` (a value that nobody had written to that key).
    """
    writes: dict[str | None, list[Op]] = {}
    reads: list[Op] = []
    for op in history.ops:
        if op.f == "write" and op.type != "fail":
            writes.setdefault(op.key, []).append(op)
        elif op.f == "read" and op.type == "ok":
            reads.append(op)
    stale: list[tuple[Op, Op]] = []
    phantoms: list[Op] = []
    for read in reads:
        mine = writes.get(read.key, [])
        newest = _last_before(mine, read)
        if not _written(mine, read):
            phantoms.append(read)
        elif newest is not None and _older(mine, read, newest):
            stale.append((newest, read))
    stats = {"reads": len(reads), "stale": len(stale), "phantoms": len(phantoms)}
    if not stale and not phantoms:
        return Result(True, "regular register", stats=stats)
    if phantoms:
        read = phantoms[0]
        found = Counterexample(
            "phantom value", f"{len(phantoms)} reads of what nobody wrote", [read], read.key
        )
    else:
        write, read = stale[0]
        assert write.return_ns is not None
        found = Counterexample(
            "stale read",
            f"{len(stale)} of {len(reads)} reads returned what had been overwritten",
            [write, read],
            read.key,
            (write.return_ns, read.invoke_ns),
            f"{write.value!r} had been acknowledged",
        )
    tell(history, found)
    return Result(False, "regular register", found, stats=stats)


def _last_before(writes: list[Op], read: Op) -> Op | None:
    """The last write that was acknowledged before the read began."""
    done = [
        op
        for op in writes
        if op.type == "ok" and op.return_ns is not None and op.return_ns < read.invoke_ns
    ]
    return done[-1] if done else None


def _written(writes: list[Op], read: Op) -> bool:
    if read.output is None:  # absent: as long as no write need have happened, which `_older` sees
        return True
    return any(
        freeze(op.value) == freeze(read.output)
        and (read.return_ns is None or op.invoke_ns <= read.return_ns)
        for op in writes
    )


def _older(writes: list[Op], read: Op, newest: Op) -> bool:
    """Is what was read certainly older than `newest`?"""
    if read.output is None:
        return True
    source = next(op for op in writes if freeze(op.value) == freeze(read.output))
    return source.type == "ok" and source.invoke_ns < newest.invoke_ns
