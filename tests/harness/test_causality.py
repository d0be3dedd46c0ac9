"""Dates of a run's messages: joined as they were sent, and judged against what happened before."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

from hypothesis import given

from labs.harness.causality import Step, ahead_ms, dated, happened_before, inversions, judge, steps
from tests.protocols.clocks import executions
from tests.protocols.clocks.executions import Happening

MS = 1_000_000


def flush(at_ms: int, node: str, skew_ms: int = 0, **frames: list[list[Any]]) -> str:
    """A line of telemetry: what `node` sent and received up to then."""
    fields = {"event": "frames", "node": node, "sent": [], "received": [], **frames}
    clocks = {"monotonic_ns": at_ms * MS, "time": (at_ms + skew_ms) / 1000}
    return json.dumps(fields | clocks) + "\n"


def test_a_receipt_is_joined_to_its_sending(tmp_path: Path) -> None:
    """By link and number; the wall clock is the node's own, by the flush that tells of it."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text(
        flush(10, "a", 50, sent=[[5 * MS, "b", 1, "X", 1, None], [7 * MS, "b", 2, "X", 1, None]])
        + json.dumps({"event": "start", "monotonic_ns": 12 * MS}) + "\n"
    )  # fmt: skip
    b.write_text(flush(11, "b", received=[[6 * MS, "a", 1], [8 * MS, "a", 2], [9 * MS, "a", 3]]))

    found = steps({"a": a, "b": b}, since_ns=0, until_ns=20 * MS)

    assert [(step.node, step.true_ns // MS, step.wall_ns // MS, step.cause) for step in found] == [
        ("a", 5, 55, None),
        ("b", 6, 6, 0),
        ("a", 7, 57, None),
        ("b", 8, 8, 2),
        ("b", 9, 9, None),  # its sending was not told
    ]
    dates = dated(found)
    assert inversions(found, dates["wall"]) == [(0, 1), (2, 3)]
    assert not any(inversions(found, dates[clock]) for clock in ("Lamport", "vector", "hybrid"))
    assert ahead_ms(found, dates["hybrid"]) == 49
    assert len(steps({"a": a, "b": b}, since_ns=6 * MS, until_ns=8 * MS)) == 2


def test_a_restarted_node_numbers_its_frames_anew(tmp_path: Path) -> None:
    """A receipt belongs to the last frame of that number."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text(flush(9, "a", sent=[[at * MS, "b", 1, "X", 1, None] for at in (1, 5)]))
    b.write_text(flush(9, "b", received=[[at * MS, "a", 1] for at in (2, 6)]))

    found = steps({"a": a, "b": b}, since_ns=0, until_ns=10 * MS)

    assert [step.cause for step in found] == [None, 0, None, 2]


@given(executions.executions())
def test_judging_agrees_with_the_definition(execution: list[Happening]) -> None:
    """Happened before by closure; vectors are never wrong, wall clocks may be."""
    found = [
        Step(event.process, number, event.wall, event.receives)
        for number, event in enumerate(execution)
    ]
    closure = executions.happened_before(execution)
    dates = dated(found)

    bits = happened_before(found)
    assert [{a for a in range(b) if bits[b] >> a & 1} for b in range(len(found))] == closure
    concurrent = sum(a not in closure[b] for a, b in combinations(range(len(found)), 2))
    assert judge(found, dates["vector"]) == (len(found) * (len(found) - 1) // 2, concurrent, 0)
    walls_wrong = sum(
        found[a].wall_ns >= found[b].wall_ns for b in range(len(found)) for a in closure[b]
    )
    assert judge(found, dates["wall"]).wrong == walls_wrong
