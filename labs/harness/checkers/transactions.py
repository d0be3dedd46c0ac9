"""The transactions of a history, and what does not depend on the data type."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from labs.harness.checkers.dependencies import Graph
from labs.harness.checkers.result import freeze
from labs.harness.checkers.story import Times, did, who
from labs.harness.history import History, Op

Micro = tuple[str, Any, Any]  # "r", "append" or "w"; frozen key; value
Version = tuple[Any, Any]  # (key, value)


@dataclass(slots=True)
class Anomaly:
    """One instance of an anomaly."""

    name: str
    text: str
    ops: list[Op]
    sentences: list[str] = field(default_factory=list)

    def tell(self, history: History) -> list[str]:
        """Its numbered sentences: those that it came with, else one per transaction."""
        if self.sentences:
            return self.sentences
        times = Times(history)
        lines = [f"{who(history, op)} {did(op)} ({times.when(op)})" for op in self.ops[:5]]
        lines.append(f"{self.name[0].upper()}{self.name[1:]}: {self.text}")
        return [f"{number}. {line}." for number, line in enumerate(lines, 1)]


class Txns:
    """Committed (`ok`), indeterminate (`info`) and aborted (`fail`) transactions.

    `ops` are the first two kinds, in the order of their calls; vertices of the graph are positions
    in it. An indeterminate transaction has committed if somebody read what it wrote.
    """

    def __init__(self, history: History, write: str) -> None:
        self.write = write
        self.times = Times(history)
        self.ops = [op for op in history.ops if op.type != "fail"]
        self.micros = [micro_operations(op, write) for op in self.ops]
        self.writer: dict[Version, int] = {}
        self.final: dict[tuple[int, Any], Any] = {}  # (transaction, key) -> its last write
        self.aborted: dict[Version, Op] = {}
        for number, micros in enumerate(self.micros):
            for f, key, value in micros:
                if f == write:
                    if (key, value) in self.writer:
                        raise ValueError(f"{write} of {value!r} to {key!r} twice: not unique")
                    self.writer[key, value] = number
                    self.final[number, key] = value
        for op in history.ops:
            if op.type == "fail":
                for f, key, value in micro_operations(op, write):
                    if f == write:
                        self.aborted[key, value] = op

    def committed(self, number: int) -> bool:
        """It was acknowledged."""
        return self.ops[number].type == "ok"

    def order(self, graph: Graph) -> None:
        """Add the edges of processes and of real time.

        Real time is reduced: a transaction is linked to those that had returned when it was
        called, unless another one stands between.
        """
        last: dict[int, int] = {}
        for number, op in enumerate(self.ops):
            if (before := last.get(op.process)) is not None:
                graph.add(before, number, "process", "they are of one process")
            last[op.process] = number
        calls = sorted(range(len(self.ops)), key=lambda n: self.ops[n].invoke_ns)
        ends = [n for n in calls if self.ops[n].return_ns is not None]
        ends.sort(key=lambda n: self.ops[n].return_ns or 0)
        frontier: set[int] = set()
        done = 0
        linked: dict[int, set[int]] = {}
        for number in calls:
            called = self.ops[number].invoke_ns
            while done < len(ends) and (self.ops[ends[done]].return_ns or 0) < called:
                ended = ends[done]
                frontier -= linked.pop(ended, set())
                frontier.add(ended)
                done += 1
            linked[number] = set(frontier)
            for before in frontier:
                gap = f"it had returned at {self.times.at(self.ops[before].return_ns or 0)}"
                graph.add(before, number, "realtime", gap)


def micro_operations(op: Op, write: str) -> list[Micro]:
    """`[f, key, value]` of a transaction; of an indeterminate one, what it was asked to do.

    Raises:
        ValueError: it is not a transaction of this workload.
    """
    done = op.output if op.type == "ok" else op.value
    micros: list[Micro] = []
    for micro in done if isinstance(done, (list, tuple)) else [done]:
        if not (isinstance(micro, (list, tuple)) and len(micro) == 3 and micro[0] in ("r", write)):
            raise ValueError(f"process {op.process}: {micro!r} is neither r nor {write}")
        f, key, value = micro
        if f == "r":
            if op.type != "ok":
                continue  # nobody knows what it read
            if write == "append":
                if value is not None and not isinstance(value, (list, tuple)):
                    raise ValueError(f"process {op.process} read {value!r}, not a list")
                micros.append((f, freeze(key), tuple(map(freeze, value or ()))))
                continue
        micros.append((f, freeze(key), freeze(value)))
    return micros


def lost_updates(txns: Txns) -> list[Anomaly]:
    """Two committed transactions that read the same version and both wrote it."""
    groups: dict[tuple[Any, Any], list[int]] = {}
    for number, micros in enumerate(txns.micros):
        read: dict[Any, Any] = {}
        written: set[Any] = set()
        for f, key, value in micros:
            if f == "r" and key not in written:
                read.setdefault(key, value)
            elif f != "r" and key not in written:
                written.add(key)
                if key in read and txns.committed(number):
                    groups.setdefault((key, read[key]), []).append(number)
    return [
        Anomaly(
            "lost-update",
            f"key {key!r}: {len(numbers)} transactions updated the same version",
            [txns.ops[number] for number in numbers[:5]],
        )
        for (key, _), numbers in groups.items()
        if len(numbers) > 1
    ]
