"""Transactions: `check_txn`, with Elle's names for what goes wrong.

A history of transactions on lists (`["append", key, value]`, `["r", key, [...]]`) or registers
(`["w", key, value]`, `["r", key, value]`) is turned into a graph of dependencies; cycles in it, and
a few patterns that need no graph, are anomalies; anomalies rule out consistency models. Every
written value is unique per key (Kingsbury & Alvaro, *Elle*, VLDB 2020).
"""

from __future__ import annotations

from typing import Any

from labs.harness.checkers.dependencies import Cycle, cycles
from labs.harness.checkers.list_append import list_append
from labs.harness.checkers.result import Counterexample, Result, collector_off
from labs.harness.checkers.rw_register import rw_register
from labs.harness.checkers.transactions import Anomaly, Txns
from labs.harness.history import History

_ALWAYS = {"duplicate-elements", "incompatible-order", "cyclic-versions", "thin-air read"}
_READ_UNCOMMITTED = _ALWAYS | {"G0"}
_READ_COMMITTED = _READ_UNCOMMITTED | {"G1a", "G1b", "G1c", "dirty-update"}
_SNAPSHOT = _READ_COMMITTED | {"internal", "G-single", "G-nonadjacent", "lost-update"}
_REPEATABLE = _READ_COMMITTED | {"internal", "G-single", "G-nonadjacent", "G2-item", "lost-update"}
_SERIALIZABLE = _SNAPSHOT | _REPEATABLE | {"write-skew"}
_CYCLES = ("G0", "G1c", "G-single", "G-nonadjacent", "G2-item")


MAX_OPS = 6
"""Transactions that a story shows."""


def _with(base: set[str], suffixes: tuple[str, ...], names: tuple[str, ...] = _CYCLES) -> set[str]:
    return base | {f"{name}-{suffix}" for name in names for suffix in suffixes}


MODELS: dict[str, set[str]] = {
    "read-uncommitted": _READ_UNCOMMITTED,
    "read-committed": _READ_COMMITTED,
    "repeatable-read": _REPEATABLE,
    "snapshot-isolation": _SNAPSHOT,
    "strong-session-snapshot-isolation": _with(_SNAPSHOT, ("process",), _CYCLES[:4]),
    "strong-snapshot-isolation": _with(_SNAPSHOT, ("process", "realtime"), _CYCLES[:4]),
    "serializable": _SERIALIZABLE,
    "strong-session-serializable": _with(_SERIALIZABLE, ("process",)),
    "strict-serializable": _with(_SERIALIZABLE, ("process", "realtime")),
}
"""Consistency models and the anomalies that each rules out."""


def check_txn(
    history: History,
    workload: str = "list-append",
    *,
    consistency: str = "strict-serializable",
    explain: bool = True,
) -> Result:
    """Does the history have an anomaly that `consistency` rules out?

    Returns:
        `stats["anomalies"]`: name -> description of one instance, all that were found;
        `stats["violates"]`: all models of `MODELS` that are ruled out.

    Raises:
        ValueError: unknown workload or model, or a value written twice to one key.
    """
    if consistency not in MODELS:
        raise ValueError(f"no model {consistency!r}; there are {', '.join(MODELS)}")
    if workload not in ("list-append", "rw-register"):
        raise ValueError(f"no workload {workload!r}; there are list-append, rw-register")
    with collector_off():
        txns = Txns(history, "append" if workload == "list-append" else "w")
        analyse = list_append if workload == "list-append" else rw_register
        graph, patterns = analyse(txns)
        txns.order(graph)
        found: dict[str, Anomaly] = {one.name: one for one in reversed(patterns)}
        for cycle in cycles(graph):
            found.setdefault(cycle.anomaly, _told(txns, graph.why, cycle))
            if _write_skew(graph.why, cycle):
                found.setdefault("write-skew", found[cycle.anomaly])
    broken = [name for name, ruled_out in MODELS.items() if ruled_out & found.keys()]
    stats: dict[str, Any] = {"transactions": len(txns.ops), "violates": broken}
    stats["anomalies"] = {name: one.text for name, one in sorted(found.items())}
    stats["edges"] = len(graph.why)
    if consistency not in broken:
        return Result(True, f"{workload} dependency graph", stats=stats)
    bad = [one for name, one in found.items() if name in MODELS[consistency]]
    # The first that can be told whole; cycles of real time may be long.
    worst = next((one for one in bad if len(one.ops) <= MAX_OPS), bad[0])
    story = None
    if explain:
        story = Counterexample(
            worst.name, worst.text, worst.ops[:MAX_OPS], sentences=worst.tell(history)
        )
    return Result(False, f"{workload} dependency graph", story, stats=stats)


def _write_skew(why: dict[Any, str], cycle: Cycle) -> bool:
    """Two transactions that each overwrite what the other read, on different keys."""
    if len(cycle.edges) != 2 or any(kind != "rw" for _, _, kind in cycle.edges):
        return False
    keys = {why[edge].partition(":")[0] for edge in cycle.edges}
    return len(keys) == 2


def _told(txns: Txns, why: dict[Any, str], cycle: Cycle) -> Anomaly:
    ops = [txns.ops[before] for before, _, _ in cycle.edges]
    at = txns.times.at
    sentences = []
    for number, edge in enumerate(cycle.edges, 1):
        before, after = txns.ops[edge[0]], txns.ops[edge[1]]
        reason = why[edge].partition(": ")
        # "key 8: it read nothing …": the key stands with the kind of the edge.
        text = reason[2] if reason[1] else why[edge]
        kind = f"{edge[2]}, {reason[0]}" if reason[1] else edge[2]
        sentences.append(
            f"{number}. Process {before.process}'s transaction of {at(before.invoke_ns)} must come "
            f"before process {after.process}'s of {at(after.invoke_ns)} ({kind}): {text}."
        )
    if len(sentences) > MAX_OPS:
        left = len(sentences) - MAX_OPS
        closing = sentences[-1].partition(" ")[2].removeprefix("Process")
        last = f"{MAX_OPS}. So it goes on for {left} steps; at last, process{closing}"
        sentences = [*sentences[: MAX_OPS - 1], last]
    text = f"a cycle of {len(ops)} transactions: " + " -> ".join(kind for _, _, kind in cycle.edges)
    return Anomaly(cycle.anomaly, text, ops, sentences)
