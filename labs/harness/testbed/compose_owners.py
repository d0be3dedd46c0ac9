"""Whose containers, networks and volumes are whose: labels, and the removal of what nobody owns.

Everything that a run makes carries two labels: `faultline.run`, and `faultline.owner`, the runner's
process with its start time, so that a later process of that number is not taken for it. Normally
the run removes all of it. After `kill -9` its reaper (`compose_reaper.py`) does, and whatever even
that one left behind, because both were killed, the next run sweeps, or `make clean`.

What has no such label, or belongs to a living process, or to another machine that shares the
engine, is never touched. Only the standard library and the docker command are used here: the
reaper must be small.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from labs.harness.testbed import registry

RUN = "faultline.run"
OWNER = "faultline.owner"
COMMAND_WITHIN_S = 60.0
REMOVAL_TRIES = 20
RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class SweptProject:
    """What a sweep removed of one dead run."""

    run: str
    removed: tuple[str, ...]

    def __str__(self) -> str:
        return f"run {self.run}: removed {', '.join(self.removed) or 'nothing'}"


def labels(run: str, pid: int | None = None) -> dict[str, str]:
    """The labels of all that the run makes; its owner is this process (or `pid`)."""
    pid = os.getpid() if pid is None else pid
    return {RUN: run, OWNER: f"{_machine()}/{pid}/{_identity(pid)}"}


def abandoned(owner: str) -> bool:
    """Is the owner's process dead for sure? Of one on another machine nobody here can tell."""
    machine, _, process = owner.rpartition("/")[0].rpartition("/")
    if machine != _machine() or not process.isdigit():
        return False
    return _identity(int(process)) != owner.rpartition("/")[2]


def sweep() -> list[SweptProject]:
    """Remove what dead runs left behind in the engine. Silent when no engine answers."""
    try:
        runs = {
            run
            for kind in ("ps -a", "network ls", "volume ls")
            for run, owner in _labelled(kind)
            if run and abandoned(owner)
        }
    except (OSError, subprocess.SubprocessError):
        return []
    return [SweptProject(run, remove(f"{RUN}={run}")) for run in sorted(runs)]


def remove(label: str, *, surely: bool = False) -> tuple[str, ...]:
    """Remove every container, network and volume with `label` (key=value); what it was, in words.

    In that order, and again until nothing is left: a command that a dead runner had sent may still
    be creating a container. `surely`: raises OSError when something stays, however often it tries.
    """
    removed: list[str] = []
    for attempt in range(REMOVAL_TRIES):
        left = False
        for what, listing, removing in (
            ("container", "ps -aq", "rm -fv"),
            ("network", "network ls -q", "network rm"),
            ("volume", "volume ls -q", "volume rm -f"),
        ):
            found = _docker(*listing.split(), "--filter", f"label={label}").split()
            if found:
                left = True
                _docker(*removing.split(), *found, check=False)
                removed.append(f"{len(found)} {what}{'s' * (len(found) > 1)}")
        if not left:
            break
        if attempt:
            time.sleep(RETRY_S)
    else:
        if surely:
            raise OSError(f"still there after {REMOVAL_TRIES} tries: {removed[-1]}")
    return tuple(dict.fromkeys(removed))


def _identity(pid: int) -> str:
    """A digest of what tells this process from a later one of its number; "gone" without one."""
    identity = registry.identify([pid]).get(pid)
    return hashlib.sha256(identity.encode()).hexdigest()[:16] if identity else "gone"


def _labelled(kind: str) -> Iterable[tuple[str, str]]:
    template = f'{{{{.Label "{RUN}"}}}}\t{{{{.Label "{OWNER}"}}}}'
    listed = _docker(*kind.split(), "--filter", f"label={OWNER}", "--format", template)
    for line in listed.splitlines():
        run, _, owner = line.partition("\t")
        yield run, owner


def _docker(*arguments: str, check: bool = True) -> str:
    answer = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_WITHIN_S,
        check=check,
        start_new_session=True,  # Ctrl-C goes to the terminal's group, and this cleans up after it
    )
    return answer.stdout


def _machine() -> str:
    """This machine and, in a container, this container: where a process number means anything."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}{namespace}"
