"""lab-traffic end to end: refusal at the door against taking everything in; policies compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labs.harness.history import load
from tests.labs.test_cli import labs
from tests.labs.test_partition import verdict_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def passed() -> tuple[str, dict[str, Any], Path]:
    """One run of the lab, shared by the tests that look at it."""
    answer = labs("run", "traffic", ON="local", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_shedding_keeps_what_taking_everything_loses(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Goodput collapses without admission control, under the same ten times the load."""
    _, verdict, _ = passed
    shed, taken = (variant["figures"] for variant in verdict["variants"])

    assert verdict["verdict"] == "pass"
    assert [v["outcome"] for v in verdict["variants"]] == ["holds", "breaks"]
    assert shed["goodput"] > 3 * taken["goodput"]
    assert shed["p50"] < taken["p50"]
    assert abs(shed["rate"] - taken["rate"]) < 40, "the same spike for both"
    assert shed["used"] == 1
    assert max(shed["least"], shed["choices"]) < shed["turns"]


def test_replicas_start_by_themselves_and_serve_the_spike(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Autoscaling in the middle of the spike: those that were spare answer, and more are served."""
    _, verdict, directory = passed
    shed = verdict["variants"][0]["figures"]
    ops = load(directory / "load-shedding" / "history.jsonl").ops
    answered = {op.output for op in ops if op.key == "front" and op.type == "ok"}

    assert answered >= {"web-1", "web-2", "web-4", "web-5", "web-6"}
    assert shed["grown"] > 1.3 * shed["goodput"]


def test_each_layer_takes_its_share(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Counted once more: what the cache answered is in no event of the store's."""
    _, verdict, directory = passed
    variant, own = verdict["variants"][0], directory / "load-shedding"
    shed = variant["figures"]
    ops = load(own / "history.jsonl").ops
    reads = [op for op in ops if op.node == "cache" and op.f == "read"]
    begin = variant["start_ns"] + min(op.invoke_ns for op in reads)
    end = variant["start_ns"] + max(op.return_ns or 0 for op in reads)
    asked = 0
    for node in ("n1", "n2", "n3"):
        events = map(json.loads, (own / f"{node}.events.jsonl").read_text().splitlines())
        asked += sum(
            event["event"] == "request"
            and event["method"] == "GET"
            and event["path"].startswith("/kv/page-")
            and begin <= event["monotonic_ns"] <= end
            for event in events
        )

    assert 0 < asked < len(reads) / 2
    assert shed["hit"] > 0.5
    assert shed["followed"] > 0.5
    assert shed["cached"] > shed["replicas"] > shed["alone"]
    assert shed["accepted"] > 2 * shed["direct"]
    assert shed["backlog"] > 0


def test_goodput_is_counted_from_the_history(passed: tuple[str, dict[str, Any], Path]) -> None:
    """What the spike's callers were told is in the file: refused at once, or nothing in time."""
    _, verdict, directory = passed
    for name, variant in zip(
        ("load-shedding", "no-admission-control"), verdict["variants"], strict=True
    ):
        ops = load(directory / name / "history.jsonl").ops
        front = [op for op in ops if op.key == "front"]
        vain = [op for op in front if (op.error or "").startswith("deadline-exceeded")]
        refused = [op for op in front if (op.error or "").startswith(("overloaded", "unavail"))]
        assert len(front) >= variant["figures"]["spiked"]
        assert len(vain) >= variant["figures"]["vain"]
        if name == "load-shedding":
            assert len(refused) > 50
            took = sorted(op.return_ns - op.invoke_ns for op in refused if op.return_ns)
            assert took[len(took) // 2] < 100e6, "a refusal comes at once"
        else:
            assert not refused
