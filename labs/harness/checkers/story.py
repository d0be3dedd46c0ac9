"""A counterexample told: one numbered sentence per operation, with times, processes and sides."""

from __future__ import annotations

import re
from typing import Any

from labs.harness.checkers.result import Counterexample
from labs.harness.history import History, NemesisEvent, Op

POSITIONS = 100_000
"""Times below this are taken for positions in a log that has no times."""

_PAST = {
    "read": "read",
    "write": "wrote",
    "cas": "replaced",
    "delete": "deleted the key",
    "append": "appended",
    "add": "added",
    "remove": "removed",
    "enqueue": "enqueued",
    "dequeue": "dequeued",
    "acquire": "acquired the lock",
    "release": "released the lock",
    "transfer": "transferred",
    "txn": "ran the transaction",
}


def duration(nanoseconds: int) -> str:
    """A length of time for a human: 1.4 s, 12 ms, 80 us."""
    if nanoseconds >= 1_000_000_000:
        return f"{nanoseconds / 1e9:.1f} s"
    if nanoseconds >= 1_000_000:
        return f"{nanoseconds / 1e6:.0f} ms"
    if nanoseconds >= 1_000:
        return f"{nanoseconds / 1e3:.0f} us"
    return f"{nanoseconds} ns"


def at(nanoseconds: int) -> str:
    """An instant of the run, in seconds; the bare number where times are only positions."""
    if 0 < nanoseconds < POSITIONS:
        return f"t={nanoseconds}"
    return f"{nanoseconds / 1e9:.3f} s"


def tell(history: History, story: Counterexample) -> Counterexample:
    """Fill in the sentences of a counterexample, in the order in which operations returned."""
    ops = sorted(story.ops, key=lambda op: (_end(op), op.index))
    last = max(ops, key=lambda op: op.invoke_ns, default=None)
    for number, op in enumerate(ops, 1):
        text = f"{number}. {who(history, op)} {did(op)}"
        late = story.forbidden is not None and op is last and story.forbidden[0] < op.invoke_ns
        if late and story.reason and story.forbidden is not None:
            gap = duration(op.invoke_ns - story.forbidden[0])
            # Logs without times: positions stand in for them.
            text += (
                f" although {story.reason} {'' if op.invoke_ns < POSITIONS else f'{gap} '}before"
            )
        story.sentences.append(f"{text} ({when(op)}).")
    return story


def _end(op: Op) -> int:
    return op.return_ns if op.return_ns is not None else 1 << 62


def who(history: History, op: Op) -> str:
    """`Process 7, on the minority side (n2),`."""
    side = Sides(history).of(op)
    place = op.node or op.client
    if side is not None:
        return f"Process {op.process}, on the {side} side ({place}),"
    return f"Process {op.process}" if place is None else f"Process {op.process}, at {place},"


def did(op: Op) -> str:
    """What an operation did, in the past tense, with how it ended."""
    verb = _PAST.get(op.f, op.f)
    what = ""
    if op.f in ("read", "dequeue"):
        what = " nothing" if op.output is None else f" {op.output!r}"
        if op.type != "ok":
            return f"tried to {op.f} and got no answer"
    elif op.f == "cas":
        what = f" {op.value[0]!r} by {op.value[1]!r}"
    elif op.value is not None:
        what = f" {op.output if op.f == 'txn' and op.type == 'ok' else op.value!r}"
    if op.type == "fail":
        told = f" (it was {op.extra['current']!r})" if "current" in op.extra else ""
        return f"was refused {op.f}{what}{told}"
    unknown = ", without an answer," if op.type == "info" else ""
    return f"{verb}{what}{unknown}"


def when(op: Op) -> str:
    """From when to when."""
    if op.return_ns is None:
        return f"sent at {at(op.invoke_ns)}"
    if op.f in ("write", "cas", "append", "delete", "add", "enqueue") and op.type == "ok":
        return f"sent at {at(op.invoke_ns)}, acknowledged at {at(op.return_ns)}"
    return f"{at(op.invoke_ns)} to {at(op.return_ns)}"


def partitions(history: History) -> list[tuple[int, int, NemesisEvent]]:
    """(begin, end, event) of each fault: from its injection to its end.

    Two dialects: events with `{"id", "phase"}` (ours), and Jepsen's pairs of names
    (`start_partition` … `stop_partition`).
    """
    found: list[tuple[int, int, NemesisEvent]] = []
    active: dict[Any, NemesisEvent] = {}
    for event in history.nemesis:
        value = event.value if isinstance(event.value, dict) else {}
        name, phase = value.get("id", event.f.partition("_")[2]), value.get("phase")
        if event.type == "invoke" or phase in ("planned", "felt", "unfelt", "failed"):
            continue
        if phase in _OVER or (phase is None and event.f.startswith(_UNDONE)):
            if name not in active and phase is None and active:
                name = next(iter(active))  # Jepsen's `heal` names no fault
            if (began := active.pop(name, None)) is not None:
                found.append((began.time_ns, event.time_ns, began))
        else:
            active.setdefault(name, event)
    end = max((op.return_ns or op.invoke_ns for op in history.ops), default=0)
    found += [(began.time_ns, max(end, began.time_ns), began) for began in active.values()]
    return sorted(found, key=lambda item: item[0])


_OVER = ("healed", "ended", "recovered", "unrecovered")
_UNDONE = ("heal", "stop", "recover", "resume", "undo", "end")


class Sides:
    """Who stood on which side of a partition, and when."""

    def __init__(self, history: History) -> None:
        clients = {op.client for op in history.ops}
        self._partitions: list[tuple[int, int, dict[str, str]]] = []
        for begin, end, event in partitions(history):
            sides = groups(event.value)
            if len(sides) < 2:
                continue
            # Client groups stand with nodes but do not count as such.
            nodes = [
                sum(name not in clients and re.fullmatch(r"c\d+", name) is None for name in side)
                for side in sides
            ]
            names = {
                member: "majority" if count * 2 > sum(nodes) else "minority"
                for side, count in zip(sides, nodes, strict=True)
                for member in side
            }
            self._partitions.append((begin, end, names))

    def of(self, op: Op) -> str | None:
        """ "minority" or "majority" if a partition with known sides overlapped the operation."""
        end = op.return_ns if op.return_ns is not None else op.invoke_ns
        for begin, over, names in self._partitions:
            if begin <= end and op.invoke_ns <= over:
                for place in (op.node, op.client):
                    if place is not None and place in names:
                        return names[place]
        return None


def groups(value: Any) -> list[list[str]]:
    """The sides of a partition in what the nemesis wrote: `n1 c1 | n2 n3`, or lists of nodes."""
    if isinstance(value, dict):
        target = value.get("target")
        if isinstance(target, str) and " | " in target:
            return [side.split() for side in target.split(" | ")]
        for name in ("sides", "components", "groups"):
            if name in value:
                return groups(value[name])
        return []
    if isinstance(value, (list, tuple)) and all(isinstance(side, (list, tuple)) for side in value):
        return [list(side) for side in value]
    return []
