"""Claims that many labs make of a register workload's history, each decided by a checker."""

from __future__ import annotations

from labs.harness.checkers import check_linearizable, check_lost_writes
from labs.harness.history import load
from labs.harness.lab.stage import Stage

CHECK_WITHIN_S = 20.0


def no_acknowledged_write_is_lost(stage: Stage) -> None:
    """Every acknowledged write was seen by the final reads, or was overwritten.

    Leaves the figures `lost` and `acknowledged`, both numbers of writes.
    """
    result = check_lost_writes(load(stage.history_path))
    lost, acknowledged = len(result.stats["lost_writes"]), result.stats["acknowledged"]
    stage.figures(lost=lost, acknowledged=acknowledged)
    evidence = f"{lost} of {acknowledged} acknowledged writes are gone"
    stage.claim("Healed, no acknowledged write is lost", result, evidence, control_breaks=True)


def the_history_is_linearizable(stage: Stage) -> None:
    """One order of all operations explains every answer (Herlihy and Wing 1990)."""
    history = load(stage.history_path)
    result = check_linearizable(history, "register", timeout_s=CHECK_WITHIN_S)
    evidence = f"{len(history.ops)} operations, checked by {result.algorithm}"
    stage.claim("The history is linearizable", result, evidence, control_breaks=True)
