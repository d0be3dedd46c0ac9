"""`python -m labs check FILE --model …`: exit codes 0, 1, 2, and what is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from labs.harness.checkers import bench
from labs.harness.checkers.bench_cases import simulated, spoiled
from labs.harness.checkers.bench_porcupine import Porcupine
from labs.harness.checkers.cli import NAMES, main
from labs.harness.history import History, Op, save, save_edn


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


WEIRD: tuple[Any, ...] = (None, 0, -1.5, True, "x", [], [1], [[1]], [["r", 1]], {}, {"a": "b"})
WEIRD += ([["r", 1, 2]], [["append", 1, 2]], [["w", [1], {}]], [["r", {}, [1, [2]]]], [[[], 1, 2]])


@pytest.mark.parametrize("model", NAMES)
def test_no_value_ends_in_a_traceback(model: str, tmp_path: Path, capsys: Any) -> None:
    """Wrong types: a clear error with the file, and exit code 2; "not valid" is for histories."""
    random = Random(model)
    names = ("read", "write", "add", "txn", "dequeue", "enqueue", "drain", "acquire", "generate")
    path = tmp_path / "weird.jsonl"
    for _ in range(15):
        ops = []
        for at in range(random.randint(1, 4)):
            value, output = random.choice(WEIRD), random.choice(WEIRD)
            kind: Any = random.choice(["ok", "ok", "fail", "info"])
            end = None if kind == "info" else 10 * at + 5
            f = random.choice(names)
            told = value if f == "write" else output
            ops.append(Op(at, f, None, value, 10 * at, end, kind, told if kind == "ok" else None))
        save(History(ops), path)
        code = main([str(path), "--model", model, "--explain"])
        said = capsys.readouterr()

        assert code in (0, 1, 2), path.read_text()
        assert f"{path}: " in said.out or str(path) in said.err


@pytest.mark.parametrize(
    ("model", "f", "output", "message"),
    [
        ("bank", "read", [1, 2], "answers [1, 2], not a map of balances"),
        ("set-full", "read", 7, "answers 7, not a list or a set"),
        ("counter", "read", "7", "answers '7', not an integer"),
        ("list-append", "txn", [["r", 1, 2]], "not a list of [append, key, value]"),
        ("queue", "read", 1, "queue has no 'read'"),
    ],
)
def test_wrong_types_have_a_line(
    model: str, f: str, output: Any, message: str, tmp_path: Path, capsys: Any
) -> None:
    """A value that does not fit the model is named with the line of its call."""
    path = tmp_path / "wrong.jsonl"
    good = {"bank": {"a": 1}, "counter": 0}.get(model, [])
    first = Op(0, "enqueue" if model == "queue" else f, None, None, 0, 1, "ok", good)
    save(History([first, Op(1, f, None, None, 2, 3, "ok", output)]), path)

    assert main([str(path), "--model", model]) == 2
    assert capsys.readouterr().err.startswith(f"{path}:3: ")
    assert main([str(path), "--model", model]) == 2
    assert message in capsys.readouterr().err


def test_a_last_line_without_its_end(files: Path, capsys: Any) -> None:
    """Whole: judged. Cut anywhere: refused, because nothing half-read is judged."""
    whole = (files / "good.jsonl").read_bytes()
    path = files / "cut.jsonl"
    path.write_bytes(whole[:-1])
    assert main([str(path)]) == 0
    path.write_bytes(whole[:-2])
    assert main([str(path)]) == 2
    assert f"{path}:800: truncated" in capsys.readouterr().err


def test_mounted_beside_the_labs() -> None:
    """`python -m labs check` is this command, and costs the other commands no import."""
    code = "import sys, labs.__main__; print('labs.harness.checkers' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
    command = [sys.executable, "-m", "labs", "check"]
    asked = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "--explain" in asked.stdout
    absent = subprocess.run([*command, "absent"], capture_output=True, text=True, check=False)
    assert (absent.returncode, absent.stderr) == (2, "absent: No such file or directory\n")
