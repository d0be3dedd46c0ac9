"""The four session guarantees (Terry et al. 1994), and convergence.

Which of two values is older is taken from the versions in the replies. Without versions only this
is certain: nothing is older than anything, and a process' own writes are in its order; where that
does not decide, the verdict is "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from labs.harness.checkers.result import Counterexample, Result, Valid, freeze
from labs.harness.checkers.story import tell
from labs.harness.history import History, Op

Guarantee = Literal["ryw", "mr", "mw", "wfr"]
NAMES: dict[str, str] = {
    "ryw": "read your writes",
    "mr": "monotonic reads",
    "mw": "monotonic writes",
    "wfr": "writes follow reads",
}


@dataclass(slots=True)
class _Session:
    """What a process has written and read so far, per key: the latest of each."""

    written: dict[str | None, Op] = field(default_factory=dict)
    read: dict[str | None, Op] = field(default_factory=dict)
    owed: dict[str | None, tuple[Op, Op]] = field(default_factory=dict)  # key -> (must see, why)


class _Check:
    def __init__(self, history: History) -> None:
        self.history = history
        self.undecided = 0
        self.compared = 0
        self.writes: dict[tuple[str | None, Any], Op] = {}
        for op in history.ops:
            if op.f in ("write", "cas") and op.type != "fail":
                self.writes[op.key, freeze(op.value if op.f == "write" else op.value[1])] = op

    def version(self, op: Op) -> int | None:
        """Of the value that an operation wrote or read; -1: nothing was there."""
        if op.f != "read":
            return op.version
        if op.output is None:
            return -1
        if op.version is not None:
            return op.version
        write = self.writes.get((op.key, freeze(op.output)))
        return None if write is None else write.version

    def older(self, op: Op, than: Op) -> bool:
        """What `op` wrote or read is certainly older than what `than` did."""
        self.compared += 1
        mine, other = self.version(op), self.version(than)
        if mine is not None and other is not None:
            return mine < other
        if mine == -1:
            return True
        if op.f == "read":
            write = self.writes.get((op.key, freeze(op.output)))
            value = freeze(than.output if than.f == "read" else _written(than))
            if freeze(op.output) == value:
                return False
            if write is not None and than.f != "read" and write.process == than.process:
                return write.invoke_ns < than.invoke_ns
        self.undecided += 1
        return False


def _written(op: Op) -> Any:
    return op.value[1] if op.f == "cas" else op.value


def check_session(history: History, guarantee: Guarantee, *, explain: bool = True) -> Result:
    """Does every session (`process`) keep the guarantee?

    Args:
        guarantee: "ryw" read your writes, "mr" monotonic reads, "mw" monotonic writes, "wfr"
            writes follow reads.

    Raises:
        ValueError: there is no such guarantee.
    """
    if guarantee not in NAMES:
        raise ValueError(f"no guarantee {guarantee!r}; there are {', '.join(NAMES)}")
    check = _Check(history)
    sessions: dict[int, _Session] = {}
    # What the writer of a value had done before: owed to whoever reads that value.
    debts: dict[int, dict[str | None, tuple[Op, Op]]] = {}
    done = [op for op in history.ops if op.type == "ok" and op.f in ("read", "write", "cas")]
    # A reader may begin before the write that it reads: debts are gathered first.
    for op in done:
        session = sessions.setdefault(op.process, _Session())
        if op.f == "read":
            session.read[op.key] = op
            continue
        before = session.written if guarantee == "mw" else session.read
        debts[id(op)] = {key: (seen, op) for key, seen in before.items()}
        session.written[op.key] = op
    sessions.clear()
    found: list[Op] | None = None
    for op in done:
        session = sessions.setdefault(op.process, _Session())
        found = _step(check, session, op, guarantee, debts)
        if found:
            break
    stats = {"compared": check.compared, "undecided": check.undecided}
    name = f"session guarantee: {NAMES[guarantee]}"
    if found:
        summary = f"{NAMES[guarantee]} is broken"
        story = Counterexample(f"{NAMES[guarantee]} violation", summary, found, found[-1].key)
        return Result(False, name, tell(history, story) if explain else None, stats=stats)
    verdict: Valid = "unknown" if check.undecided else True
    return Result(verdict, name, stats=stats)


def _step(
    check: _Check,
    session: _Session,
    op: Op,
    guarantee: str,
    debts: dict[int, dict[str | None, tuple[Op, Op]]],
) -> list[Op] | None:
    """The operations that break the guarantee at `op`, or None."""
    key = op.key
    if op.f == "read":
        wanted = {"ryw": session.written, "mr": session.read}.get(guarantee, {}).get(key)
        if wanted is not None and check.older(op, wanted):
            return [wanted, op]
        if key in session.owed:
            must, why = session.owed[key]
            if check.older(op, must):
                return [must, why, op]
        session.read[key] = op
        write = check.writes.get((key, freeze(op.output)))
        if write is not None and guarantee in ("mw", "wfr"):
            for name, debt in debts.get(id(write), {}).items():
                known, new = session.owed.get(name), check.version(debt[0])
                if known is None or (new or 0) >= (check.version(known[0]) or 0):
                    session.owed[name] = debt
        return None
    before = {"mw": session.written, "wfr": session.read}.get(guarantee, {}).get(key)
    if before is not None and op.version is not None and check.older(op, before):
        return [before, op]
    session.written[key] = op
    return None


def check_convergence(history: History, *, explain: bool = True) -> Result:
    """Do the final reads of each key (`extra["final"]`) agree, whichever node answered?

    `stats["diverged"]`: key -> the values found. "unknown" without two final reads of some key.
    """
    finals: dict[str | None, list[Op]] = {}
    for op in history.ops:
        if op.f == "read" and op.type == "ok" and op.extra.get("final") is True:
            finals.setdefault(op.key, []).append(op)
    diverged = {
        key: reads for key, reads in finals.items() if len({freeze(r.output) for r in reads}) > 1
    }
    stats: dict[str, Any] = {"keys": len(finals)}
    stats["diverged"] = {key: [read.output for read in reads] for key, reads in diverged.items()}
    if diverged:
        key, reads = next(iter(diverged.items()))
        pair = [reads[0], next(r for r in reads if freeze(r.output) != freeze(reads[0].output))]
        story = Counterexample("divergence", "replicas never agreed", pair, key)
        return Result(False, "final reads", tell(history, story) if explain else None, stats=stats)
    enough = any(len(reads) > 1 for reads in finals.values())
    return Result(True if enough else "unknown", "final reads", stats=stats)
