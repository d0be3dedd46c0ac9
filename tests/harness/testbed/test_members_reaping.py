"""Redis and Kafka do not outlive their run either, though they are no Python of ours."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from labs.harness.testbed.members import kafka_install
from labs.harness.testbed.registry import identify
from tests.harness.testbed.test_local import WITHOUT_PDEATHSIG
from tests.harness.testbed.test_members import apache_kafka, no_apache_kafka
from tests.harness.testbed.test_reaping import GONE_WITHIN_S, Runner, eventually

__all__ = ["apache_kafka", "no_apache_kafka"]  # fixtures

KAFKAS = pytest.mark.parametrize("kafka", ["apache_kafka", "no_apache_kafka"])
MOMENTS = 4


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    """Starts runners, and makes sure in the end that a failed test leaves none."""
    runners: list[Runner] = []

    def start_one(*modules: str) -> Runner:
        runners.append(Runner(tmp_path, *modules, program="tests.harness.testbed.members_runner"))
        return runners[-1]

    yield start_one
    for runner in runners:
        marked = runner.processes()
        if runner.process.poll() is None:
            marked.append(runner.process.pid)
        for pid in marked:  # the runner, its zygote: the servers go with them
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        runner.process.wait(60)


def pids_of(runner: Runner) -> list[int]:
    return list(runner.told().get("started", {}).get("pids", {}).values())


def assert_gone(runner: Runner) -> None:
    eventually(lambda: not identify(pids_of(runner)), GONE_WITHIN_S, runner.left)
    runner.assert_gone()


@KAFKAS
def test_kill_9_of_the_runner(
    start: Callable[..., Runner], kafka: str, request: pytest.FixtureRequest
) -> None:
    """Running or paused: within seconds no server, port or file is left."""
    request.getfixturevalue(kafka)
    runner = start()
    ready = runner.wait_for("ready")
    assert len(identify(ready["pids"])) >= 4
    flavour = runner.told()["started"]["flavours"]["kafka"]
    assert flavour.startswith("apache" if kafka == "apache_kafka" else "embedded")
    runner.process.kill()
    runner.process.wait(60)

    assert_gone(runner)


@KAFKAS
def test_ctrl_c(start: Callable[..., Runner], kafka: str, request: pytest.FixtureRequest) -> None:
    """SIGINT to the whole foreground group: nothing is left."""
    request.getfixturevalue(kafka)
    runner = start()
    runner.wait_for("ready")
    os.killpg(runner.process.pid, signal.SIGINT)

    assert runner.process.wait(60) != 0
    assert_gone(runner)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_kill_9_while_the_servers_start(
    start: Callable[..., Runner], apache_kafka: None, moment: int
) -> None:
    """Also between fork and exec, and while a JVM comes up."""
    seed = int(os.environ.get("SEED") or random.randrange(1 << 16))
    print(f"SEED={seed} pytest {__file__}")
    runner = start()
    runner.wait_for("launched")
    time.sleep(random.Random(f"{seed} {moment}").random() * 0.7)
    runner.process.kill()
    runner.process.wait(60)

    runner.assert_gone()
    assert_gone(runner)


@pytest.mark.parametrize("modules", [(), (WITHOUT_PDEATHSIG,)], ids=["linux", "any"])
def test_runner_and_zygote_killed_then_swept(
    start: Callable[..., Runner], apache_kafka: None, modules: tuple[str, ...]
) -> None:
    """Both owners killed at once: the next run finds the servers by its record, and kills them."""
    runner = start(*modules)
    pids = runner.wait_for("ready")["pids"]
    zygote = runner.told()["launched"]["zygote"]
    os.kill(zygote, signal.SIGSTOP)  # it must not see the end
    runner.process.kill()
    runner.process.wait(60)
    os.kill(zygote, signal.SIGKILL)
    if modules:
        assert len(identify(pids)) == len(pids), "nobody has ended them"

    another = start()
    another.wait_for("ready")
    eventually(lambda: not identify(pids), GONE_WITHIN_S, runner.left)
    os.killpg(another.process.pid, signal.SIGINT)
    another.process.wait(60)
    assert_gone(another)
    assert_gone(runner)


def test_java_is_the_process_that_the_run_owns(
    start: Callable[..., Runner], apache_kafka: None
) -> None:
    """No shell or wrapper between the zygote and the server: signals reach it, and `waitpid`."""
    runner = start()
    runner.wait_for("started")
    pid = runner.told()["started"]["pids"]["kafka"]
    eventually(lambda: "java" in _executable(pid), 10, "it has become java")
    assert _executable(pid) == os.path.realpath(kafka_install.java())


def _executable(pid: int) -> str:
    if not Path("/proc/self/exe").exists():
        pytest.skip("needs /proc")
    return os.readlink(f"/proc/{pid}/exe")
