"""What one page can hold. Of a usual run everything; of a large one what a reader looks for first.

Whatever is left out is told in the picture that lacks it: a sample that looks like the whole is a
lie. Rates, availability and percentiles are always computed from all operations.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from labs.harness.history import Op
from labs.harness.report.data import Line, Message

OPS_OPENED = 4_000
LINES_KEPT = 14_000
MESSAGES_KEPT = 12_000
NEAR_US = 150_000


def spread(items: Sequence[int], most: int) -> list[int]:
    """`most` of the items, evenly spread, first and last included."""
    if len(items) <= most:
        return list(items)
    if most <= 1:
        return list(items[:most])
    step = (len(items) - 1) / (most - 1)
    return [items[round(number * step)] for number in range(most)]


def choose_ops(ops: Sequence[Op], wanted: Iterable[int], most: int = OPS_OPENED) -> list[int]:
    """Positions of the operations that can be opened, in order.

    First those of counterexamples (`wanted`), then those that did not succeed, then a sample.
    """
    if len(ops) <= most:
        return list(range(len(ops)))
    first = sorted(set(wanted))[:most]
    taken = set(first)
    bad = [at for at, op in enumerate(ops) if op.type != "ok" and at not in taken]
    taken |= set(spread(bad, max(most // 2, most - len(taken) - most // 4)))
    good = [at for at, op in enumerate(ops) if op.type == "ok" and at not in taken]
    taken |= set(spread(good, most - len(taken)))
    return sorted(taken)


def choose_lines(lines: list[Line], most: int = LINES_KEPT) -> list[Line]:
    """Probes of the harness go first, then what belongs to requests that succeeded."""
    if len(lines) <= most:
        return lines
    kept = [line for line in lines if line.level != "debug"]
    if len(kept) <= most:
        return kept
    telling = [at for at, line in enumerate(kept) if line.trace_id is None or line.bad]
    told = set(telling)
    usual = [at for at in range(len(kept)) if at not in told]
    chosen = spread(telling, most) + spread(usual, max(0, most - len(telling)))
    return [kept[at] for at in sorted(chosen)]


def choose_messages(
    messages: list[Message], moments: Iterable[int], most: int = MESSAGES_KEPT
) -> list[Message]:
    """Whole stretches around moments that matter, since single arrows of a sample mislead."""
    if len(messages) <= most:
        return messages
    kept: set[int] = set()
    times = [message.sent_us for message in messages]
    for moment in moments:
        low, high = (bisect_left(times, moment + by) for by in (-NEAR_US, NEAR_US))
        around = range(low, high)
        if len(kept | set(around)) > most:
            break
        kept.update(around)
    if not kept:
        kept.update(range(most))
    return [messages[at] for at in sorted(kept)]
