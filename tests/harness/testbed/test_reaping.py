"""Nothing outlives its run: no process, no port, no temporary file, however the run ends."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from labs.harness.testbed import registry
from labs.harness.testbed.launcher import ROOT
from tests.harness.testbed.test_local import WITHOUT_PDEATHSIG

GONE_WITHIN_S = 20.0
READY_WITHIN_S = 30.0
MOMENTS = 12
BETWEEN_CTRL_CS_S = 0.005  # an orderly end takes some 50 ms


class Runner:
    """`tests.harness.testbed.runner` as a process of its own, leader of a group of its own."""

    def __init__(
        self, directory: Path, *modules: str, program: str = "tests.harness.testbed.runner"
    ) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.output = directory / f"out-{time.monotonic_ns()}"
        command = [sys.executable, "-m", program, str(directory / "run")]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *modules],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def told(self) -> dict[str, dict[str, Any]]:
        """The last of each stage that it has told of."""
        lines = [line for line in self.output.read_text().splitlines() if line.startswith("{")]
        return {said["stage"]: said for said in map(json.loads, lines)}

    def wait_for(self, stage: str) -> dict[str, Any]:
        def seen() -> bool:
            ended = self.process.poll() is not None  # asked first: its last word counts
            told = stage in self.told()
            assert told or not ended, self.output.read_text()
            return told

        eventually(seen, READY_WITHIN_S, f"the runner is {stage}")
        return self.told()[stage]

    def processes(self) -> list[int]:
        """The zygote and its children: they bear the run's name, which begins with our pid."""
        listed = subprocess.run(
            ["ps", "-axww", "-o", "pid=", "-o", "command="],
            capture_output=True,
            text=True,
            check=True,
        )
        marked = [line for line in listed.stdout.splitlines() if f'"{self.process.pid}-' in line]
        return [int(line.split()[0]) for line in marked]

    def left(self) -> list[str]:
        """What is left of the run."""
        left = [f"process {pid}" for pid in self.processes()]
        left += [f"file {path}" for path in self.temporary.glob("faultline-*/*")]
        for address in self.told().get("started", {}).get("addresses", []):
            host, _, port = address.rpartition(":")
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    left.append(f"port {port}")
        return left

    def assert_gone(self) -> None:
        eventually(lambda: not self.left(), GONE_WITHIN_S, self.left)


def eventually(
    condition: Callable[[], Any], within_s: float, what: str | Callable[[], object]
) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s} s: {what() if callable(what) else what}")
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    """Starts runners, and makes sure in the end that a failed test leaves none."""
    runners: list[Runner] = []

    def start_one(*modules: str) -> Runner:
        runners.append(Runner(tmp_path, *modules))
        return runners[-1]

    yield start_one
    for runner in runners:
        marked = runner.processes()
        if runner.process.poll() is None:
            marked.append(runner.process.pid)
        for pid in marked:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        runner.process.wait(60)


@pytest.fixture(scope="module")
def seed() -> int:
    chosen = int(os.environ.get("SEED") or random.randrange(1 << 16))
    print(f"SEED={chosen} pytest {__file__}")
    return chosen


@pytest.fixture(scope="module")
def ready_after_s(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long this machine takes from nothing to a ready cluster: where the moments lie."""
    started = time.monotonic()
    runner = Runner(tmp_path_factory.mktemp("measure"))
    try:
        runner.wait_for("ready")
        return time.monotonic() - started
    finally:
        runner.process.kill()
        runner.process.wait(60)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_kill_9_of_the_runner(
    start: Callable[..., Runner], seed: int, ready_after_s: float, moment: int
) -> None:
    """At a random moment, while nodes start, run, are paused: within seconds nothing is left."""
    runner = start()
    part = (moment + random.Random(f"{seed} {moment}").random()) / (MOMENTS - 4)
    time.sleep(ready_after_s * part)
    runner.process.kill()
    runner.process.wait(60)

    runner.assert_gone()


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_ctrl_c(start: Callable[..., Runner], ready_after_s: float, moment: int) -> None:
    """SIGINT to the whole foreground group, also during the start: nothing is left."""
    runner = start()
    time.sleep(ready_after_s * (moment + 0.5) / (MOMENTS - 4))
    os.killpg(runner.process.pid, signal.SIGINT)

    assert runner.process.wait(60) != 0
    runner.assert_gone()


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_ctrl_c_twice(start: Callable[..., Runner], moment: int) -> None:
    """An impatient second Ctrl-C, in the middle of the orderly end, changes nothing."""
    runner = start()
    runner.wait_for("ready")
    os.killpg(runner.process.pid, signal.SIGINT)
    if moment:  # else both at once: the kernel may make one of them
        runner.wait_for("ending")
        time.sleep((moment - 1) * BETWEEN_CTRL_CS_S)
    with suppress(ProcessLookupError):
        os.killpg(runner.process.pid, signal.SIGINT)

    assert runner.process.wait(GONE_WITHIN_S) != 0
    runner.assert_gone()


def test_sigterm_to_the_zygote_ends_the_run(start: Callable[..., Runner]) -> None:
    """Somebody who ends "that python" gets an orderly end, and the runner says why."""
    runner = start()
    runner.wait_for("ready")
    os.kill(runner.told()["launched"]["zygote"], signal.SIGTERM)

    assert runner.process.wait(20) != 0
    assert "ZygoteDied" in runner.output.read_text()
    runner.assert_gone()


def test_a_sweep_spares_the_living(
    start: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep beside a living run finds nothing to do."""
    runner = start()
    ready = runner.wait_for("ready")
    monkeypatch.setattr(registry.tempfile, "tempdir", str(runner.temporary))

    assert registry.sweep() == []
    assert ready["pids"][0] in registry.identify(ready["pids"])
    assert Path(runner.told()["launched"]["directory"]).exists()


@pytest.mark.parametrize("modules", [(), (WITHOUT_PDEATHSIG,)], ids=["linux", "any"])
def test_runner_and_zygote_killed_then_swept(
    start: Callable[..., Runner], modules: tuple[str, ...]
) -> None:
    """Both owners killed at once: the next run finds what is left, kills and removes it."""
    runner = start(*modules)
    pids = runner.wait_for("ready")["pids"]
    os.kill(runner.told()["launched"]["zygote"], signal.SIGSTOP)  # it must not see the end
    runner.process.kill()
    runner.process.wait(60)
    os.kill(runner.told()["launched"]["zygote"], signal.SIGKILL)
    if modules:
        assert pids[0] in registry.identify(pids)
    assert any("file" in left for left in runner.left())

    another = start()
    another.wait_for("ready")
    eventually(lambda: not runner.processes(), GONE_WITHIN_S, runner.left)
    os.killpg(another.process.pid, signal.SIGINT)
    another.process.wait(60)
    another.assert_gone()
    runner.assert_gone()
