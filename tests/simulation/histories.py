"""Histories of simulated clients, given to the labs' checkers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from labs.harness.checkers import Result, check_causal, check_convergence, check_session
from labs.harness.checkers.sessions import NAMES, Guarantee
from labs.harness.history import History, Op
from services.protocols.causal import Level
from tests.simulation.cluster import Violation

if TYPE_CHECKING:
    from tests.simulation.causal import Asked

PROMISED: dict[Level, tuple[Guarantee, ...]] = {
    "causal": get_args(Guarantee),
    "session": ("ryw", "mr", "mw"),
    "eventual": (),
}


def check(asked: Iterable[Asked], levels: tuple[Level, ...]) -> None:
    """Raises Violation, named by what is broken of that which all of `levels` promise."""
    for promise, result in verdicts(history_of(asked), levels).items():
        if result.valid is False:
            assert result.counterexample is not None
            raise Violation(promise, " ".join(result.counterexample.sentences))


def history_of(asked: Iterable[Asked]) -> History:
    """As a recorder would have written it."""
    ops = []
    for each in asked:
        op = Op(each.process, each.f, each.key, each.value, each.invoke_ns, each.return_ns, "info")
        op.type = each.type  # type: ignore[assignment]
        op.output, op.version, op.node = each.output, each.version, each.node
        op.index, op.extra = each.index, {"final": True} if each.final else {}
        ops.append(op)
    return History(ops)


def verdicts(history: History, levels: tuple[Level, ...]) -> dict[str, Result]:
    """What the checkers say of all that each of `levels` promises, by the name of the promise."""
    level: Level = "eventual" if "eventual" in levels else levels[0]
    found = {"convergence": check_convergence(history)}
    for guarantee in PROMISED[level]:
        found[NAMES[guarantee]] = check_session(history, guarantee)
    if level == "causal":
        found["causal consistency"] = check_causal(history, "CC")
        found["causal convergence"] = check_causal(history, "CCv")
    return found
