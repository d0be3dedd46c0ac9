"""Nothing outlives a run, however it ends; what is not ours is never touched."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.harness.links.control import Link, LinkFault
from labs.harness.testbed import compose_images, compose_owners
from labs.harness.testbed.compose import ComposeTestbed
from tests.compose.engine import TESTS_MOUNT, left_in_engine, require_engine
from tests.harness.testbed.contract import READY_WITHIN_S, echo_cluster, get
from tests.labs.test_cli import ROOT, labs

pytestmark = [pytest.mark.compose, pytest.mark.slow]

GONE_WITHIN_S = 60.0
STRANGER = "faultline-test-stranger"


@pytest.fixture(autouse=True)
def engine() -> None:
    require_engine()


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def left_by(runner: int) -> list[str]:
    """What the engine still has of the runner of that pid."""
    template = f'{{{{.Label "{compose_owners.RUN}"}}}}'
    left = []
    for kind in ("ps -a", "network ls", "volume ls"):
        words = [*kind.split(), "--filter", f"label={compose_owners.RUN}", "--format", template]
        runs = docker(*words).split()
        left += [f"{kind} {run}" for run in runs if run.startswith(f"{runner}-")]
    return left


def wait_until_gone(runner: int) -> None:
    deadline = time.monotonic() + GONE_WITHIN_S
    while left := left_by(runner):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def start_run() -> subprocess.Popen[bytes]:
    """A run in a process group of its own, as a shell starts it."""
    compose_images.prepare()  # so that the moments below lie within the run
    return subprocess.Popen(
        [sys.executable, "-m", "labs", "run", "partition"],
        cwd=ROOT,
        env={**os.environ, "ON": "compose", "SEED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def until_it_has(runner: int, what: str) -> None:
    deadline = time.monotonic() + 60
    while not any(each.startswith(what) for each in left_by(runner)):
        assert time.monotonic() < deadline, f"the run has made no {what}"
        time.sleep(0.02)


@pytest.fixture
def strangers() -> Iterator[list[str]]:
    """A container, a network and a volume of somebody else's, and one of a living run."""
    docker("network", "create", STRANGER)
    docker("volume", "create", STRANGER)
    image = compose_images.prepare().service
    run = ["run", "--detach", "--pull", "never", "--entrypoint", "sleep"]
    mine = compose_owners.labels("a-living-run")
    labels = [word for key, value in mine.items() for word in ("--label", f"{key}={value}")]
    try:
        docker(*run, "--name", STRANGER, "--network", STRANGER, image, "300")
        docker(*run, "--name", f"{STRANGER}-run", *labels, image, "300")
        yield [STRANGER, f"{STRANGER}-run"]
    finally:
        docker("rm", "-f", STRANGER, f"{STRANGER}-run")
        docker("network", "rm", STRANGER)
        docker("volume", "rm", STRANGER)


def check_untouched(strangers: list[str]) -> None:
    running = docker("ps", "--format", "{{.Names}}").split()
    assert set(strangers) <= set(running)
    assert STRANGER in docker("network", "ls", "--format", "{{.Name}}").split()
    assert STRANGER in docker("volume", "ls", "--format", "{{.Name}}").split()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("moment", range(3))
def test_an_interrupted_run_leaves_nothing(
    how: signal.Signals, moment: int, strangers: list[str]
) -> None:
    """While it creates networks and containers, while it brings them up, in the middle of a cut."""
    with start_run() as run:
        until_it_has(run.pid, ("network", "ps", "ps")[moment])
        if moment == 2:
            time.sleep(random.Random(f"{how}").uniform(2.0, 5.0))
        os.killpg(run.pid, how)
        output, _ = run.communicate(timeout=60)
    if how == signal.SIGINT:
        assert run.returncode == 130, output.decode()
        assert "Traceback" not in output.decode(), output.decode()
        assert not left_by(run.pid), "Ctrl-C waits until all is removed"
    wait_until_gone(run.pid)
    check_untouched(strangers)


def test_runner_and_reaper_killed_the_next_run_sweeps(strangers: list[str]) -> None:
    """Nobody was left to clean up: `make clean`, as the next run does, finds it by its labels."""
    with start_run() as run:
        until_it_has(run.pid, "ps")
        listed = subprocess.run(["ps", "-axww", "-o", "pid=,command="],
                                capture_output=True, text=True, check=True).stdout  # fmt: skip
        (reaper,) = [int(line.split()[0]) for line in listed.splitlines()
                     if f"compose_reaper {run.pid}-" in line]  # fmt: skip
        os.kill(reaper, signal.SIGKILL)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=60)
    assert left_by(run.pid)

    answer = labs("sweep")

    assert answer.returncode == 0, answer.stderr
    assert f"run {run.pid}-" in answer.stdout
    assert not left_by(run.pid)
    check_untouched(strangers)


def test_who_is_abandoned() -> None:
    """Only the process itself, on this machine, is the owner: not a later one of its number."""
    owner = compose_owners.labels("x")[compose_owners.OWNER]
    machine, pid, identity = owner.rsplit("/", 2)

    assert not compose_owners.abandoned(owner)
    assert compose_owners.abandoned(f"{machine}/{pid}/another-start")
    assert compose_owners.abandoned(f"{machine}/999999999/{identity}")
    assert not compose_owners.abandoned(f"elsewhere/{pid}/another-start")
    assert not compose_owners.abandoned("")
    assert not compose_owners.abandoned("nonsense")


