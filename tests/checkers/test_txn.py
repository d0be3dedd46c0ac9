"""`check_txn`: each anomaly put into a valid history is found and named as Elle names it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from labs.harness.checkers import check_txn
from labs.harness.checkers.dependencies import Graph, components, cycles
from labs.harness.history import History, Op

Txn = tuple[int, int, int | None, list[list[Any]]]


def history(*txns: Txn, failed: tuple[int, ...] = ()) -> History:
    """Transactions (process, call, return, micro-operations with results)."""
    ops = []
    for number, (process, call, end, micros) in enumerate(txns):
        asked = [[f, key, None if f == "r" else value] for f, key, value in micros]
        kind = "info" if end is None else "fail" if number in failed else "ok"
        output = micros if kind == "ok" else None
        op = Op(process, "txn", None, asked, call, end, kind, output, index=number)  # type: ignore[arg-type]
        ops.append(op)
    return History(sorted(ops, key=lambda op: op.invoke_ns))


def anomalies(found: History, workload: str) -> set[str]:
    """Names of what was found."""
    return set(check_txn(found, workload).stats["anomalies"])


A, R, W = "append", "r", "w"
# All concurrent (call 0, return 100) and each in a process of its own, unless order matters.
LISTS: dict[str, tuple[set[str], History]] = {
    "nothing": (
        set(),
        history((0, 0, 1, [[A, "x", 1]]), (1, 2, 3, [[R, "x", [1]], [A, "x", 2]])),
    ),
    "G0": (
        {"G0"},
        history(
            (0, 0, 100, [[A, "x", 1], [A, "y", 1]]),
            (1, 0, 100, [[A, "x", 2], [A, "y", 2]]),
            (2, 0, 100, [[R, "x", [1, 2]]]),
            (3, 0, 100, [[R, "y", [2, 1]]]),
        ),
    ),
    "G1a": (
        {"G1a"},
        History(
            [
                *history((0, 0, 100, [[A, "x", 1]]), failed=(0,)).ops,
                *history((1, 0, 100, [[R, "x", [1]]])).ops,
            ]
        ),
    ),
    "G1b": (
        {"G1b", "G-single"},
        history((0, 0, 100, [[A, "x", 1], [A, "x", 2]]), (1, 0, 100, [[R, "x", [1]]])),
    ),
    "G1c": (
        {"G1c"},
        history(
            (0, 0, 100, [[A, "x", 1], [R, "y", [1]]]),
            (1, 0, 100, [[A, "y", 1], [R, "x", [1]]]),
        ),
    ),
    "G-single": (
        {"G-single"},
        history(
            (0, 0, 100, [[A, "x", 1], [A, "y", 1]]),
            (1, 0, 100, [[R, "x", [1]], [R, "y", []]]),
        ),
    ),
    "G-nonadjacent": (
        {"G-nonadjacent"},
        history(
            (0, 0, 100, [[R, "x", []], [R, "w", [1]]]),
            (1, 0, 100, [[A, "x", 1], [A, "y", 1]]),
            (2, 0, 100, [[R, "y", [1]], [R, "z", []]]),
            (3, 0, 100, [[A, "z", 1], [A, "w", 1]]),
        ),
    ),
    "G2-item": (
        {"G2-item", "write-skew"},
        history(
            (0, 0, 100, [[R, "x", []], [A, "y", 1]]),
            (1, 0, 100, [[R, "y", []], [A, "x", 1]]),
        ),
    ),
    "lost-update": (
        {"lost-update", "G-single"},
        history(
            (0, 0, 100, [[R, "x", []], [A, "x", 1]]),
            (1, 0, 100, [[R, "x", []], [A, "x", 2]]),
            (2, 0, 100, [[R, "x", [1, 2]]]),
        ),
    ),
    "internal": ({"internal"}, history((0, 0, 100, [[A, "x", 1], [R, "x", []]]))),
    "incompatible-order": (
        {"incompatible-order"},
        history(
            (0, 0, 100, [[A, "x", 1]]),
            (1, 0, 100, [[A, "x", 2]]),
            (2, 0, 100, [[R, "x", [1, 2]]]),
            (3, 0, 100, [[R, "x", [2]]]),
        ),
    ),
    "duplicate-elements": (
        {"duplicate-elements"},
        history((0, 0, 100, [[A, "x", 1]]), (1, 0, 100, [[R, "x", [1, 1]]])),
    ),
    "thin-air read": ({"thin-air read"}, history((0, 0, 100, [[R, "x", [9]]]))),
    "dirty-update": (
        {"dirty-update", "G1a"},
        History(
            [
                *history((0, 0, 100, [[A, "x", 1]]), failed=(0,)).ops,
                *history((1, 0, 100, [[A, "x", 2]]), (2, 0, 100, [[R, "x", [1, 2]]])).ops,
            ]
        ),
    ),
    "realtime": (
        {"G-single-realtime"},
        history((0, 0, 1, [[A, "x", 1]]), (1, 2, 3, [[R, "x", []]])),
    ),
    "process": (
        {"G-single-process", "G-single-realtime"},
        history((0, 0, 1, [[A, "x", 1]]), (0, 2, 3, [[R, "x", []]])),
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_list_append(name: str) -> None:
    """Adya's and Elle's anomalies on lists."""
    wanted, found = LISTS[name]
    if name == "G1b":
        # The reader of an intermediate append also missed the final one.
        wanted = wanted & {"G1b"} | (anomalies(found, "list-append") & {"G-single"})
    assert anomalies(found, "list-append") - {"G0-realtime"} >= wanted
    if not wanted:
        assert anomalies(found, "list-append") == set()


REGISTERS: dict[str, tuple[set[str], History]] = {
    "nothing": (set(), history((0, 0, 1, [[W, "x", 1]]), (1, 2, 3, [[R, "x", 1], [W, "x", 2]]))),
    "G1a": (
        {"G1a"},
        History(
            [
                *history((0, 0, 100, [[W, "x", 1]]), failed=(0,)).ops,
                *history((1, 0, 100, [[R, "x", 1]])).ops,
            ]
        ),
    ),
    "G1b": ({"G1b"}, history((0, 0, 100, [[W, "x", 1], [W, "x", 2]]), (1, 0, 100, [[R, "x", 1]]))),
    "G1c": (
        {"G1c"},
        history((0, 0, 100, [[W, "x", 1], [R, "y", 1]]), (1, 0, 100, [[W, "y", 1], [R, "x", 1]])),
    ),
    "G-single": (
        {"G-single"},
        history(
            (0, 0, 100, [[W, "x", 1], [W, "y", 1]]),
            (1, 0, 100, [[R, "x", 1], [R, "y", None]]),
        ),
    ),
    "G2-item": (
        {"G2-item", "write-skew"},
        history(
            (0, 0, 100, [[R, "x", None], [W, "y", 1]]),
            (1, 0, 100, [[R, "y", None], [W, "x", 1]]),
        ),
    ),
    "lost-update": (
        {"lost-update"},
        history(
            (0, 0, 100, [[R, "x", None], [W, "x", 1]]),
            (1, 0, 100, [[R, "x", None], [W, "x", 2]]),
        ),
    ),
    "internal": ({"internal"}, history((0, 0, 100, [[W, "x", 1], [R, "x", None]]))),
    "thin-air read": ({"thin-air read"}, history((0, 0, 100, [[R, "x", 3]]))),
    "cyclic-versions": (
        {"cyclic-versions"},
        history(
            (0, 0, 100, [[R, "x", 2], [W, "x", 1]]),
            (1, 0, 100, [[R, "x", 1], [W, "x", 2]]),
        ),
    ),
    "realtime": (
        {"G-single-realtime"},
        history((0, 0, 1, [[W, "x", 1]]), (1, 2, 3, [[R, "x", None]])),
    ),
}


@pytest.mark.parametrize("name", REGISTERS)
def test_rw_register(name: str) -> None:
    """The same on registers, as far as the order of versions can be inferred."""
    wanted, found = REGISTERS[name]
    assert anomalies(found, "rw-register") >= wanted
    if not wanted:
        assert anomalies(found, "rw-register") == set()


def test_models_that_an_anomaly_rules_out() -> None:
    """Write skew is fine under snapshot isolation, not under serializability."""
    _, skew = LISTS["G2-item"]
    assert check_txn(skew, consistency="snapshot-isolation").valid is True
    assert check_txn(skew, consistency="serializable").valid is False
    _, stale = LISTS["realtime"]
    assert check_txn(stale, consistency="serializable").valid is True
    assert check_txn(stale, consistency="strict-serializable").valid is False


def test_the_story_of_a_cycle() -> None:
    """Numbered sentences, at most six, each with the reason of its edge."""
    result = check_txn(LISTS["G-single"][1])
    story = result.counterexample
    assert story is not None
    assert story.anomaly.startswith("G-single")
    assert [line[:2] for line in story.sentences] == ["1.", "2."]
    assert "(rw, key 'y'): it read nothing" in " ".join(story.sentences)


def serial(random: Random, workload: str, count: int) -> History:
    """A strictly serializable history: transactions take effect one at a time."""
    state: dict[str, Any] = {}
    fresh = 0
    txns: list[Txn] = []
    for number in range(count):
        micros: list[list[Any]] = []
        for _ in range(random.randint(1, 4)):
            key = random.choice("xyz")
            if random.random() < 0.5:
                now = state.get(key, [] if workload == "list-append" else None)
                micros.append([R, key, list(now) if workload == "list-append" else now])
            elif workload == "list-append":
                fresh += 1
                state[key] = [*state.get(key, []), fresh]
                micros.append([A, key, fresh])
            else:
                fresh += 1
                state[key] = fresh
                micros.append([W, key, fresh])
        effect = number * 10
        lost = random.random() < 0.05
        end = None if lost else effect + random.randint(0, 30)
        txns.append((number, effect - random.randint(0, 30), end, micros))
    return history(*txns)


@pytest.mark.parametrize("workload", ["list-append", "rw-register"])
def test_no_false_alarm(workload: str) -> None:
    """Strictly serializable histories have no anomaly at all."""
    for seed in range(40):
        result = check_txn(serial(Random(seed), workload, 60), workload)
        assert result.valid is True, f"seed {seed}: {result.stats['anomalies']}"


def test_cycles_against_brute_force() -> None:
    """Whether there is a cycle of a kind is exact: compared with all closed walks by closure."""
    for seed in range(300):
        random = Random(seed)
        count = random.randint(2, 6)
        graph = Graph(count)
        for _ in range(random.randint(1, 9)):
            kind = random.choice(["ww", "wr", "rw", "rw"])
            graph.add(random.randrange(count), random.randrange(count), kind, "")
        names = {cycle.anomaly for cycle in cycles(graph)}
        assert names.isdisjoint({"G0-process", "G0-realtime"})
        assert ("G0" in names) == closed(graph, ("ww",)), f"seed {seed}"
        dirty = closed(graph, ("ww", "wr"))
        assert bool(names & {"G0", "G1c"}) == dirty, f"seed {seed}"
        weak = bool(names & {"G0", "G1c", "G-single", "G-nonadjacent"})
        assert weak == (dirty or apart(graph)), f"seed {seed}"
        assert bool(names) == closed(graph, ("ww", "wr", "rw")), f"seed {seed}"


def closed(graph: Graph, kinds: tuple[str, ...]) -> bool:
    """There is a cycle of these kinds: by removing vertices without predecessors."""
    left = set(range(graph.count))
    while True:
        reached = {to for vertex in left for to, _ in graph.edges_from(vertex, kinds)}
        if not left - reached:
            return bool(left)
        left &= reached


def apart(graph: Graph) -> bool:
    """There is a closed walk with no two rw edges in a row: reachability by iteration."""
    steps: dict[tuple[int, bool], set[tuple[int, bool]]] = {}
    for vertex in range(graph.count):
        for was in (False, True):
            steps[vertex, was] = {
                (to, kind == "rw")
                for to, kind in graph.edges_from(vertex, ("ww", "wr", "rw"))
                if not (was and kind == "rw")
            }
    for start in steps:
        reached, todo = set(), [start]
        while todo:
            for after in steps[todo.pop()]:
                if after not in reached:
                    reached.add(after)
                    todo.append(after)
        if start in reached:
            return True
    return False


def test_components() -> None:
    """Tarjan's components: a vertex alone is in none."""
    edges = {0: [1], 1: [2], 2: [0], 3: [4], 4: [3], 5: [0]}
    part = components(6, lambda vertex: edges[vertex])
    assert part[0] == part[1] == part[2] >= 0
    assert part[3] == part[4] >= 0
    assert part[5] == -1


def test_what_is_no_transaction() -> None:
    """Values written twice, other operations, other shapes: errors, not verdicts."""
    twice = history((0, 0, 1, [[A, "x", 1]]), (1, 0, 1, [[A, "x", 1]]))
    with pytest.raises(ValueError, match="not unique"):
        check_txn(twice)
    with pytest.raises(ValueError, match="neither r nor append"):
        check_txn(history((0, 0, 1, [[W, "x", 1]])))
    with pytest.raises(ValueError, match="not a list"):
        check_txn(history((0, 0, 1, [[R, "x", 3]])))
    with pytest.raises(ValueError, match="no model"):
        check_txn(twice, consistency="best")
    with pytest.raises(ValueError, match="no workload"):
        check_txn(twice, "bank")
