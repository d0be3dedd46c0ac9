"""Register operations as small integers: what each needs to find, and what it leaves behind.

`need`: the value that an operation has to find; `ANY`; or, less than that, -2 minus a value that it
must not find (a failed cas that says no more). `put`: the value that it leaves, or `SAME`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labs.harness.checkers.result import PLAIN, freeze
from labs.harness.checkers.zones import NEVER
from labs.harness.history import Op

INITIAL = 0
"""The number of the initial value."""

ANY, SAME = -1, -1
"""`need` of an operation that is legal in any state; `put` of one that leaves the value alone."""

# Of a pending operation: (call, need, put, Op).
Waiting = tuple[int, int, int, Op]


class Codes(dict[Any, int]):
    """Values as small integers, in the order in which they are met."""

    def __missing__(self, value: Any) -> int:
        self[value] = number = len(self)
        return number

    def of(self, value: Any) -> int:
        """Of any value; those of a type in `PLAIN` may be looked up at once."""
        return self[value if type(value) in PLAIN else freeze(value)]


def encode(
    completed: Sequence[Op], pending: Sequence[Op], initial: Any
) -> tuple[list[int], list[int], list[int], list[Waiting]]:
    """`need` and `put` of the completed operations on small integers; the initial value is 0.

    In between: the needs of those that may be taken as soon as it is there (for a cas `NEVER`).
    """
    codes = Codes()
    code = codes.of
    code(initial)
    needs: list[int] = []
    puts: list[int] = []
    swaps: list[int] = []
    for op in completed:
        f = op.f
        if f == "read":
            value = op.output
            needs.append(codes[value] if type(value) in PLAIN else code(value))
            puts.append(SAME)
        elif f == "write":
            value = op.value
            needs.append(ANY)
            puts.append(codes[value] if type(value) in PLAIN else code(value))
        elif f == "delete":
            needs.append(ANY)
            puts.append(codes[None])
        elif op.type == "ok":
            old, new = op.value
            swaps.append(len(needs))
            needs.append(codes[old] if type(old) in PLAIN else code(old))
            puts.append(codes[new] if type(new) in PLAIN else code(new))
        else:
            puts.append(SAME)
            if "current" in op.extra:
                needs.append(code(op.extra["current"]))
            else:
                old = op.value[0]
                needs.append(-2 - (codes[old] if type(old) in PLAIN else code(old)))
    reads = needs.copy()
    for j in swaps:
        reads[j] = NEVER
    waiting: list[Waiting] = []
    for op in pending:
        if op.f == "cas":
            waiting.append((op.invoke_ns, code(op.value[0]), code(op.value[1]), op))
        elif op.f != "read":
            value = op.value if op.f == "write" else None
            waiting.append((op.invoke_ns, ANY, code(value), op))
    return needs, reads, puts, waiting
