"""From the path of a register search to the operations in their order: a witness."""

from __future__ import annotations

from labs.harness.checkers.register_codes import ANY
from labs.harness.checkers.register_search import Path, RegisterSearch
from labs.harness.checkers.zones import NEVER
from labs.harness.history import Op


def order(search: RegisterSearch, path: Path) -> list[Op]:
    """The operations of a path in their order, with the reads and hidden writes put in.

    The path holds the choices only; the reads between them follow from the values.
    """
    choices: list[int] = []
    while path is not None:
        path, what = path
        choices.append(what)
    choices.reverse()
    taken: set[int] = set()
    result: list[Op] = []
    value, first, last_plain = 0, 0, 0

    def settle() -> None:
        """Take the reads that are legal now, as the search did."""
        nonlocal first
        while first in taken:
            first += 1
        j, deadline = first, NEVER
        while search.calls[j] <= deadline:
            if j not in taken:
                need, put = search.needs[j], search.puts[j]
                if put < 0 and (need == value or (need < ANY and need != -2 - value)):
                    taken.add(j)
                    result.append(search.ops[j])
                else:
                    deadline = min(deadline, search.returns[j])
            j += 1

    for what in choices:
        settle()
        if what < 0:
            taken.add(~what)
            result.insert(last_plain, search.ops[~what])
            last_plain += 1
            continue
        if what < search.count:
            taken.add(what)
            need, value, op = search.needs[what], search.puts[what], search.ops[what]
        else:
            _, need, value, op = search.pending[what - search.count]
        if need == ANY:
            last_plain = len(result)
        result.append(op)
    settle()
    return result
