"""Acknowledged writes that are gone: judged from the final reads.

A write that was acknowledged is lost iff the final read of its key returns nothing, or a value
whose write had *returned before the lost one was invoked*: only then was the newer value
certainly overwritten by time itself. A value whose write was concurrent with ours, or of unknown
fate, may rightly stand there. For keys that are written once (the lab names them `once-…`) this
is exact: every acknowledged write that is missing is found, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labs.harness.checkers.result import Counterexample, Result, freeze
from labs.harness.checkers.story import tell
from labs.harness.checkers.zones import NEVER
from labs.harness.history import History, Op

_WRITES = ("write", "cas", "delete")


@dataclass(slots=True)
class LostWrite:
    """An acknowledged write that the final read of its key does not show."""

    key: str | None
    value: Any
    node: str | None
    """The node that acknowledged it."""
    process: int
    acknowledged_ns: int
    index: int
    found: Any
    """What the final read returned instead (None: nothing)."""


def check_lost_writes(history: History) -> Result:
    """Every acknowledged write that was lost.

    A final read is an `ok` read with `extra["final"]` true, invoked after all other operations of
    its key returned; of several the last counts. Keys that were written but have no final read
    leave the verdict "unknown" (unless another key lost a write).

    `stats`: `lost_writes` (list of `LostWrite`, by time), `acknowledged` (writes), `judged`
    (of them, those whose key had a final read), `keys_without_final_read`.
    """
    writes: dict[str | None, list[Op]] = {}
    finals: dict[str | None, Op] = {}
    others_end: dict[str | None, int] = {}
    for op in history.ops:
        final = op.f == "read" and op.extra.get("final") is True
        if final and op.type == "ok":
            finals[op.key] = op
        if final:
            continue
        if op.return_ns is not None:
            others_end[op.key] = max(op.return_ns, others_end.get(op.key, 0))
        if op.f in _WRITES and op.type != "fail":
            writes.setdefault(op.key, []).append(op)
    lost: list[LostWrite] = []
    acknowledged = judged = 0
    without: list[str | None] = []
    evidence: list[Op] = []
    for key, found in writes.items():
        mine = [op for op in found if op.type == "ok"]
        acknowledged += len(mine)
        final_read = finals.get(key)
        if final_read is None or final_read.invoke_ns < others_end.get(key, 0):
            if mine:
                without.append(key)
            continue
        judged += len(mine)
        gone = _lost(mine, found, final_read)
        lost += [_describe(op, final_read) for op in gone]
        if gone and not evidence:
            evidence = [gone[0], final_read]
    lost.sort(key=lambda one: (one.acknowledged_ns, one.index))
    stats = {"lost_writes": lost, "acknowledged": acknowledged, "judged": judged}
    stats["keys_without_final_read"] = without
    if lost:
        summary = f"{len(lost)} of {judged} acknowledged writes are lost"
        write, read = evidence
        assert write.return_ns is not None
        assert read.return_ns is not None
        reason = f"{_written(write)!r} had been acknowledged"
        span = (write.return_ns, read.return_ns)
        story = Counterexample("lost write", summary, evidence, write.key, span, reason)
        tell(history, story)
        return Result(False, "final reads", story, stats=stats)
    return Result("unknown" if without else True, "final reads", stats=stats)


def _lost(acknowledged: list[Op], writes: list[Op], final_read: Op) -> list[Op]:
    seen = freeze(final_read.output)
    writers = [op for op in writes if freeze(_written(op)) == seen]
    if not writers and final_read.output is not None:
        return []  # a value nobody wrote: another checker's business
    # The latest instant at which the value that stands there can have been written.
    latest = max((NEVER if op.return_ns is None else op.return_ns for op in writers), default=-1)
    return [op for op in acknowledged if latest < op.invoke_ns and freeze(_written(op)) != seen]


def _written(op: Op) -> Any:
    if op.f == "delete":
        return None
    return op.value[1] if op.f == "cas" else op.value


def _describe(op: Op, final_read: Op) -> LostWrite:
    assert op.return_ns is not None
    return LostWrite(
        op.key,
        _written(op),
        op.node,
        op.process,
        op.return_ns,
        op.index,
        final_read.output,
    )
