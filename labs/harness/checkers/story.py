"""A counterexample told: one numbered sentence per operation, with times, processes and sides."""

from __future__ import annotations

import re
from typing import Any

from labs.harness.checkers.result import Counterexample
from labs.harness.history import History, NemesisEvent, Op

POSITIONS = 100_000
"""Times below this are taken for positions in a log that has no times."""
LONG = 72
"""Letters of a value that a sentence shows."""
MICROS_SHOWN = 6
"""Micro-operations of a transaction that a sentence shows."""

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


# Where a story is about several keys, it says which.
_PREPOSITIONS = {"read": "of", "write": "to", "cas": "of"}


def duration(nanoseconds: int) -> str:
    """A length of time for a human: 1.4 s, 12 ms, 80 us."""
    if nanoseconds >= 1_000_000_000:
        return f"{nanoseconds / 1e9:.1f} s"
    if nanoseconds >= 1_000_000:
        return f"{nanoseconds / 1e6:.0f} ms"
    if nanoseconds >= 1_000:
        return f"{nanoseconds / 1e3:.0f} us"
    return f"{nanoseconds} ns"


class Times:
    """How the instants of a history are told: in seconds, or as positions if it has no times."""

    def __init__(self, history: History) -> None:
        self.are_positions = max((op.invoke_ns for op in history.ops), default=0) < POSITIONS

    def at(self, nanoseconds: int, digits: int = 3) -> str:
        """`1.234 s`; `t=7` where times are only positions."""
        if self.are_positions:
            return f"t={nanoseconds}"
        return f"{nanoseconds / 1e9:.{digits}f} s"

    def when(self, op: Op) -> str:
        """From when to when."""
        if op.return_ns is None:
            return f"sent at {self.at(op.invoke_ns)}"
        if op.f in _ACKNOWLEDGED and op.type == "ok":
            return f"sent at {self.at(op.invoke_ns)}, acknowledged at {self.at(op.return_ns)}"
        return f"{self.at(op.invoke_ns)} to {self.at(op.return_ns)}"


_ACKNOWLEDGED = ("write", "cas", "append", "delete", "add", "enqueue")


def short(value: Any) -> str:
    """A value for a sentence: of a long list only the ends."""
    text = repr(value)
    if len(text) <= LONG:
        return text
    if isinstance(value, (list, tuple)) and len(value) > 3:
        first, second, last = (short(value[at]) for at in (0, 1, -1))
        return f"[{first}, {second}, …, {last}] ({len(value)} elements)"
    return f"{text[: LONG - 1]}…"


def micros(value: Any) -> list[Any] | None:
    """The micro-operations `[f, key, value]` of a transaction, if it is one."""
    whole = isinstance(value, (list, tuple)) and all(
        isinstance(micro, (list, tuple)) and len(micro) == 3 and micro[0] in tuple(_MICRO)
        for micro in value
    )
    return list(value) if whole and value else None


_MICRO = {
    "r": "read {1} of {0}",
    "w": "wrote {1} to {0}",
    "append": "appended {1} to {0}",
}


def tell(history: History, story: Counterexample) -> Counterexample:
    """Fill in the sentences of a counterexample, in the order in which operations returned."""
    times = Times(history)
    ops = sorted(story.ops, key=lambda op: (_end(op), op.index))
    last = max(ops, key=lambda op: op.invoke_ns, default=None)
    several = len({op.key for op in ops if op.f in _PREPOSITIONS}) > 1
    for number, op in enumerate(ops, 1):
        text = f"{number}. {who(history, op)} {did(op)}"
        if several and op.f in _PREPOSITIONS:
            text += f" {_PREPOSITIONS[op.f]} {op.key}"
        late = story.forbidden is not None and op is last and story.forbidden[0] < op.invoke_ns
        if late and story.reason and story.forbidden is not None:
            gap = duration(op.invoke_ns - story.forbidden[0])
            text += f" although {story.reason} {'' if times.are_positions else f'{gap} '}before"
        story.sentences.append(f"{text} ({times.when(op)}).")
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
    parts = micros(op.output if op.type == "ok" else op.value)
    if parts is not None and op.type != "fail":
        asked = "" if op.type == "ok" else "tried this, without an answer: "
        done = (
            _MICRO[f].format(key, "nothing" if value is None else short(value))
            for f, key, value in parts[:MICROS_SHOWN]
        )
        more = f" and {len(parts) - MICROS_SHOWN} more" if len(parts) > MICROS_SHOWN else ""
        return asked + ", ".join(done) + more
    if op.f in ("read", "dequeue"):
        what = " nothing" if op.output is None else f" {short(op.output)}"
        if op.type != "ok":
            return f"tried to {op.f} and got no answer"
    elif op.f == "cas":
        what = f" {op.value[0]!r} by {op.value[1]!r}"
    elif op.value is not None:
        what = f" {short(op.value)}"
    if "token" in op.extra:
        what += f" with token {op.extra['token']}"
    if op.type == "fail":
        told = f" (it was {op.extra['current']!r})" if "current" in op.extra else ""
        return f"was refused {op.f}{what}{told}"
    unknown = ", without an answer," if op.type == "info" else ""
    return f"{verb}{what}{unknown}"


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
