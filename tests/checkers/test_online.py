"""`OnlineRegister` turns red at the very completion that broke linearizability."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from labs.harness.checkers import OnlineRegister
from labs.harness.history import History, Op
from tests.checkers.brute import linearizable, random_register


def events(history: History) -> list[tuple[int, int, Op]]:
    """(time, 0 for a call and 1 for a return, operation) in order; calls first at equal times."""
    found = [(op.invoke_ns, 0, op) for op in history.ops]
    found += [(op.return_ns, 1, op) for op in history.ops if op.return_ns is not None]
    return sorted(found, key=lambda event: event[:2])


def run(history: History) -> OnlineRegister:
    """Feed all events."""
    online = OnlineRegister()
    for time_ns, returned, op in events(history):
        if returned:
            online.complete(op)
        else:
            online.invoke(op.f, op.key, op.value, time_ns)
    return online


def prefix(history: History, last: Op) -> list[Op]:
    """What had been seen just before `last` completed: open writes are pending."""
    before: set[int] = set()
    for _, returned, op in events(history):
        if returned and op is last:
            break
        if returned:
            before.add(id(op))
    assert last.return_ns is not None
    return [
        op if id(op) in before else replace(op, type="info", return_ns=None)
        for op in history.ops
        if id(op) in before or (op.f == "write" and op.invoke_ns <= last.return_ns)
    ]


def test_agrees_with_brute_force_on_every_prefix() -> None:
    """The history is broken at the violation, and was not one completion earlier."""
    broken = 0
    for seed in range(600):
        history = random_register(Random(seed), unique=True)
        history.ops = [op for op in history.ops if op.f in ("read", "write")]
        online = run(history)
        assert (online.valid is True) == linearizable(history.ops), f"seed {seed}"
        if online.violation is not None:
            broken += 1
            assert linearizable(prefix(history, online.violation)), f"seed {seed}"
    assert broken > 100


def test_what_it_cannot_judge_is_unknown() -> None:
    """A key with repeated values is left out; another key still counts."""
    online = OnlineRegister()
    for time_ns in (0, 2):
        online.invoke("write", "x", 1, time_ns)
        assert online.complete(Op(0, "write", "x", 1, time_ns, time_ns + 1, "ok"))
    assert online.valid == "unknown"

    assert not online.complete(Op(0, "read", "y", None, 4, 5, "ok", output=9))
    assert online.valid is False
    assert online.violation is not None
    assert online.violation.output == 9
