"""Causal and sequential consistency, session guarantees, convergence: against naive checks."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import pytest

from labs.harness.checkers import (
    check_causal,
    check_convergence,
    check_sequential,
    check_session,
)
from labs.harness.checkers.sessions_graph import NotDifferentiated
from labs.harness.history import History, Op


def sessions(*lines: str) -> History:
    """`w x 1`, `r x 1` (0: nothing) per process; one after the other in real time."""
    ops, clock = [], 0
    for process, line in enumerate(lines):
        for text in line.split(","):
            f, key, number = text.split()
            value = int(number) or None
            if f == "w":
                op = Op(process, "write", key, value, clock, clock + 1, "ok", value)
            else:
                op = Op(process, "read", key, None, clock, clock + 1, "ok", value)
            op.index = len(ops)
            ops.append(op)
            clock += 2
    return History(ops)


def random_sessions(random: Random) -> History:
    """Up to nine reads and writes of three processes on two keys; reads of anything written."""
    writes: dict[str, list[int]] = {"x": [0], "y": [0]}
    lines: list[list[str]] = [[] for _ in range(random.randint(2, 3))]
    for fresh in range(1, random.randint(3, 9)):
        key = random.choice("xy")
        line = random.choice(lines)
        if random.random() < 0.5:
            writes[key].append(fresh)
            line.append(f"w {key} {fresh}")
        else:
            line.append(f"r {key} ?")
    filled = [
        [text.replace("?", str(random.choice(writes[text.split()[1]]))) for text in line]
        for line in lines
        if line
    ]
    return sessions(*(",".join(line) for line in filled))


def naive_sequential(history: History) -> bool:
    """Try every interleaving."""
    lines: dict[int, list[Op]] = {}
    for op in history.ops:
        lines.setdefault(op.process, []).append(op)
    queues = list(lines.values())
    seen = set()

    def go(places: tuple[int, ...], state: tuple[tuple[str, Any], ...]) -> bool:
        if all(at == len(queue) for at, queue in zip(places, queues, strict=True)):
            return True
        if (places, state) in seen:
            return False
        seen.add((places, state))
        values = dict(state)
        for number, queue in enumerate(queues):
            if places[number] == len(queue):
                continue
            op = queue[places[number]]
            if op.f == "read" and values.get(str(op.key)) != op.output:
                continue
            after = values if op.f == "read" else values | {str(op.key): op.value}
            moved = (*places[:number], places[number] + 1, *places[number + 1 :])
            if go(moved, tuple(sorted(after.items()))):
                return True
        return False

    return go((0,) * len(queues), ())


def naive_causal(history: History) -> tuple[bool, bool]:
    """(CC, CCv) by the definitions of the bad patterns, with a closure of all pairs."""
    ops = history.ops
    count = len(ops)
    source: dict[int, int | None] = {}
    for r, op in enumerate(ops):
        if op.f == "read":
            found = [
                w
                for w, other in enumerate(ops)
                if (other.f, other.key, other.value) == ("write", op.key, op.output)
            ]
            if not found and op.output is not None:
                return False, False
            source[r] = found[0] if found else None
    before = {
        (a, b)
        for a, b in product(range(count), repeat=2)
        if ops[a].process == ops[b].process and a < b
    }
    before |= {(w, r) for r, w in source.items() if w is not None}
    before = closure(before, count)
    if any(a == b for a, b in before):
        return False, False
    conflict = set()
    for r, w in source.items():
        rivals = [o for o in range(count) if ops[o].f == "write" and ops[o].key == ops[r].key]
        for other in rivals:
            if other == w or (other, r) not in before:
                continue
            if w is None or (w, other) in before:
                return False, False
            conflict.add((other, w))
    return True, not any(a == b for a, b in closure(before | conflict, count))


def closure(pairs: set[tuple[int, int]], count: int) -> set[tuple[int, int]]:
    """Floyd and Warshall."""
    closed = set(pairs)
    for middle, a, b in product(range(count), repeat=3):
        if (a, middle) in closed and (middle, b) in closed:
            closed.add((a, b))
    return closed


def test_agrees_with_naive_checks() -> None:
    """Sequential implies convergent implies causal; each as its definition says."""
    tally = set()
    for seed in range(500):
        history = random_sessions(Random(seed))
        causal, convergent = naive_causal(history)
        sequential = naive_sequential(history)
        tally.add((causal, convergent, sequential))
        assert check_causal(history, "CC").valid is causal, f"seed {seed}"
        assert check_causal(history, "CCv").valid is convergent, f"seed {seed}"
        assert check_sequential(history).valid is sequential, f"seed {seed}"
    assert len(tally) >= 3


@pytest.mark.parametrize(
    ("anomaly", "lines"),
    [
        ("thin-air read", ["r x 7"]),
        ("CyclicCO", ["r x 2,w y 1", "r y 1,w x 2"]),
        ("WriteCOInitRead", ["w x 1,w y 2", "r y 2,r x 0"]),
        ("WriteCORead", ["w x 1,w x 2,w y 3", "r y 3,r x 1"]),
        ("CyclicCF", ["w x 1,r x 2", "w x 2,r x 1"]),
    ],
)
def test_bad_patterns_are_named(anomaly: str, lines: list[str]) -> None:
    """Each bad pattern of Bouajjani et al. is found and named; CyclicCF is allowed by CC."""
    result = check_causal(sessions(*lines), "CCv")
    assert result.valid is False
    assert result.counterexample is not None
    assert result.counterexample.anomaly == anomaly
    assert 1 <= len(result.counterexample.ops) <= 6
    assert check_causal(sessions(*lines), "CC").valid is (anomaly == "CyclicCF")


def test_sequential_is_decided_by_versions_when_they_are_there() -> None:
    """Exact and quick when replies carry versions; real time does not matter."""
    history = sessions("w x 1,w x 2", "r x 1,r x 2,r x 2")
    for op in history.ops:
        op.version = op.output
    assert check_sequential(history).algorithm == "version order"
    assert check_sequential(sessions("w x 1", "r x 0")).valid is True


def test_of_an_unanswered_write_its_readers_know_the_version() -> None:
    """Else one write without an answer would send a long history into the search."""
    history = sessions("w x 1,w y 2", "r y 2,r x 1")
    for op in history.ops:
        op.version = op.output
    history.ops[1].type, history.ops[1].return_ns, history.ops[1].version = "info", None, None
    result = check_sequential(history)
    assert (result.valid, result.algorithm) == (True, "version order")


def test_store_buffering_is_called_by_its_name_and_told_whole() -> None:
    """The litmus test SB: each writes, then reads the other's key as it was. Its story says which
    key, for it is about two."""
    result = check_sequential(sessions("w x 1,r y 0", "w y 2,r x 0"))
    assert result.valid is False
    assert result.counterexample is not None
    assert result.counterexample.anomaly == "store buffering"
    assert [sentence.split(" (")[0] for sentence in result.counterexample.sentences] == [
        "1. Process 0 wrote 1 to x",
        "2. Process 0 read nothing of y",
        "3. Process 1 wrote 2 to y",
        "4. Process 1 read nothing of x",
    ]
    other = check_sequential(sessions("w x 1,r y 0,r y 0", "w y 2,r x 0"))
    assert other.counterexample is not None
    assert other.counterexample.anomaly == "not sequential"


def test_sequential_search_has_a_cap() -> None:
    """Caps give "unknown", never valid."""
    random = Random(5)
    lines = [
        ",".join(f"w k{random.randrange(4)} {p * 1000 + n + 1}" for n in range(200))
        for p in range(8)
    ]
    assert check_sequential(sessions(*lines), timeout_s=0.0).valid == "unknown"
    assert check_sequential(sessions(*lines)).valid is True


def test_values_written_twice() -> None:
    """Reads must name their write."""
    with pytest.raises(NotDifferentiated):
        check_causal(sessions("w x 1", "w x 1"))
    with pytest.raises(ValueError, match="no level"):
        check_causal(sessions("w x 1"), "CM")  # type: ignore[arg-type]


def versioned(*lines: str) -> History:
    """As `sessions`; the version of a value is the value itself."""
    history = sessions(*lines)
    for op in history.ops:
        op.version = op.output
    return history


@pytest.mark.parametrize(
    ("guarantee", "broken", "kept"),
    [
        ("ryw", ["w x 1", "w x 2,r x 1"], ["w x 2", "w x 1,r x 2"]),
        ("mr", ["w x 1,w x 2", "r x 2,r x 1"], ["w x 1,w x 2", "r x 1,r x 2"]),
        ("mw", ["w x 1,w y 2", "r y 2,r x 0"], ["w x 1,w y 2", "r y 2,r x 1"]),
        ("wfr", ["w x 1", "r x 1,w y 2", "r y 2,r x 0"], ["w x 1", "r x 1,w y 2", "r y 2,r x 1"]),
    ],
)
def test_session_guarantees(guarantee: Any, broken: list[str], kept: list[str]) -> None:
    """Terry et al.: each is broken alone by its own shape, and named."""
    result = check_session(versioned(*broken), guarantee)
    assert result.valid is False
    assert result.counterexample is not None
    assert result.counterexample.anomaly.endswith("violation")
    assert check_session(versioned(*kept), guarantee).valid is True
    for other in {"ryw", "mr"} - {guarantee}:
        assert check_session(versioned(*broken), other).valid is True  # type: ignore[arg-type]


def test_without_versions_only_what_is_certain() -> None:
    """A read of nothing after one's own write is certain; which of two values is older is not."""
    assert check_session(sessions("w x 1,r x 0"), "ryw").valid is False
    assert check_session(sessions("w x 1,w x 2,r x 1"), "ryw").valid is False
    assert check_session(sessions("w x 1,r x 2", "w x 2"), "ryw").valid == "unknown"


def test_convergence() -> None:
    """Final reads of a key agree on all nodes."""

    def final(node: str, value: int) -> Op:
        op = Op(0, "read", "x", None, 10, 11, "ok", value, node=node)
        op.extra["final"] = True
        return op

    assert check_convergence(History([final("n1", 1), final("n2", 1)])).valid is True
    assert check_convergence(History([final("n1", 1)])).valid == "unknown"
    apart = check_convergence(History([final("n1", 1), final("n2", 2)]))
    assert apart.valid is False
    assert apart.stats["diverged"] == {"x": [1, 2]}
