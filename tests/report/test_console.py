"""`make report`, `make logs`, `make traces`, `make compare` as a user types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.runs import HOSTILE, make_run

ROOT = Path(__file__).resolve().parents[2]
FILTERS = ("RUN", "REQUEST", "NODE", "AT", "LEVEL", "TEXT", "OP", "VARIANT", "A", "B")


def labs(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key not in FILTERS}
    return subprocess.run(
        [sys.executable, "-m", "labs", *arguments],
        cwd=ROOT,
        env={**clean, "CI": "true", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("runs") / "run"))


def test_report_is_built_when_it_is_missing_and_said_where(run: str) -> None:
    """Without a display nothing is opened; the address is printed."""
    answer = labs("report", RUN=run)

    assert answer.returncode == 0, answer.stderr
    assert Path(run, "report.html").exists()
    assert Path(run, "report.html").resolve().as_uri() in answer.stdout


def test_logs_of_a_request(run: str) -> None:
    """By request id, by trace id, by the beginning of either: all of its lines, in order."""
    lines = labs("logs", RUN=run, REQUEST="r-8").stdout.splitlines()

    assert "4 of " in lines[0]
    assert [line.split()[1:4] for line in lines[1:]] == [
        ["c1", "info", "invoke"],
        ["n2", "info", "replicate"],
        ["n1", "error", "request"],
        ["c1", "warning", "fail"],
    ]
    assert labs("logs", RUN=run, REQUEST=f"{9:032x}").stdout.splitlines()[1:] == lines[1:]


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        ({"NODE": "n2"}, lambda line: line.split()[1] == "n2"),
        ({"LEVEL": "error"}, lambda line: line.split()[2] == "error"),
        ({"AT": "0.1-0.2"}, lambda line: 0.1 <= float(line.split()[0]) <= 0.2),
        ({"AT": "0.2"}, lambda line: 0.15 <= float(line.split()[0]) <= 0.25),
        ({"TEXT": "become_leader"}, lambda line: "become_leader" in line),
    ],
)
def test_logs_filtered(run: str, filters: dict[str, str], holds: object) -> None:
    """By node, level, time and text."""
    lines = labs("logs", RUN=run, **filters).stdout.splitlines()

    assert len(lines) > 1
    assert all(holds(line) for line in lines[1:])  # type: ignore[operator]


def test_traces_are_listed_and_one_is_drawn(run: str) -> None:
    """Without a number those that failed and took longest; with one its waterfall and lines."""
    listed = labs("traces", RUN=run).stdout.splitlines()
    drawn = labs("traces", RUN=run, OP="3").stdout

    assert listed[0].startswith("40 operations")
    assert listed[1].split()[4] in ("fail", "info")
    assert "#3 read key one (odd store, fail: n1 said one)" in drawn
    assert "    n2 replicate" in drawn
    assert drawn.count("█") >= 3


def test_two_runs_side_by_side(run: str) -> None:
    """Verdict, claims and figures of both, line by line."""
    answer = labs("compare", A=run, B=run)

    assert answer.returncode == 0, answer.stderr
    assert "operations ok / fail / info" in answer.stdout
    assert "✗ 1 of 9 is gone" in answer.stdout


@pytest.mark.parametrize(
    ("command", "filters", "said"),
    [
        ("report", {"RUN": "nothing-here"}, "no run 'nothing-here' here"),
        ("logs", {"LEVEL": "loud"}, "LEVEL=loud is not known; one of debug, info"),
        ("logs", {"AT": "noon"}, "AT=noon is not a time"),
        ("logs", {"VARIANT": "x"}, "no variant 'x' in this run; there are: odd store"),
        ("traces", {"OP": "x"}, "OP=x is not an operation's number"),
        ("traces", {"OP": "4000"}, "no operation is like that"),
        ("compare", {}, "which runs? make compare A=<run> B=<run>"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_two(
    run: str, command: str, filters: dict[str, str], said: str
) -> None:
    """One clear line, no traceback, exit code 2."""
    answer = labs(command, **{"RUN": run, **filters})

    assert answer.returncode == 2
    assert answer.stdout.startswith(said)
    assert len(answer.stdout.splitlines()) == 1
    assert answer.stderr == ""


def test_a_damaged_run_is_one_line(tmp_path: Path) -> None:
    """Which file, and what is wrong with it."""
    directory = make_run(tmp_path / "run")
    (directory / "odd-store" / "history.jsonl").write_bytes(b"\xff\n")
    for command in ("report", "logs", "traces"):
        answer = labs(command, RUN=str(directory))

        assert answer.returncode == 2
        assert "history.jsonl:1: not" in answer.stdout
        assert len(answer.stdout.splitlines()) == 1


def test_hostile_text_reaches_no_terminal(tmp_path: Path) -> None:
    """Control characters of keys and values are spelled out: no colours, no bells, no jumps."""
    directory = str(make_run(tmp_path / "run", operations=45, values=HOSTILE))
    for command in ("logs", "traces", "compare"):
        answer = labs(command, RUN=directory, LEVEL="debug", A=directory, B=directory)

        assert answer.returncode == 0, answer.stderr
        assert all(line.isprintable() for line in answer.stdout.splitlines())
        assert "\\x1b[31m" in answer.stdout


def test_no_other_command_waits_for_bokeh() -> None:
    """Bokeh, numpy and Jinja are imported for the report alone."""
    script = (
        "import sys, labs.__main__, labs.harness.lab.runner, labs.harness.report.commands;"
        "print(sorted({'bokeh', 'numpy', 'jinja2', 'PIL'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert answer.stdout == "[]\n", answer.stderr


def test_the_makefile_keeps_off_the_names_that_users_give() -> None:
    """`make report RUN=x` sets RUN in all of make: no rule may use it, or another such name."""
    text = (ROOT / "Makefile").read_text()

    for name in FILTERS:
        assert f"$({name})" not in text, f"$({name}) is a user's; the runner is $(LABS)"
