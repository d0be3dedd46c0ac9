"""Start a run's zygote as early as can be: cheap to import, and it does not wait.

A run calls `launch` before it imports its own heavy modules; the zygote imports its in the
meantime, on the other core. Commands sent before it is warm wait in the socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from labs.harness.testbed import registry

ZYGOTE = "labs.harness.testbed.zygote"
ROOT = Path(__file__).resolve().parents[3]

# What nodes and links import. One that does not exist (yet) is not an error until it is started.
MODULES = ("services.kv", "labs.harness.links")


@dataclass(slots=True)
class Launched:
    """A zygote that was started: its process, our end of the socket pair, the name of the run."""

    run: str
    process: subprocess.Popen[bytes]
    control: socket.socket
    log: Path

    @property
    def directory(self) -> Path:
        """The run's temporary directory; the zygote makes it, and removes it at the end."""
        return registry.temporary_directory(self.run)

    def abandon(self) -> None:
        """Give up the run now: kill the whole group, then remove what it owned. Idempotent."""
        self.control.close()
        if self.process.returncode is None:
            # Not reaped yet, so the group's id is still ours, even if the zygote is dead.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            registry.release(registry.OwnerRecord.load(registry.record_path(self.run)))


def launch(run_directory: Path, modules: tuple[str, ...] = MODULES) -> Launched:
    """Start a zygote that imports `modules`. Returns at once.

    Its own output, in good times nothing, goes to `zygote.log` in `run_directory`.
    """
    registry.state_directory()  # refuse here, where somebody can read the error
    run_directory.mkdir(parents=True, exist_ok=True)
    log = run_directory / "zygote.log"
    run = f"{os.getpid()}-{secrets.token_hex(4)}"
    ours, theirs = socket.socketpair()
    settings = {
        "descriptor": theirs.fileno(),
        "run": run,
        "runner": os.getpid(),
        "modules": list(modules),
    }
    try:
        with log.open("ab") as output, theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", ZYGOTE, json.dumps(settings)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _search_path()},
            )
    except BaseException:
        ours.close()
        raise
    return Launched(run, process, ours, log)


def _search_path() -> str:
    """The repository first: a lab may be started from anywhere."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