async def test_two_runs_side_by_side(tmp_path: Path) -> None:
    """Each has its own network, names and ports; the end of one is not felt by the other."""
    engine = require_engine()
    first = ComposeTestbed(tmp_path / "a", engine, mounts=TESTS_MOUNT)
    second = ComposeTestbed(tmp_path / "b", engine, mounts=TESTS_MOUNT)
    async with first, first.cluster(echo_cluster()) as cluster_a:
        await cluster_a.ready(READY_WITHIN_S)
        async with second, second.cluster(echo_cluster()) as cluster_b:
            await cluster_b.ready(READY_WITHIN_S)
            used = {c.direct_address(n) for c in (cluster_a, cluster_b) for n in c.nodes}
            assert len(used) == 6
            await cluster_b.kill("n1")
            await cluster_a.ready(READY_WITHIN_S)
        assert not left_in_engine(f"{compose_owners.RUN}={second.run}")
        await cluster_a.ready(READY_WITHIN_S)
        assert await get(cluster_a, cluster_a.address("c1", "n1"))
    assert not left_in_engine(f"{compose_owners.RUN}={first.run}")


async def test_a_cluster_ends_while_the_next_comes_up(tmp_path: Path) -> None:
    """Whoever works with one has the machine to himself, and all are gone with the testbed."""
    engine = require_engine()
    testbed = ComposeTestbed(tmp_path, engine, mounts=TESTS_MOUNT, overlap=True)
    async with testbed:
        async with testbed.cluster(echo_cluster(1, name="first")) as first:
            await first.ready(READY_WITHIN_S)
        async with testbed.cluster(echo_cluster(1, name="second")) as second:
            assert first.state("n1") == "stopped"
            assert "n1 starts" in first.logs("n1").read_text()
            assert not left_in_engine(f"com.docker.compose.project={first.project}")
            await second.ready(READY_WITHIN_S)
    assert second.state("n1") == "stopped"
    assert not left_in_engine(f"{compose_owners.RUN}={testbed.run}")


def pods_of(testbed: ComposeTestbed) -> dict[str, str]:
    """The containers of a testbed's run that are no node's nor member's, by their service."""
    template = '{{.Label "com.docker.compose.service"}} {{.ID}}'
    run = f"label={compose_owners.RUN}={testbed.run}"
    listed = docker("ps", "--filter", run, "--format", template).splitlines()
    return {each.split()[0]: each.split()[1] for each in listed if "-app " not in each}


async def test_a_cluster_stands_on_what_carried_the_one_before(tmp_path: Path) -> None:
    """Its pods and link proxies are the same, its links are new; one with more has its own."""
    testbed = ComposeTestbed(tmp_path, require_engine(), mounts=TESTS_MOUNT, overlap=True)
    link = Link("c1", "n1")
    async with testbed:
        async with testbed.cluster(echo_cluster(2, name="first")) as first:
            await first.ready(READY_WITHIN_S)
            assert await get(first, first.address("c1", "n1"))
            await first.link_control.set({link: LinkFault("refuse")})
            pods = pods_of(testbed)
        async with testbed.cluster(echo_cluster(1, name="second")) as second:
            await second.ready(READY_WITHIN_S)
            assert pods_of(testbed) == pods
            stats = await second.link_control.stats()
            assert set(stats) == set(second.spec.links)
            assert stats[link].accepted == 0
            assert stats[link].fault is None
            assert await get(second, second.address("c1", "n1"))
        async with testbed.cluster(echo_cluster(3, name="third")) as third:
            await third.ready(READY_WITHIN_S)
            assert not set(pods_of(testbed).values()) & set(pods.values())
            assert await get(third, third.address("c1", "n3"))
    assert not left_in_engine(f"{compose_owners.RUN}={testbed.run}")


async def test_clusters_at_the_same_time_share_nothing(tmp_path: Path) -> None:
    """What carries one cluster carries no other until the first has left it."""
    testbed = ComposeTestbed(tmp_path, require_engine(), mounts=TESTS_MOUNT, overlap=True)
    async with (
        testbed,
        testbed.cluster(echo_cluster(1, name="first")) as first,
        testbed.cluster(echo_cluster(1, name="second")) as second,
    ):
        await asyncio.gather(first.ready(READY_WITHIN_S), second.ready(READY_WITHIN_S))
        assert first.direct_address("n1") != second.direct_address("n1")
        await second.kill("n1")
        assert await get(first, first.address("c1", "n1"))
    assert not left_in_engine(f"{compose_owners.RUN}={testbed.run}")


async def test_a_network_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    """Somebody else's network where ours would be: another is found."""
    engine = require_engine()
    docker("network", "create", "--subnet", "10.213.0.0/20", STRANGER)
    try:
        testbed = ComposeTestbed(tmp_path, engine, mounts=TESTS_MOUNT)
        async with testbed, testbed.cluster(echo_cluster(1)) as cluster:
            await cluster.ready(READY_WITHIN_S)
            assert not cluster.direct_address("n1").startswith("10.213.0.")
    finally:
        docker("network", "rm", STRANGER)
