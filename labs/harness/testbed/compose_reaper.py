"""Removes a run's containers, networks and volumes when its runner dies, however it died.

    python -m labs.harness.testbed.compose_reaper RUN <the runner's end of a pipe

The runner's death is the end of file on our standard input, also after `kill -9`. A runner that has
removed everything itself says so before it hangs up. This process leads a session of its own, so
that Ctrl-C, which goes to the terminal's group, does not reach it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from labs.harness.testbed import compose_owners

ROOT = Path(__file__).resolve().parents[3]
DONE = b"done"
# What the engine was told last, it may still be doing.
LOOK_AGAIN_S = 2.0


def start(run: str) -> subprocess.Popen[bytes]:
    """Start the reaper of `run`; `release` it when all is done."""
    return subprocess.Popen(
        [sys.executable, "-m", "labs.harness.testbed.compose_reaper", run],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )


def release(reaper: subprocess.Popen[bytes], *, all_removed: bool) -> None:
    """The run is over; what is not removed yet, the reaper tries once more."""
    assert reaper.stdin is not None
    with contextlib.suppress(OSError):
        if all_removed:
            reaper.stdin.write(DONE)
        reaper.stdin.close()
    reaper.wait()


def main(arguments: list[str]) -> int:
    """Wait for the runner's end, then remove what is left of the run."""
    if sys.stdin.buffer.read() == DONE:
        return 0
    label = f"{compose_owners.RUN}={arguments[0]}"
    try:
        compose_owners.remove(label)
        time.sleep(LOOK_AGAIN_S)
        compose_owners.remove(label)
    except (OSError, subprocess.SubprocessError):
        return 1  # the engine is gone; the next run's sweep will find what comes back with it
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
