"""Histories to measure with: simulated clients on a correct store, from a seed."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from labs.harness.history import History, Op

_NOTHING: dict[str, Any] = {}


def simulated(
    count: int,
    *,
    keys: int = 1,
    clients: int = 30,
    seed: int = 1,
    values: int = 0,
    cas_share: float = 0.0,
    pending_share: float = 0.0,
) -> History:
    """A linearizable history of `count` operations, half reads.

    Args:
        keys: drawn uniformly.
        clients: each works without pause, 0.5 to 2 ms an operation.
        values: written values are drawn from so many; 0: unique.
        cas_share: of operations that are cas (half of them from the current value).
        pending_share: of writes and cas whose reply is lost; half of them took effect.
    """
    random = Random(seed)
    draw = random.random
    clocks = [draw() * 1e6 for _ in range(clients)]
    planned: list[tuple[float, int, float, float]] = []
    for number in range(count):
        client = number % clients
        start = clocks[client] + 1 + draw() * 1e5
        took = 5e5 + draw() * 1.5e6
        clocks[client] = start + took
        planned.append((start + draw() * took, client, start, start + took))
    planned.sort()  # by the instant of effect
    state: list[Any] = [None] * keys
    names = [f"k{number}" for number in range(keys)]
    ops: list[Op] = []
    for fresh, (_, client, start, end) in enumerate(planned):
        at = int(draw() * keys)
        key, now = names[at], state[at]
        kind = draw()
        new = int(draw() * values) if values else fresh
        done: int | None = int(end)
        if kind < 0.5:
            ops.append(Op(client, "read", key, None, int(start), done, "ok", now, None))
            continue
        lost = draw() < pending_share
        happens = not lost or draw() < 0.5
        if kind < 0.5 + cas_share:
            old = now if draw() < 0.5 else (int(draw() * values) if values else fresh - 1)
            op = Op(client, "cas", key, [old, new], int(start), done, "ok", [old, new])
            if old != now:
                op.type, op.output, op.extra = "fail", None, {"mismatch": True}
                happens = False
        else:
            op = Op(client, "write", key, new, int(start), done, "ok", new)
        if lost:
            op.type, op.return_ns, op.output, op.extra = "info", None, None, _NOTHING
        if happens:
            state[at] = new
        ops.append(op)
    ops.sort(key=lambda op: op.invoke_ns)
    # Made anew in the order of the calls, as a loader makes them: so they lie in memory.
    ops = [replace(op, index=index) for index, op in enumerate(ops)]
    return History(ops, source=f"simulated({count}, keys={keys}, seed={seed})")


def spoiled(history: History, seed: int = 1) -> History:
    """The same history with one stale read in its last tenth."""
    random = Random(seed)
    ops = list(history.ops)
    reads = [at for at in range(len(ops)) if ops[at].f == "read" and ops[at].type == "ok"]
    for at in sorted(reads[len(reads) * 9 // 10 :], key=lambda _: random.random()):
        op = ops[at]
        old = [x for x in ops[: at - 200] if x.f == "write" and x.key == op.key and x.type == "ok"]
        if old and old[len(old) // 2].value != op.output:
            changed = Op(op.process, "read", op.key, None, op.invoke_ns, op.return_ns, "ok")
            changed.output, changed.index = old[len(old) // 2].value, op.index
            ops[at] = changed
            return History(ops, source=f"{history.source}, spoiled")
    raise ValueError("no read to spoil")
