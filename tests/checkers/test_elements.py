"""Sets, queues, counters, banks, locks, ids, lost writes, availability: each anomaly by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labs.harness.checkers import (
    Result,
    check_availability,
    check_bank,
    check_counter,
    check_lock,
    check_long_fork,
    check_lost_writes,
    check_queue,
    check_set,
    check_unique_ids,
    recoveries,
    windows,
)
from labs.harness.history import History, NemesisEvent, Op

SECOND = 10**9


def op(f: str, value: Any, call: int, end: int | None, **fields: Any) -> Op:
    """An operation; `value` is what it wrote, or what it returned."""
    process = fields.pop("process", call)
    kind = fields.pop("type", "ok" if end is not None else "info")
    asked = None if f in _READERS else value
    return Op(process, f, fields.pop("key", None), asked, call, end, kind, value, **fields)


_READERS = ("read", "dequeue", "generate", "acquire")


def history(*ops: Op) -> History:
    """In the order of their calls."""
    for index, one in enumerate(ops):
        one.index = index
    return History(sorted(ops, key=lambda one: one.invoke_ns))


ADDED = [op("add", 1, 0, 1), op("add", 2, 2, 3)]
QUEUED = [op("enqueue", 1, 0, 1), op("enqueue", 2, 2, 3)]
ANOMALIES: dict[str, tuple[Callable[[History], Result], History]] = {
    "lost element": (check_set, history(*ADDED, op("read", [1], 4, 5))),
    "duplicated element": (check_set, history(*ADDED, op("read", [1, 2, 2], 4, 5))),
    "thin-air read": (check_set, history(*ADDED, op("read", [1, 2, 3], 4, 5))),
    "stale read": (
        lambda found: check_set(found, linearizable=True),
        history(*ADDED, op("read", [1], 4, 5), op("read", [1, 2], 6, 7)),
    ),
    "lost message": (
        check_queue,
        history(*QUEUED, op("dequeue", 1, 4, 5), op("dequeue", None, 6, 7)),
    ),
    "duplicated message": (
        check_queue,
        history(
            *QUEUED, *(op("dequeue", value, at, at + 1) for value, at in ((1, 4), (2, 6), (2, 8)))
        ),
    ),
    "reordered message": (
        check_queue,
        history(*QUEUED, op("dequeue", 2, 4, 5), op("dequeue", 1, 6, 7)),
    ),
    "duplicated id": (check_unique_ids, history(op("generate", 7, 0, 1), op("generate", 7, 2, 3))),
    "counter out of bounds": (
        check_counter,
        history(op("add", 2, 0, 1), op("add", 1, 2, 9), op("read", 1, 3, 4)),
    ),
    "read skew": (
        check_bank,
        history(op("read", {"a": 5, "b": 5}, 0, 1), op("read", {"a": 4, "b": 5}, 2, 3)),
    ),
    "negative balance": (check_bank, history(op("read", {"a": -1, "b": 5}, 0, 1))),
    "long fork": (
        check_long_fork,
        history(
            op("read", [["r", "x", 1], ["r", "y", None]], 0, 1),
            op("read", [["r", "x", None], ["r", "y", 1]], 0, 1, process=9),
        ),
    ),
    "two holders": (
        check_lock,
        history(
            op("acquire", 1, 0, 1, process=1),
            op("acquire", 2, 2, 3, process=2),
            op("release", None, 4, 5, process=1),
            op("release", None, 6, 7, process=2),
        ),
    ),
    "fencing violation": (
        check_lock,
        history(
            op("acquire", 1, 0, 1, process=1),
            op("acquire", 2, 2, 3, process=2),
            op("write", "b", 4, 5, process=2, extra={"token": 2}),
            op("write", "a", 6, 7, process=1, extra={"token": 1}),
        ),
    ),
    "token order": (
        check_lock,
        history(op("acquire", 5, 0, 1, process=1), op("acquire", 5, 2, 3, process=2)),
    ),
    "lost write": (
        check_lost_writes,
        history(
            op("write", 1, 0, 1, key="once-1", node="n1"),
            op("read", None, 4, 5, key="once-1", extra={"final": True}),
        ),
    ),
}


@pytest.mark.parametrize("name", ANOMALIES)
def test_each_anomaly_is_found_and_named(name: str) -> None:
    """Put into a history that is valid without it."""
    check, found = ANOMALIES[name]
    result = check(found)

    assert result.valid is False
    assert result.counterexample is not None
    assert result.counterexample.anomaly == name
    assert 1 <= len(result.counterexample.ops) <= 6
    assert result.counterexample.sentences[0].startswith("1. ")


def test_a_fencing_violation_is_told_with_its_tokens() -> None:
    """What came late, by how much, and after which token."""
    check, found = ANOMALIES["fencing violation"]
    told = check(found).counterexample

    assert told is not None
    first, second = told.sentences
    assert first == "1. Process 2 wrote 'b' with token 2 (sent at t=4, acknowledged at t=5)."
    assert second.startswith(
        "2. Process 1 wrote 'a' with token 1 although token 2 had been accepted before (sent at t=6"
    )


VALID: dict[str, tuple[Callable[[History], Result], History]] = {
    "set, one element seen late": (
        check_set,
        history(*ADDED, op("read", [1], 2, 5), op("read", [1, 2], 6, 7)),
    ),
    "set, unacknowledged element": (
        check_set,
        history(*ADDED, op("add", 3, 4, None), op("read", [1, 2, 3], 5, 6)),
    ),
    "queue": (check_queue, history(*QUEUED, op("dequeue", 1, 4, 5), op("dequeue", 2, 6, 7))),
    "queue, concurrent": (
        check_queue,
        history(*QUEUED, op("dequeue", 2, 4, 7), op("dequeue", 1, 6, 8)),
    ),
    "counter, concurrent add": (
        check_counter,
        history(op("add", 2, 0, 1), op("add", -1, 2, 9), op("read", 1, 3, 4)),
    ),
    "lock with lease": (
        check_lock,
        history(op("acquire", 1, 0, 1, process=1), op("acquire", 2, 2, 3, process=2)),
    ),
    "fenced": (
        check_lock,
        history(
            op("acquire", 1, 0, 1, process=1),
            op("acquire", 2, 2, 3, process=2),
            op("write", "b", 4, 5, process=2, extra={"token": 2}),
            op("write", "a", 6, 7, process=1, extra={"token": 1}, type="fail"),
        ),
    ),
    "overwritten later": (
        check_lost_writes,
        history(
            op("write", 1, 0, 1, key="k"),
            op("write", 2, 0, 3, key="k"),
            op("read", 2, 4, 5, key="k", extra={"final": True}),
        ),
    ),
}


@pytest.mark.parametrize("name", VALID)
def test_no_false_alarm(name: str) -> None:
    """What only looks wrong."""
    check, found = VALID[name]
    assert check(found).valid is True


def test_a_lock_without_lease_is_held_until_released() -> None:
    """Never released: held for ever, unless a lease may have ended it."""
    check, found = VALID["lock with lease"]
    assert check is check_lock
    assert check_lock(found, lease=False).valid is False


def test_an_open_dequeue_may_have_taken_the_message() -> None:
    """One dequeue of unknown fate excuses one missing message, not two."""
    taken = [op("dequeue", None, 4, None), op("dequeue", None, 6, 7)]
    one = check_queue(history(QUEUED[0], *taken))
    two = check_queue(history(*QUEUED, *taken))

    assert one.valid == "unknown"
    assert two.valid is False


def test_lost_writes_tell_node_and_time() -> None:
    """Each lost write with its acknowledging node and time; unknown fate is never lost."""
    final = {"extra": {"final": True}}
    found = history(
        op("write", 1, 0, 1 * SECOND, key="once-1", node="n1"),
        op("write", 2, 1, 2 * SECOND, key="once-2", node="n2"),
        op("write", 3, 2, None, key="once-3", node="n1"),
        op("write", 4, 3, 2 * SECOND, key="k", node="n1"),
        op("write", 5, 3 * SECOND, None, key="k", node="n3"),
        op("write", 6, 4, 5, key="w"),
        op("write", 7, 6, 7, key="w"),
        *(
            op("read", value, 9 * SECOND + at, 9 * SECOND + at, key=key, **final)
            for at, (key, value) in enumerate(
                (("once-1", None), ("once-2", 2), ("once-3", None), ("k", 5), ("w", 6))
            )
        ),
    )
    result = check_lost_writes(found)

    lost = result.stats["lost_writes"]
    assert [(one.key, one.value, one.node, one.acknowledged_ns) for one in lost] == [
        ("w", 7, None, 7),
        ("once-1", 1, "n1", SECOND),
    ]
    assert (result.stats["acknowledged"], result.stats["judged"]) == (5, 5)


def test_lost_writes_need_a_final_read() -> None:
    """A read that began before the last operation had returned is no final one."""
    write = op("write", 1, 0, 9, key="k")
    early = op("read", None, 5, 6, key="k", extra={"final": True})
    result = check_lost_writes(history(write, early))

    assert result.valid == "unknown"
    assert result.stats["keys_without_final_read"] == ["k"]


def test_availability_per_side_and_recovery_time() -> None:
    """The minority answers nothing while the partition lasts, and recovers 2 s after it."""
    ops = []
    for at in range(30):
        for client, node in (("c1", "n1"), ("c2", "n3")):
            cut = client == "c1" and 10 <= at < 22
            one = op("read", 1, at * SECOND, at * SECOND + SECOND // 2, client=client, node=node)
            one.process = at * 2 + (client == "c2")
            one.type = "fail" if cut else "ok"
            ops.append(one)
    value = {"id": 1, "target": "n1 n2 c1 | n3 n4 n5 c2"}
    events = [
        NemesisEvent(0, 9 * SECOND, "invoke", "partition", value | {"phase": "planned"}),
        NemesisEvent(1, 10 * SECOND, "info", "partition", value | {"phase": "injected"}),
        NemesisEvent(2, 11 * SECOND, "info", "partition", value | {"phase": "felt"}),
        NemesisEvent(3, 20 * SECOND, "info", "partition", value | {"phase": "healed"}),
        NemesisEvent(4, 23 * SECOND, "info", "partition", value | {"phase": "recovered"}),
    ]
    found = History(ops, events)

    before, during, after = windows(found)
    assert (before.share("c1"), before.share("c2")) == (1.0, 1.0)
    assert (during.share("c1"), during.share("c2")) == (0.0, 1.0)
    assert after.share("c1") == 0.8
    [recovery] = recoveries(found)
    assert recovery.after_ns == {"c1": 5 * SECOND // 2, "c2": SECOND // 2}
    assert check_availability(found, at_least=0.9).valid is False
    assert check_availability(found, at_least=0.0, recovered_within_s=3).valid is True
    assert check_availability(found, at_least=0.0, recovered_within_s=2).valid is False
    sides = check_availability(found).stats["windows"][1].asked
    assert sides == {"minority": 10, "majority": 10}
