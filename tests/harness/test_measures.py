"""What a lab counts of the nodes' own telemetry while it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from labs.harness.lab.measures import Tail
from labs.harness.lab.stage import Stage

MS = 1_000_000
START_NS = 5_000 * MS
NODES = ("n1", "n2", "n4")


@pytest.fixture
def told(tmp_path: Path) -> Tail:
    """Of three nodes whose telemetry is written by `frames`."""
    return Tail(
        cast(
            Stage,
            SimpleNamespace(
                recorder=SimpleNamespace(start_ns=START_NS),
                cluster=SimpleNamespace(
                    nodes=NODES, telemetry=lambda node: tmp_path / f"{node}.events.jsonl"
                ),
            ),
        )
    )


def frames(
    directory: Path,
    node: str,
    *,
    sent: Sequence[tuple[int, str, int]] = (),
    received: Sequence[tuple[int, str, int]] = (),
) -> None:
    """Told by `node`, which looks for a leader, at 900 ms: (ms, peer, number of the frame); all
    carry notifications."""
    look = {"event": "look", "node": node, "monotonic_ns": START_NS + 50 * MS}
    event: dict[str, Any] = {
        "event": "frames",
        "kind": "frames",
        "node": node,
        "time": 0.0,
        "monotonic_ns": START_NS + 900 * MS,
        "sent": [
            (START_NS + ms * MS, peer, number, "Notification", 1, None) for ms, peer, number in sent
        ],
        "received": [(START_NS + ms * MS, peer, number) for ms, peer, number in received],
    }
    with (directory / f"{node}.events.jsonl").open("a") as file:
        file.write(json.dumps(look) + "\n" + json.dumps(event) + "\n")


def test_a_node_is_refused_once_it_has_heard_ten_votes_of_each(told: Tail, tmp_path: Path) -> None:
    every_30_ms = range(100, 400, 30)
    for voter in ("n1", "n2"):
        frames(tmp_path, voter, sent=[(ms, "n4", ms) for ms in every_30_ms])
        frames(tmp_path, "n4", received=[(ms + 1, voter, ms) for ms in every_30_ms[:-1]])

    assert told.heard("n4", "Notification", since_ns=0) == {"n1": 9, "n2": 9}
    assert not told.refused("n4", ("n1", "n2"), since_ns=0)

    for voter in ("n1", "n2"):
        frames(tmp_path, "n4", received=[(every_30_ms[-1] + 1, voter, every_30_ms[-1])])
    assert told.refused("n4", ("n1", "n2"), since_ns=0)
    assert not told.refused("n4", ("n1", "n2"), since_ns=200 * MS), "that is another election"


@pytest.mark.parametrize("held", [True, False], ids=["held on a cut link", "lost"])
def test_what_does_not_reach_it_refuses_nobody(told: Tail, tmp_path: Path, held: bool) -> None:
    """Voters go on voting while the link is cut. (On a busy machine the heal came late, and the
    control, which elects whoever comes, seemed to have refused it.)"""
    every_30_ms = range(100, 700, 30)
    for voter in ("n1", "n2"):
        frames(tmp_path, voter, sent=[(ms, "n4", ms) for ms in every_30_ms])
        if held:  # it comes at once when the link is healed
            frames(tmp_path, "n4", received=[(710, voter, ms) for ms in every_30_ms])

    assert told.heard("n4", "Notification", since_ns=0) == ({"n1": 1, "n2": 1} if held else {})
    assert not told.refused("n4", ("n1", "n2"), since_ns=0)
