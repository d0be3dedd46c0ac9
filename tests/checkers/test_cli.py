"""`python -m labs check FILE --model …`: exit codes 0, 1, 2, and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labs.harness.checkers import bench
from labs.harness.checkers.bench_cases import simulated, spoiled
from labs.harness.checkers.bench_porcupine import Porcupine
from labs.harness.checkers.cli import NAMES, main
from labs.harness.history import save, save_edn


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A good and a bad history, in JSON lines and in EDN."""
    good = simulated(400, clients=4)
    bad = spoiled(good)
    for name, history in (("good", good), ("bad", bad)):
        save(history, tmp_path / f"{name}.jsonl")
        save_edn(history, tmp_path / f"{name}.edn")
    (tmp_path / "broken.jsonl").write_text('{"index": 0')
    (tmp_path / "empty.jsonl").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["good.jsonl"], 0),
        (["bad.jsonl", "--model", "cas-register"], 1),
        (["good.edn", "--format", "edn", "--independent"], 0),
        (["bad.edn", "--independent", "--explain"], 1),
        (["good.jsonl", "--model", "sequential"], 0),
        (["good.jsonl", "--model", "causal-convergent"], 0),
        (["good.jsonl", "--model", "lost-writes"], 2),
        (["broken.jsonl"], 2),
        (["empty.jsonl"], 2),
        (["absent.jsonl"], 2),
        (["good.jsonl", "--format", "porcupine"], 2),
        (["good.jsonl", "--model", "stack"], 2),
        (["good.jsonl", "--model", "queue"], 2),
        (["good.jsonl", "--wrong"], 2),
        ([], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int, files: Path) -> None:
    """0 valid, 1 not valid, 2 unknown or not readable."""
    head = [str(files / name) for name in arguments[:1]]
    assert main(head + arguments[1:]) == code


def test_what_is_printed(files: Path, capsys: Any) -> None:
    """The verdict with its algorithm; with --explain the story and the lanes; errors on stderr."""
    drawing = files / "story.svg"
    assert main([str(files / "bad.jsonl"), "--explain", "--svg", str(drawing)]) == 1
    out = capsys.readouterr().out
    assert "NOT valid (register; 400 operations; zones)" in out
    assert "stale read: " in out
    assert "\n1. Process " in out
    assert "forbidden" in out
    assert drawing.read_text().startswith("<svg")

    assert main([str(files / "broken.jsonl")]) == 2
    assert "broken.jsonl:1: truncated" in capsys.readouterr().err


def test_models_have_one_name_each() -> None:
    """What --model takes."""
    assert len(set(NAMES)) == len(NAMES)
    assert {"register", "cas-register", "queue", "list-append", "sequential"} <= set(NAMES)


def test_the_benchmark_says_when_go_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Go our side is still measured, and the table says that nothing stands beside it."""
    monkeypatch.setenv("PATH", "")
    with Porcupine() as porcupine:
        assert porcupine.why_absent == "Go is not on this machine"
        assert porcupine.measure([], runs=1, timeout_s=1) is None
    case = bench.Case("small", lambda: [simulated(100)], goal_ratio=0.5, runs=1)
    took, verdicts = bench.ours(case, case.make(), 10)
    assert verdicts == ["Ok"]
    assert bench.judge(case, took, None) == ("<= 0.50x", None)
