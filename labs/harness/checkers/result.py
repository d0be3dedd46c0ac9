"""What a checker says: valid, not valid, or unknown, and by which algorithm."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from labs.harness.history import Op

Valid = bool | Literal["unknown"]


@dataclass(slots=True)
class Counterexample:
    """Why a history is not valid: a handful of operations that cannot be reconciled.

    Attributes:
        anomaly: its standard name ("stale read", "lost update", "G1c" …).
        summary: one sentence.
        ops: the operations involved, at most six.
        key: the key they are about, if one.
        forbidden: the interval (ns) in which an operation would have had to take effect and
            could not, to be drawn across the lanes.
        reason: what had already happened when the last operation began ("42 had been
            acknowledged"); the story puts it behind "although".
        sentences: the story, one numbered sentence per event (filled in by `story.tell`).
    """

    anomaly: str
    summary: str
    ops: list[Op]
    key: str | None = None
    forbidden: tuple[int, int] | None = None
    reason: str = ""
    sentences: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """A verdict.

    Attributes:
        valid: True, False, or "unknown" when a cap on time or memory was reached.
        algorithm: what decided ("zones", "register search", …).
        counterexample: present when `valid` is False and an explanation was asked for.
        linearization: per key a witness order, where one was asked for.
        stats: figures; what they are depends on the checker.
    """

    valid: Valid
    algorithm: str
    counterexample: Counterexample | None = None
    linearization: dict[Hashable, list[Op]] | None = None
    stats: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        raise TypeError("a Result has three values: compare .valid with True, False or 'unknown'")


def worst(verdicts: list[Valid]) -> Valid:
    """The verdict of several checks together: False beats unknown beats True."""
    if any(verdict is False for verdict in verdicts):
        return False
    return True if all(verdict is True for verdict in verdicts) else "unknown"


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection meanwhile: it costs 40 % on a million operations and frees nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


PLAIN = frozenset({int, str, type(None), float, bytes})
"""Types that are hashable and never equal across JSON's types."""


def thaw(frozen: Any) -> Any:
    """The value that `freeze` was given (a map's members as pairs)."""
    if not isinstance(frozen, tuple):
        return frozen
    kind, *items = frozen
    if kind == "bool":
        return items[0]
    return [thaw(item) for item in (items if kind == "list" else items[0])]


def freeze(value: Any) -> Any:
    """The value in a form that is hashable and equal only when it is the same JSON value.

    Python takes True for 1; a store does not. Lists and objects cannot be dictionary keys.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, (list, tuple)):
        return ("list", *map(freeze, value))
    if isinstance(value, dict):
        return ("map", frozenset((freeze(name), freeze(item)) for name, item in value.items()))
    if isinstance(value, (set, frozenset)):
        return ("set", frozenset(map(freeze, value)))
    return value
