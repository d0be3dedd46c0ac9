"""The benchmark: goals are judged by medians, and nothing it starts outlives it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from labs.harness import bench
from labs.harness.bench import main, simulated, table
from labs.harness.bench.measure import middle
from labs.harness.bench.processes import BenchError, Group, cpu_s, free_ports, resident_mib
from labs.harness.testbed import registry
from labs.harness.testbed.waiting import until
from services.kv.cores import PROTOCOLS

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def figures(**throughputs: float) -> list[dict[str, Any]]:
    rows = []
    for name, value in throughputs.items():
        for clients in (1, 16, 64):
            # A round that was disturbed must not decide.
            for disturbed in (1.0, 1.0, 0.01):
                row = {"interface": name.replace("_", " "), "clients": clients}
                rows.append(
                    {**row, "throughput": value * disturbed, "resident_mib": 50.0, "cpu_us": 1.0}
                    | {"p50_ms": 1.0, "p99_ms": 2.0}
                )
    return rows


GETS = [{"handler": "observed", "cpu_us": 60.0, "throughput": 9.0},
        {"handler": "bare", "cpu_us": 50.0, "throughput": 9.0}]  # fmt: skip
STARTS = [{"how": "forked", "seconds": 0.6}]
PROXIED = [
    {
        "proxy": name,
        "cpu_us": cpu_us,
        "anew_cpu_us": cpu_us and cpu_us + 10.0,
        "p99_ms": p99_ms,
        "p50_ms": 0.1,
        "throughput": 9000.0,
    }
    for name, cpu_us, p99_ms in (
        ("none", 0.0, 0.5),
        ("nginx", 10.0, 1.5),
        ("faultline", 16.0, 3.0),
        ("observed", 20.0, 3.0),
    )
]


def test_goals_are_ratios_of_medians_to_each_peer() -> None:
    """1.3 times each of etcd's interfaces."""
    puts = figures(faultline=1200, etcd_v2=1000, etcd_v3=900)
    goals = table.goals(puts, GETS, STARTS, PROXIED)

    assert [round(goal.measured, 2) for goal in goals[:9]] == [*[1.33] * 3, *[1.2] * 4, 0.6, 50.0]
    assert [goal.met for goal in goals[:9]] == [*[True] * 3, *[False] * 3, True, False, True]


def test_the_load_balancer_is_held_to_nginx() -> None:
    """Half of its requests per second and core, twice the p99 that it adds to none at all."""
    rate, anew, p99 = table.goals([], GETS, STARTS, PROXIED)[-3:]

    assert (rate.measured, rate.met) == (10 / 16, True)
    assert (anew.measured, anew.met) == (20 / 26, True)
    assert (p99.measured, p99.met) == (2.5, False)
    assert [goal.met for goal in table.goals([], GETS, STARTS, [])[-3:]] == [None, None, None]


def test_near_its_saturation_no_latency_is_told() -> None:
    """Whoever is slower would be compared at a load that the other does not feel."""
    hardly = [{**each, "throughput": 3_000.0} for each in PROXIED]

    assert table.goals([], GETS, STARTS, hardly)[-1].met is None


def test_without_etcd_nothing_is_claimed() -> None:
    """Absent peers leave goals unmeasured, neither met nor missed."""
    goals = table.goals(figures(faultline=1200), GETS, STARTS, [])

    assert [goal.met for goal in goals[:6]] == [None] * 6
    assert math.isnan(middle([], "throughput"))


def test_the_tables_show_every_figure() -> None:
    """What is printed can be read without colours."""
    console = Console(file=io.StringIO(), width=120)
    puts = figures(faultline=1200, etcd_v2=1000)
    table.show_puts(console, puts)
    table.show_others(console, GETS, STARTS)
    table.show_proxies(console, PROXIED)
    table.show_goals(console, table.goals(puts, GETS, STARTS, PROXIED))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()

    for words in (
        "1,200",
        "etcd v2",
        "60.0 µs",
        "0.60 s",
        "≥ 1.3 ×",
        "1.20 ×",
        "no",
        "yes",
        "telemetry on",
        "62,500",
    ):
        assert words in text


