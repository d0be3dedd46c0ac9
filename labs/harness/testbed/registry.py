"""Who owns which processes and directories, so that nothing outlives its run by more than a sweep.

Every run has one *owner record*, a file in a directory of this user's alone
(`<temporary directory>/faultline-<uid>/<run>.json`), and one temporary directory beside it
(`<run>/`). The zygote writes the record before it starts anything and removes it as its last act.
Normally nothing else happens: when a runner dies, even by `kill -9`, its zygote cleans up within
milliseconds. The record is for the case that both were killed: the next run, or
`python -m labs sweep`, finds a record whose runner is dead and finishes the work.

A pid alone proves nothing: it may belong to a stranger by now. Each one is recorded with its
*identity* (on Linux the boot and the start time in clock ticks, elsewhere start time and command
line as `ps` shows them), and only a process that still has it is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROC = Path("/proc")
GONE_WITHIN_S = 3.0
DRAFT_STALE_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class OwnedProcess:
    """A process of a run. `identity` is what `identify` said of it when it was recorded."""

    pid: int
    identity: str
    name: str = ""


@dataclass(slots=True)
class OwnerRecord:
    """What one run owns. `group` is the process group that the zygote and all its children share.

    The processes' first is the zygote.
    """

    run: str
    runner: OwnedProcess
    group: int
    processes: list[OwnedProcess] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write the record as a whole: a reader sees the old one or the new one."""
        path = record_path(self.run)
        draft = draft_path(self.run)
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> OwnerRecord:
        """Raises OSError, ValueError, KeyError or TypeError when there is no such record."""
        fields = json.loads(path.read_text())
        fields["runner"] = OwnedProcess(**fields["runner"])
        fields["processes"] = [OwnedProcess(**process) for process in fields["processes"]]
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did about one dead run: pids killed, directories removed."""

    run: str
    killed: tuple[int, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        killed = f"killed {', '.join(map(str, self.killed))}" if self.killed else "nothing to kill"
        return f"run {self.run}: {killed}; removed {', '.join(self.removed) or 'nothing'}"


def state_directory() -> Path:
    """This user's directory of owner records, made when absent (mode 0700).

    Raises:
        PermissionError: it isn't ours alone. In a shared `/tmp` another user may have made it
            first, with records in it that would have us kill or remove things.
    """
    directory = Path(tempfile.gettempdir()) / f"faultline-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} must be a directory of yours alone (mode 0700)")
    return directory


def record_path(run: str) -> Path:
    return state_directory() / f"{run}.json"


def draft_path(run: str) -> Path:
    """A record that is being written; left behind by who was killed in the middle of it."""
    return record_path(run).with_suffix(".draft")


def temporary_directory(run: str) -> Path:
    """The run's own directory for data that goes with it (the zygote makes it)."""
    return state_directory() / run


def identify(pids: Iterable[int]) -> dict[int, str]:
    """The identity of each living process among `pids`; dead ones and zombies are left out."""
    wanted = [pid for pid in dict.fromkeys(pids) if pid > 0]
    if (PROC / "self" / "stat").exists():
        return _identify_by_proc(wanted)
    return _identify_by_ps(wanted)


def _identify_by_proc(pids: list[int]) -> dict[int, str]:
    boot = ""
    with contextlib.suppress(OSError):
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    identities = {}
    for pid in pids:
        try:
            line = (PROC / str(pid) / "stat").read_text()
        except OSError:
            continue
        # proc(5): the command, in brackets, may itself hold spaces and brackets; after it come
        # the state (field 3) and, as field 22, the start time in ticks since boot.
        fields = line.rpartition(")")[2].split()
        if fields[0] not in "ZX":
            identities[pid] = f"{boot} {fields[19]}"
    return identities


def _identify_by_ps(pids: list[int]) -> dict[int, str]:
    if not pids:
        return {}
    # Four -o options: POSIX lets a header (`pid=`) run on to the end of its argument.
    columns = ["-o", "pid=", "-o", "stat=", "-o", "lstart=", "-o", "command="]
    listed = subprocess.run(
        ["ps", "-ww", *columns, "-p", ",".join(map(str, pids))],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,  # 1 when none of them exists
        timeout=10,
    )
    identities = {}
    for line in listed.stdout.splitlines():
        pid, state, rest = line.split(maxsplit=2)
        if not state.startswith("Z"):
            identities[int(pid)] = " ".join(rest.split())
    return identities


def sweep() -> list[Swept]:
    """Finish what dead runs left behind; living runs, and strangers, are not touched.

    Safe to run at any time and by several runners at once: every step may find its work done.
    """
    swept = []
    for draft in state_directory().glob("*.draft"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > DRAFT_STALE_AFTER_S:
                draft.unlink()
    for path in sorted(state_directory().glob("*.json")):
        try:
            record = OwnerRecord.load(path)
        except FileNotFoundError:
            continue  # its owner, or another sweep, was faster
        except (OSError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)  # not a record: written whole, it can't be half of one
            continue
        if not _lives(record.runner):
            swept.append(release(record))
    return swept


def release(record: OwnerRecord) -> Swept:
    """Kill and remove what `record` owns, then the record itself."""
    killed = []
    living = identify(process.pid for process in record.processes)
    for process in record.processes:
        if living.get(process.pid) == process.identity:
            _kill_with_group(process.pid, record.group)
            killed.append(process.pid)
    deadline = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < deadline and any(map(_lives, record.processes)):
        time.sleep(0.005)
    removed = [directory for directory in record.directories if _remove(Path(directory))]
    if all(not Path(directory).exists() for directory in record.directories):
        record_path(record.run).unlink(missing_ok=True)
        draft_path(record.run).unlink(missing_ok=True)
    return Swept(record.run, tuple(killed), tuple(removed))


def _lives(process: OwnedProcess) -> bool:
    return identify([process.pid]).get(process.pid) == process.identity


def _kill_with_group(pid: int, group: int) -> None:
    """Kill a process whose identity was just checked, and what it started in the run's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # A member that is surely ours vouches for the group: its id can't have been reused.
        if group > 1 and os.getpgid(pid) == group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _remove(directory: Path) -> bool:
    """Remove a run's directory; refuses, by doing nothing, whatever is not below our own."""
    if directory.parent != state_directory() or directory.is_symlink() or not directory.exists():
        return False
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()
