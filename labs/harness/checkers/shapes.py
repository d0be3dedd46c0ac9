"""Do the values of a history fit the model that it shall be judged by?

A checker that is handed a number where it expects a set would fail in its middle, or worse, take
it for something else. So the types are looked at first, operation by operation, and the first that
does not fit is named with its file and line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labs.harness.checkers.models import MODELS
from labs.harness.checkers.story import short
from labs.harness.history import History, HistoryError, Op


@dataclass(frozen=True, slots=True)
class Shape:
    """What a value has to be, and how to say so."""

    words: str
    fits: Callable[[Any], bool]


def _integer(value: Any) -> bool:
    return type(value) is int


def _elements(value: Any) -> bool:
    return value is None or isinstance(value, (list, tuple, set, frozenset))


def _micros(*names: str, lists: bool = False) -> Callable[[Any], bool]:
    """A list of `[f, key, value]`; with `lists`, what was read is a list."""

    def fits(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(
            isinstance(micro, (list, tuple))
            and len(micro) == 3
            and micro[0] in names
            and (not lists or micro[0] != "r" or _elements(micro[2]))
            for micro in value
        )

    return fits


_ANYTHING = Shape("anything", lambda _: True)
_TEXT = Shape("a string", lambda value: isinstance(value, str))
_TEXT_OR_NOTHING = Shape(
    "a string or nothing", lambda value: value is None or isinstance(value, str)
)
_INTEGER = Shape("an integer", _integer)
_STEP = Shape("an integer or nothing", lambda value: value is None or _integer(value))
_ELEMENTS = Shape("a list or a set", _elements)
_BALANCES = Shape("a map of balances", lambda value: value is None or isinstance(value, dict))
_REGISTERS = Shape("a list of [r or w, key, value]", _micros("r", "w"))
_APPENDS = Shape(
    "a list of [append, key, value] and [r, key, list]", _micros("r", "append", lists=True)
)

# model -> operation ("*": any) -> (what it is asked, what it answers)
_SETS = {"read": (_ANYTHING, _ELEMENTS)}
_COUNTERS = {"read": (_ANYTHING, _INTEGER), "add": (_STEP, _ANYTHING)}
RULES: dict[str, dict[str, tuple[Shape, Shape]]] = {
    "key-value": {
        "read": (_ANYTHING, _TEXT_OR_NOTHING),
        "write": (_TEXT, _ANYTHING),
        "append": (_TEXT, _ANYTHING),
    },
    "set": _SETS,
    "set-full": _SETS,
    "counter": _COUNTERS,
    "counter-bounds": _COUNTERS,
    "multi-register": {"txn": (_REGISTERS, _REGISTERS)},
    "rw-register": {"*": (_REGISTERS, _REGISTERS)},
    "list-append": {"*": (_APPENDS, _APPENDS)},
    "bank": {"read": (_ANYTHING, _BALANCES)},
    "long-fork": {"read": (_ANYTHING, _REGISTERS), "txn": (_REGISTERS, _REGISTERS)},
    "total-queue": {"drain": (_ANYTHING, _ELEMENTS)},
}


_OPERATIONS = dict.fromkeys(("sequential", "causal", "causal-convergent"), ("read", "write", "cas"))


def require_shape(history: History, model: str) -> None:
    """Refuse a history whose operations or values are not those of the model.

    Raises:
        HistoryError: with file and line.
    """
    rules = RULES.get(model, {})
    operations = MODELS[model].operations if model in MODELS else _OPERATIONS.get(model)
    for at, op in enumerate(history.ops):
        if operations is not None and op.f not in operations:
            raise _error(history, at, f"{model} has no {op.f!r} (it has {', '.join(operations)})")
        asked, answered = rules.get(op.f) or rules.get("*") or (_ANYTHING, _ANYTHING)
        # Of a transaction that was answered only the answer counts: it repeats what was asked.
        if op.type == "ok" and answered is not _ANYTHING:
            if not answered.fits(op.output):
                message = f"{_who(op)} answers {short(op.output)}, not {answered.words}"
                raise _error(history, at, message)
        elif not asked.fits(op.value):
            message = f"{_who(op)} is asked {short(op.value)}, not {asked.words}"
            raise _error(history, at, message)


def _who(op: Op) -> str:
    return f"{op.f} of process {op.process}"


def _error(history: History, at: int, message: str) -> HistoryError:
    line = history.lines[at] if at < len(history.lines) else 0
    return HistoryError(f"{history.source}:{line}: {message}")
