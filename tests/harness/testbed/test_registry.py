"""Owner records, sweeps, and that no stranger comes to harm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.harness.testbed import registry
from labs.harness.testbed.registry import OwnedProcess, OwnerRecord, identify


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry.tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        yield process
        process.kill()


@pytest.fixture(params=["proc", "ps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to identify a process; `ps` is the one of macOS."""
    if request.param == "ps":
        monkeypatch.setattr(registry, "PROC", Path("/nonexistent"))
    elif not Path("/proc/self/stat").exists():
        pytest.skip("no /proc here")
    return str(request.param)


def dead_process() -> OwnedProcess:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return OwnedProcess(process.pid, "gone")


def record(run: str, *processes: OwnedProcess, group: int = 0) -> OwnerRecord:
    owned = OwnerRecord(run, dead_process(), group, list(processes))
    owned.directories.append(str(registry.temporary_directory(run)))
    owned.save()
    registry.temporary_directory(run).mkdir()
    (registry.temporary_directory(run) / "data").write_text("…")
    return owned


def test_identity_is_stable_and_ends_with_the_process(
    way: str, sleeper: subprocess.Popen[bytes]
) -> None:
    """The same process has the same identity each time; a zombie and a dead one have none."""
    first = identify([sleeper.pid, os.getpid(), 0])
    assert set(first) == {sleeper.pid, os.getpid()}
    assert identify([sleeper.pid, os.getpid()]) == first

    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped: a zombie
    assert set(identify([sleeper.pid, os.getpid()])) == {os.getpid()}
    sleeper.wait()
    assert set(identify([sleeper.pid, os.getpid()])) == {os.getpid()}
    assert identify([]) == {}


def test_a_dead_runs_processes_and_directory_go(way: str, sleeper: subprocess.Popen[bytes]) -> None:
    """A record whose runner is dead: its living processes are killed, its directory removed."""
    owned = OwnedProcess(sleeper.pid, identify([sleeper.pid])[sleeper.pid])
    record("dead", owned, group=sleeper.pid)

    swept = registry.sweep()

    assert [(each.run, each.killed) for each in swept] == [("dead", (sleeper.pid,))]
    assert sleeper.wait(5) == -9
    assert list(registry.state_directory().iterdir()) == []


def test_a_stranger_with_a_recorded_pid_lives(way: str, sleeper: subprocess.Popen[bytes]) -> None:
    """A pid may have been given to somebody else since: only its identity proves ownership."""
    record("dead", OwnedProcess(sleeper.pid, "another start time"), group=sleeper.pid)

    assert registry.sweep()[0].killed == ()
    assert sleeper.poll() is None
    assert list(registry.state_directory().iterdir()) == []


def test_a_living_run_is_left_alone(way: str, sleeper: subprocess.Popen[bytes]) -> None:
    """The runner of the record lives: nothing is touched."""
    owned = record("alive", OwnedProcess(sleeper.pid, identify([sleeper.pid])[sleeper.pid]))
    owned.runner = OwnedProcess(os.getpid(), identify([os.getpid()])[os.getpid()])
    owned.save()

    assert registry.sweep() == []
    assert sleeper.poll() is None
    assert registry.temporary_directory("alive").exists()


def test_a_record_cannot_name_other_directories(tmp_path: Path) -> None:
    """Only what lies directly in our own state directory is ever removed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    owned = record("dead")
    link = registry.state_directory() / "link"
    link.symlink_to(precious)
    for directory in (precious, registry.state_directory() / ".." / "precious", link):
        owned.directories = [str(directory)]
        owned.save()
        registry.sweep()
        assert precious.is_dir()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": "x"}', '{"runner": 5}'])
def test_what_is_no_record_is_removed(content: str) -> None:
    """Records are renamed into place whole: half of one is none."""
    (registry.state_directory() / "x.json").write_text(content)

    assert registry.sweep() == []
    assert list(registry.state_directory().iterdir()) == []


def test_a_state_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """In a shared /tmp, a record that another user wrote must not make us kill or remove."""
    directory = registry.state_directory()
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o777)
    with pytest.raises(PermissionError, match="of yours alone"):
        registry.sweep()

    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="of yours alone"):
        registry.sweep()
