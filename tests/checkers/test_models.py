"""The generic search: each model against brute force, and models of one's own."""

from __future__ import annotations

from collections.abc import Hashable
from random import Random
from typing import Any

import pytest

from labs.harness.checkers import MODELS, Model, check_linearizable
from labs.harness.history import History, Op
from tests.checkers.brute import linearizable


def random_history(random: Random, kind: str) -> History:
    """Clients on a correct object, sometimes with a wrong result put in."""
    count, clients = random.randint(1, 9), random.randint(1, 4)
    model = MODELS[kind]
    state: Any = model.init
    clock, spare = 0, clients
    free = list(range(clients))
    open_ops: list[tuple[Op, bool]] = []
    ops: list[Op] = []
    while len(ops) < count or open_ops:
        clock += random.randint(0, 2)
        if len(ops) < count and free and (random.random() < 0.45 or not open_ops):
            process = free.pop()
            f, value = _draw(random, kind)
            op = Op(process, f, None, value, clock, None, "ok", index=len(ops))
            ops.append(op)
            open_ops.append((op, False))
            continue
        at = random.randrange(len(open_ops))
        op, effected = open_ops.pop(at)
        if not effected:
            op.output = _result(kind, state, op)
            legal, after = model.step(state, op)
            state = after if legal else state
            if not legal:
                op.type = "fail"
            open_ops.append((op, True))
            continue
        if random.random() < 0.15:
            op.type, op.return_ns, op.output = "info", None, None
            spare += 1
            free.append(spare)
            continue
        op.return_ns = clock
        free.append(op.process)
    for op in ops:
        if random.random() < 0.07 and op.type == "ok":
            _spoil(random, kind, op)
    return History([op for op in ops if op.type != "fail"])


def _draw(random: Random, kind: str) -> tuple[str, Any]:
    f = random.choice(MODELS[kind].operations)
    value: Any = random.randint(0, 3)
    if f in ("read", "dequeue", "acquire", "release"):
        value = None
    elif kind == "key-value":
        value = random.choice("ab")
    elif f == "cas":
        value = [random.randint(0, 2), value]
    elif kind == "multi-register":
        names = random.sample("xyz", random.randint(1, 2))
        value = [[random.choice("rw"), name, random.randint(0, 2)] for name in names]
    return f, value


def _result(kind: str, state: Any, op: Op) -> Any:
    if op.f == "read":
        return sorted(state) if kind == "set" else state
    if op.f == "dequeue":
        return state[0] if state else None
    if kind == "multi-register":
        values = dict(state)
        return [[f, k, values.get(k) if f == "r" else v] for f, k, v in op.value]
    return op.value


def _spoil(random: Random, kind: str, op: Op) -> None:
    if op.f == "read":
        op.output = {"set": [1], "key-value": "a"}.get(kind, random.randint(0, 3))
    elif op.f == "dequeue":
        op.output = random.choice([None, 0, 1, 2])
    elif op.f in ("acquire", "release"):
        op.process += random.randint(0, 1)
    elif kind == "multi-register":
        op.output = [[f, k, random.randint(0, 2) if f == "r" else v] for f, k, v in op.output]


@pytest.mark.parametrize(
    "kind", [name for name in MODELS if "register" not in name] + ["multi-register"]
)
def test_agrees_with_brute_force(kind: str) -> None:
    """Set, queue, lock, counter, key-value with append, several registers at once."""
    model = MODELS[kind]
    verdicts = set()
    for seed in range(150):
        history = random_history(Random(seed), kind)
        result = check_linearizable(history, kind, witness=True)
        wanted = linearizable(history.ops, model.step, model.init)
        verdicts.add(wanted)
        assert result.valid == wanted, f"random_history(Random({seed}), {kind!r})"
        for order in (result.linearization or {}).values():
            _assert_witness(model, order)
    assert verdicts == {True, False}


def _assert_witness(model: Model, order: list[Op]) -> None:
    state: Hashable = model.init
    latest_call = -1
    for op in order:
        assert op.return_ns is None or op.return_ns >= latest_call
        latest_call = max(latest_call, op.invoke_ns)
        legal, state = model.step(state, op)
        assert legal


def test_a_model_of_ones_own() -> None:
    """`Model(init, step, partition, read_only, …)` is all that the search needs."""

    def step(state: Any, op: Op) -> tuple[bool, Any]:
        if op.f == "top":
            return op.output == (state[-1] if state else None), state
        return True, (*state, op.value)

    stack = Model("stack", ("push", "top"), ("top",), (), step)
    ops = [Op(0, "push", "s", 1, 0, 1, "ok"), Op(0, "push", "s", 2, 2, 3, "ok")]
    good, bad = Op(1, "top", "s", None, 4, 5, "ok", 2), Op(1, "top", "s", None, 4, 5, "ok", 1)

    assert check_linearizable(History([*ops, good]), stack).valid is True
    result = check_linearizable(History([*ops, bad]), stack)
    assert result.valid is False
    assert result.algorithm == "Wing-Gong-Lowe"
    assert stack.describe_operation(bad) == "top() -> 1"


def test_an_operation_that_the_model_has_not() -> None:
    """A wrong model is an error, not a verdict."""
    history = History([Op(0, "dequeue", "q", None, 0, 1, "ok")])
    with pytest.raises(ValueError, match="has no operation 'dequeue'"):
        check_linearizable(history, "register")
    with pytest.raises(ValueError, match="set has no operation 'dequeue'"):
        check_linearizable(history, "set")
    with pytest.raises(ValueError, match="no model 'stack'"):
        check_linearizable(history, "stack")
