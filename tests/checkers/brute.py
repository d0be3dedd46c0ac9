"""The slow and simple truth: try every order of a small history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from labs.harness.history import History, Op

Step = Callable[[Any, Op], tuple[bool, Any]]


def register_step(state: Any, op: Op) -> tuple[bool, Any]:
    """Read, write, cas and delete; also a failed cas that says something."""
    if op.f == "read":
        return op.output == state, state
    if op.f == "write":
        return True, op.value
    if op.f == "delete":
        return True, None
    if op.type == "fail":
        if "current" in op.extra:
            return op.extra["current"] == state, state
        return op.value[0] != state, state
    return op.value[0] == state, op.value[1]


def linearizable(ops: Sequence[Op], step: Step = register_step, initial: Any = None) -> bool:
    """Is there an order? Pending operations may be left out, or come any time after their call."""
    ops = [op for op in ops if op.type != "fail" or op.extra]
    done = frozenset(i for i, op in enumerate(ops) if op.type != "info")
    seen: set[Any] = set()

    def search(taken: frozenset[int], state: Any) -> bool:
        if done <= taken:
            return True
        if (taken, state) in seen:
            return False
        seen.add((taken, state))
        ends = [ops[i].return_ns for i in done - taken]
        deadline = min(end for end in ends if end is not None)
        for i, op in enumerate(ops):
            if i not in taken and op.invoke_ns <= deadline:
                legal, after = step(state, op)
                if legal and search(taken | {i}, after):
                    return True
        return False

    return search(frozenset(), initial)


def random_register(random: Random, *, unique: bool = False, keys: int = 1) -> History:
    """A small history, as often valid as not: simulated, then sometimes spoilt."""
    count = random.randint(1, 14)
    processes = random.randint(1, 6)
    values = random.choice([2, 3, 5])
    with_cas, with_delete = random.random() < 0.6, random.random() < 0.15
    pending_rate = random.choice([0.0, 0.1, 0.3])
    state: dict[str | None, Any] = {}
    free = list(range(processes))
    clock = fresh = 0
    spare = processes
    ops: list[Op] = []
    open_ops: list[tuple[Op, bool]] = []  # (operation, has taken effect)
    step = random.choice([0, 1])
    while len(ops) < count or open_ops:
        clock += random.randint(step, 2)
        what = random.random()
        if len(ops) < count and free and (what < 0.4 or not open_ops):
            process = free.pop(random.randrange(len(free)))
            fresh += 1
            key = f"k{random.randrange(keys)}" if keys > 1 else None
            new = fresh if unique else random.randrange(values)
            old = (
                random.choice([None, fresh - 1, fresh - 2]) if unique else random.randrange(values)
            )
            if random.random() < 0.5:
                old = state.get(key)
            f = random.choice(["read", "write"] + ["cas"] * 2 * with_cas + ["delete"] * with_delete)
            value = {"read": None, "write": new, "cas": [old, new], "delete": None}[f]
            op = Op(process, f, key, value, clock, None, "info", index=len(ops))
            ops.append(op)
            open_ops.append((op, False))
            continue
        at = random.randrange(len(open_ops))
        op, effected = open_ops[at]
        if not effected and not (random.random() < 0.3 and op.f != "read"):
            _effect(op, state, random)
            open_ops[at] = (op, True)
            continue
        open_ops.pop(at)
        if random.random() < pending_rate:
            op.type = "info"
            op.output = None
            op.extra.clear()
            free.append(spare)
            spare += 1
            continue
        if op.type == "info":
            op.type = "ok"
            if op.f == "read":
                op.output = state.get(op.key)
        op.return_ns = clock
        free.append(op.process)
    _spoil(ops, random, values, unique)
    return History(ops)


def _effect(op: Op, state: dict[str | None, Any], random: Random) -> None:
    now = state.get(op.key)
    op.type = "ok"
    if op.f == "read":
        op.output = now
    elif op.f in ("write", "delete"):
        state[op.key] = op.value
    elif op.value[0] == now:
        state[op.key] = op.value[1]
    else:
        op.type = "fail"
        kind = random.random()
        if kind < 0.4:
            op.extra["current"] = now
        elif kind < 0.8:
            op.extra["mismatch"] = True


def _spoil(ops: list[Op], random: Random, values: int, unique: bool) -> None:
    if random.random() < 0.4:
        return
    reads = [op for op in ops if op.f == "read" and op.type == "ok"]
    for op in reads:
        if random.random() < 0.15:
            op.output = (
                random.choice([*range(1, len(ops)), None])
                if unique
                else (random.choice([*range(values), None]))
            )
