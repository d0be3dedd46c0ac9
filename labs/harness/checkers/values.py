"""What an operation on a register found, and what it left behind."""

from __future__ import annotations

from typing import Any

from labs.harness.checkers.result import freeze
from labs.harness.history import Op


def found(op: Op) -> Any:
    """The frozen value that an operation found, or an object equal to nothing."""
    if op.f == "read":
        return freeze(op.output)
    if op.f == "cas":
        return freeze(op.extra["current"] if "current" in op.extra else op.value[0])
    return object()


def left(op: Op) -> Any:
    """The frozen value that an operation left, or an object equal to nothing."""
    if op.type == "fail" or op.f == "read":
        return object()
    if op.f == "delete":
        return None
    return freeze(op.value[1] if op.f == "cas" else op.value)
