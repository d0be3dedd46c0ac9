"""Who told whom what, in a run: message by message, and how four kinds of clock date it.

Goal: to count where an order of events puts an effect before its cause.
Method: the nodes' telemetry lists every frame that was sent and that came, with the machine's
monotonic clock, which no fault touches: that gives the events of each node in their order, and
joins each receipt to its sending, which is what *happened before* rests on (Lamport 1978). What the
node's own wall clock said at an event follows from the flush that told of it, at most 20 ms later.
The logical clocks are those of `services.protocols.clocks`, moved as the papers say: on by every
event, and beyond what a message carries by its receipt.

In a simulation time stands still while code runs: of events at the same instant the receipts come
first, since what a node sends answers what it has heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from labs.harness.lab.directory import read_lines
from labs.harness.lab.stage import Stage
from services.protocols.clocks import HybridClock, LamportClock, Order, VectorClock, compare

T = TypeVar("T")


class Step(NamedTuple):
    """A frame is sent or comes; `cause` is the place of its sending in the list, for a receipt.

    `true_ns`: the machine's monotonic clock. `wall_ns`: the node's wall clock, skew included.
    """

    node: str
    true_ns: int
    wall_ns: int
    cause: int | None


async def exchanged(stage: Stage, *, since_ns: int, until_ns: int, within_s: float) -> list[Step]:
    """The events of a stage's nodes between two instants of its history, once all are told of."""
    telemetry = {node: stage.cluster.telemetry(node) for node in stage.cluster.nodes}
    since_ns, until_ns = since_ns + stage.recorder.start_ns, until_ns + stage.recorder.start_ns

    def told() -> bool:
        last = [read_lines(path)[-1:] for path in telemetry.values()]
        return all(lines and lines[0]["monotonic_ns"] >= until_ns for lines in last)

    await stage.require(told, within_s=within_s, what="every node has told what it sent till then")
    return steps(telemetry, since_ns=since_ns, until_ns=until_ns)


def steps(telemetry: Mapping[str, Path], *, since_ns: int, until_ns: int) -> list[Step]:
    """The events of the nodes between two instants of the machine's clock, causes first.

    A receipt whose sending was not told (before `since_ns`, or of a node that was killed) is an
    event without a cause.
    """
    found: list[tuple[int, int, str, int, tuple[str, str, int]]] = []
    for node, path in telemetry.items():
        for event in read_lines(path):
            if event["event"] != "frames":
                continue
            ahead_ns = int(event["time"] * 1e9) - event["monotonic_ns"]
            for at_ns, peer, number in event["received"]:
                found.append((at_ns, 0, node, at_ns + ahead_ns, (peer, node, number)))
            for at_ns, peer, number, *_ in event["sent"]:
                found.append((at_ns, 1, node, at_ns + ahead_ns, (node, peer, number)))
    found.sort()
    sent: dict[tuple[str, str, int], int] = {}
    ordered: list[Step] = []
    for at_ns, sends, node, wall_ns, frame in found:
        if not since_ns <= at_ns < until_ns:
            continue
        if sends:
            # A node that restarts numbers its frames anew: a receipt is of the last one.
            sent[frame] = len(ordered)
        ordered.append(Step(node, at_ns, wall_ns, None if sends else sent.pop(frame, None)))
    return ordered


def dated(found: Sequence[Step]) -> dict[str, list[Any]]:
    """Every step by every clock: by `wall`, `Lamport`, `vector` and `hybrid`, in their order."""
    nodes = dict.fromkeys(step.node for step in found)
    lamport = _move(found, {node: LamportClock() for node in nodes}, _tick, _receive)
    vector = _move(found, {node: VectorClock(node) for node in nodes}, _tick, _receive)
    hybrid = _move(
        found,
        {node: HybridClock() for node in nodes},
        lambda clock, step: clock.tick(step.wall_ns),
        lambda clock, step, message: clock.receive(step.wall_ns, message),
    )
    wall = [step.wall_ns for step in found]
    return {"wall": wall, "Lamport": lamport, "vector": vector, "hybrid": hybrid}


def _move(
    found: Sequence[Step],
    clocks: Mapping[str, Any],
    tick: Callable[[Any, Step], T],
    receive: Callable[[Any, Step, T], T],
) -> list[T]:
    dates: list[T] = []
    for step in found:
        clock = clocks[step.node]
        dates.append(
            tick(clock, step) if step.cause is None else receive(clock, step, dates[step.cause])
        )
    return dates


def _tick(clock: Any, _: Step) -> Any:
    return clock.tick()


def _receive(clock: Any, _: Step, message: Any) -> Any:
    return clock.receive(message)


def earlier(a: Any, b: Any) -> bool:
    """Is the date `a` before `b`? Vectors compare by `compare`, all others by size."""
    return compare(a, b) is Order.BEFORE if isinstance(a, dict) else bool(a < b)


def inversions(found: Sequence[Step], dates: Sequence[Any]) -> list[tuple[int, int]]:
    """(sending, receipt) of every message that these dates say came before it was sent."""
    return [
        (step.cause, place)
        for place, step in enumerate(found)
        if step.cause is not None and earlier(dates[place], dates[step.cause])
    ]


def happened_before(found: Sequence[Step]) -> list[int]:
    """For each step the set of those that happened before it, as the bits of a number: by the
    definition, from the order within nodes and the messages alone."""
    before: list[int] = []
    last: dict[str, int] = {}
    for place, step in enumerate(found):
        known = 0
        for cause in (last.get(step.node), step.cause):
            if cause is not None:
                known |= before[cause] | 1 << cause
        before.append(known)
        last[step.node] = place
    return before


class Judged(NamedTuple):
    """Of `pairs` of events: how many are `concurrent`, and about how many the dates are `wrong`:
    an effect not after its cause, or, where dates can say "neither", an order that is none."""

    pairs: int
    concurrent: int
    wrong: int


def judge(found: Sequence[Step], dates: Sequence[Any]) -> Judged:
    """Every pair of steps, by its dates and by what happened before what."""
    before = happened_before(found)
    pairs = concurrent = wrong = 0
    for b in range(len(found)):
        for a in range(b):
            pairs += 1
            caused = bool(before[b] >> a & 1)
            concurrent += not caused
            if caused:
                wrong += not earlier(dates[a], dates[b])
            elif isinstance(dates[a], dict):
                wrong += compare(dates[a], dates[b]) is not Order.CONCURRENT
    return Judged(pairs, concurrent, wrong)


def ahead_ms(found: Iterable[Step], hybrid: Iterable[Any]) -> float:
    """The furthest that a hybrid date was ahead of the wall clock of the node that gave it."""
    ahead_ns = (date.l - step.wall_ns for step, date in zip(found, hybrid, strict=True))
    return max(ahead_ns, default=0) / 1e6