def test_a_busy_machine_is_told() -> None:
    """Ratios on a machine that others use say little, and the reader must know."""
    machine = {"cpu": "c", "cores": 2, "system": "s", "kernel": "k", "python": "3", "etcd": None}
    machine |= {"fdatasync_p50_ms": 0.1}
    idle, busy = (table.describe({**machine, "load_average": [x, 0, 0]}) for x in (0.3, 3.0))

    assert "busy" not in idle
    assert "busy with something else" in busy
    assert "etcd not here" in busy


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_nothing_outlives_its_group(tmp_path: Path) -> None:
    """Processes, directory and owner record are gone, also when measuring raises."""
    group = Group("sleepers", tmp_path / "data")

    async def measure() -> None:
        with group:
            group.start(SLEEPER)
            group.start(SLEEPER)
            assert all(map(alive, group.pids))
            assert os.getpgid(group.pids[1]) == group.pids[0]
            assert cpu_s(group.pids) >= 0
            # Small until the new process has become Python: between fork and exec it owns nothing.
            await until(lambda: resident_mib(group.pids[0]) > 1, 10, "the process has memory")
            raise RuntimeError("measuring failed")

    with pytest.raises(RuntimeError, match="measuring failed"):
        await measure()

    assert not any(map(alive, group.pids))
    assert not group.directory.exists()
    assert not list(registry.state_directory().glob(f"bench-{os.getpid()}-*"))


async def test_a_dead_process_is_told_with_its_last_words(tmp_path: Path) -> None:
    """A node that refuses its configuration says so in the benchmark's error."""
    with Group("node", tmp_path / "data") as group:
        group.start([sys.executable, "-c", "import sys; sys.exit('no such thing')"])
        await until(lambda: group.processes[0].poll() is not None, within_s=10)
        with pytest.raises(BenchError, match="exit code 1:\nno such thing"):
            group.check()


def test_a_group_whose_leader_died_is_killed_all_the_same(tmp_path: Path) -> None:
    """The first process leads the group; it may be the first to go."""
    with Group("sleepers", tmp_path / "data") as group:
        group.start(SLEEPER)
        group.start(SLEEPER)
        os.kill(group.pids[0], signal.SIGKILL)
        group.processes[0].wait()

    assert not alive(group.pids[1])


def test_ports_are_free_and_different() -> None:
    """Enough for a cluster."""
    assert len(set(free_ports(6))) == 6


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--seconds", "x"], ["--fast"]])
def test_wrong_options_are_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Usage on stderr and exit code 2, before anything is started."""
    with pytest.raises(SystemExit) as left:
        main(wrong)
    assert left.value.code == 2
    assert "make bench" in capsys.readouterr().err


def test_stale_data_is_removed_and_a_living_benchmark_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill -9 the next benchmark removes what was left; not what another one works on."""
    monkeypatch.setattr(bench, "RUNS", tmp_path)
    for name in ("stale.data", "living.data"):
        (tmp_path / name / "store-0").mkdir(parents=True)
    lock = os.open(tmp_path / "living.data", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        bench._remove_stale_data()
    finally:
        os.close(lock)

    assert [each.name for each in tmp_path.iterdir()] == ["living.data"]


def test_the_slowest_protocol_decides_about_the_simulation() -> None:
    """2,000 operations a second for every one of them, by the median of its rounds."""
    rows = [
        {"protocol": protocol, "per_cpu_s": rate}
        for protocol, rates in (("fast", (3_000.0, 100.0, 3_100.0)), ("slow", (1_900.0,) * 3))
        for rate in rates
    ]
    (goal,) = table.simulation_goals(rows)

    assert (goal.measured, goal.met) == (1_900.0, False)
    assert "slow (the slowest)" in goal.what
    assert table.simulation_goals(rows[:3])[0].met


def test_a_simulated_run_is_measured() -> None:
    """All of the load that is counted was offered, and the promises were kept."""
    figures = simulated.one(1, "raft")

    assert set(simulated.PROTOCOLS) == set(PROTOCOLS)
    assert 700 < figures["operations"] < 900  # 200 a second for four seconds
    assert figures["per_cpu_s"] == figures["operations"] / figures["cpu_s"]
