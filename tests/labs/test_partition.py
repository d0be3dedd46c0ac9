"""lab-partition end to end: the verdict, its control, the invalid run, interruption at any moment.

Real processes and sockets, as a user starts them: `python -m labs run partition`.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.labs.test_cli import ROOT, labs

pytestmark = pytest.mark.slow


def verdict_of(output: str) -> tuple[dict[str, Any], Path]:
    """The verdict file of the run whose console output this is."""
    shown = re.search(r"Evidence: (\S+)", output)
    assert shown, output
    directory = ROOT / shown[1]
    verdict: dict[str, Any] = json.loads((directory / "verdict.json").read_text())
    return verdict, directory


@pytest.fixture(scope="module")
def passed() -> tuple[str, dict[str, Any], Path]:
    """One run of the lab with a fixed seed, shared by the tests that look at it."""
    answer = labs("run", "partition", ON="local", SEED="7")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout, *verdict_of(answer.stdout)


def test_both_variants_do_what_they_must(passed: tuple[str, dict[str, Any], Path]) -> None:
    """Raft holds all of its claims; the control breaks all that it exists to break."""
    _, verdict, _ = passed

    assert verdict["verdict"] == "pass"
    raft, naive = verdict["variants"]
    assert (raft["expected"], raft["outcome"]) == ("holds", "holds")
    assert (naive["expected"], naive["outcome"]) == ("breaks", "breaks")
    assert all(claim["holds"] for claim in raft["claims"])
    assert {claim["text"] for claim in naive["claims"] if not claim["holds"]} >= {
        "The minority side acknowledged nothing while it was cut off",
        "Healed, no acknowledged write is lost",
        "The history is linearizable",
    }
    assert naive["figures"]["lost"] > 0


def test_every_fault_was_planned_injected_felt_and_recovered(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Faults are proven to bite: a probe sees them begin and end."""
    _, verdict, _ = passed

    assert [fault["name"] for fault in verdict["faults"]] == ["partition"] * 4
    for fault in verdict["faults"]:
        assert fault["planned_at"] <= fault["injected_at"] < fault["healed_at"]
        assert fault["felt"] is True
        assert fault["recovered"] is True


def test_verdict_file_has_the_members_that_tools_read(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """verdict.json: lab, questions, substrate, seed, verdict, elapsed_s, variants, faults, …"""
    _, verdict, _ = passed

    assert verdict["lab"] == "partition"
    assert verdict["questions"] == [23]
    assert verdict["substrate"] == "local"
    assert verdict["seed"] == 7
    assert verdict["elapsed_s"] > 0
    assert set(verdict["environment"]) >= {"python", "system", "cores"}
    for variant in verdict["variants"]:
        for claim in variant["claims"]:
            assert set(claim) >= {"text", "holds", "evidence"}


def test_the_run_directory_holds_the_evidence(passed: tuple[str, dict[str, Any], Path]) -> None:
    """history.jsonl, faults.jsonl, events.jsonl and verdict.json; runs/latest leads to them."""
    _, _, directory = passed

    assert (ROOT / "runs" / "latest").exists()
    for name in ("history.jsonl", "faults.jsonl", "events.jsonl"):
        lines = (directory / name).read_text().splitlines()
        assert lines, name
        variants = {json.loads(line)["variant"] for line in lines}
        assert variants == {"raft", "naive failover"}, name


def test_the_story_ends_with_verdict_answer_and_path(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """Verdict, the 90-second answer with this run's own figures, the path of the run directory."""
    output, verdict, _ = passed
    naive = verdict["variants"][1]["figures"]

    assert "Verdict PASS" in output
    answer = " ".join(output.split("The 90-second answer")[1].split())
    assert f"{naive['lost']} acknowledged writes went with it" in answer
    assert answer.index("They will ask next") < answer.index("What the toy leaves out")


def test_the_split_brain_is_told_in_at_most_six_operations(
    passed: tuple[str, dict[str, Any], Path],
) -> None:
    """The control's counterexample: its standard name, numbered sentences; again from its file."""
    _, verdict, directory = passed
    broken = {claim["text"]: claim for claim in verdict["variants"][1]["claims"]}

    # Which key shows it first depends on the run: a read of a value that was overwritten on the
    # other side, or two compare-and-sets of the same value, one on either side.
    for text, anomalies in (
        ("Healed, no acknowledged write is lost", {"lost write"}),
        ("The history is linearizable", {"stale read", "lost update"}),
    ):
        claim = broken[text]
        told = claim["counterexample"]
        assert claim["evidence"].rpartition(": ")[2] in anomalies
        assert 2 <= len(told) <= 6
        assert [line.split(".")[0] for line in told] == [str(at + 1) for at in range(len(told))]
    assert " although " in broken["Healed, no acknowledged write is lost"]["counterexample"][-1]
    history = directory / "naive-failover" / "history.jsonl"
    again = labs("check", str(history), "--explain")
    assert again.returncode == 1
    assert all(
        line in again.stdout for line in broken["The history is linearizable"]["counterexample"]
    )
    raft = labs("check", str(directory / "raft" / "history.jsonl"))
    assert raft.returncode == 0, raft.stdout + raft.stderr


def test_without_the_fault_the_run_is_invalid() -> None:
    """`NEMESIS=off` (faults planned, not injected): invalid, exit code 2."""
    answer = labs("run", "partition", ON="local", NEMESIS="off")

    assert answer.returncode == 2, answer.stdout + answer.stderr
    verdict, _ = verdict_of(answer.stdout)
    assert verdict["verdict"] == "invalid"
    assert "not felt" in verdict["reason"]


def start_run() -> subprocess.Popen[bytes]:
    """A run in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "labs", "run", "partition"],
        cwd=ROOT,
        env={**os.environ, "ON": "local", "SEED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def left_overs(runner: int) -> list[str]:
    """Processes and temporary directories of the run whose runner had this pid."""
    processes = subprocess.run(["ps", "-axww", "-o", "pid=,command="],
                               capture_output=True, text=True, check=True).stdout  # fmt: skip
    mine = [line for line in processes.splitlines() if f'"runner": {runner}' in line]
    # Not all of the temporary directory: what others have there comes and goes while one looks.
    directories = [
        str(own)
        for own in Path(tempfile.gettempdir()).glob("faultline*")
        for _, below, files in os.walk(own)
        if any(f"{runner}-" in name for name in (*below, *files))
    ]
    return mine + directories


def wait_until_gone(runner: int) -> None:
    deadline = time.monotonic() + 60
    while left_overs(runner):
        assert time.monotonic() < deadline, left_overs(runner)
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("moment", range(4))
def test_an_interrupted_run_leaves_nothing(how: signal.Signals, moment: int) -> None:
    """Ctrl-C at any moment, and kill -9 of the runner: no process or temporary file is left.

    Moments count from the first that it has started: before, there is nothing to leave, and how
    long Python takes until then is the machine's.
    """
    after_s = random.Random(f"{how}{moment}").uniform(0.1, 3.0)
    with start_run() as run:
        deadline = time.monotonic() + 60
        while not left_overs(run.pid):
            assert run.poll() is None, "it ended before it had started anything"
            assert time.monotonic() < deadline, "it has started nothing"
            time.sleep(0.02)
        try:
            run.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, how)
        output, _ = run.communicate(timeout=60)
    wait_until_gone(run.pid)
    if how == signal.SIGINT and run.returncode != 0:
        assert run.returncode == 130, f"after {after_s:.2f} s: {output.decode()}"
        assert "Traceback" not in output.decode(), output.decode()
