"""`docker compose up`, `create` and `down`, as commands that end when their runner does."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import subprocess
import sys
from pathlib import Path

from labs.harness.testbed import compose_owners
from labs.harness.testbed.compose_containers import PROJECT
from labs.harness.testbed.errors import TestbedError

UP_WITHIN_S = 120.0
DOWN_WITHIN_S = 60.0
PR_SET_PDEATHSIG = 1
# What the engine says of a network or a port that somebody else has.
TAKEN = ("overlaps with other", "already allocated", "address already in use")


class PlaceTaken(Exception):
    """The engine refused the subnet or a port: somebody else has it."""


async def up(project: str, file: Path) -> None:
    """Create and start everything in `file`. Raises PlaceTaken, TestbedError."""
    code, said = await _compose(project, file, UP_WITHIN_S, "up", "--detach", "--no-build")
    if code and any(words in said for words in TAKEN):
        raise PlaceTaken(said)
    if code:
        raise TestbedError(f"docker compose up failed: {said[-1000:]}; its file: {file}")


async def create(project: str, file: Path) -> None:
    """Create everything in `file`, and start nothing. Raises TestbedError."""
    code, said = await _compose(project, file, UP_WITHIN_S, "create", "--no-build")
    if code:
        raise TestbedError(f"docker compose create failed: {said[-1000:]}; its file: {file}")


async def remove(project: str, file: Path | None, *, complete: bool) -> None:
    """Remove containers, networks and volumes, also anonymous ones. Raises TestbedError.

    `complete`: nobody is making any of them; else `down` takes its turn first, after what the
    engine was told last.
    """
    if not complete and file is not None and file.exists():
        words = ("down", "--volumes", "--timeout", "0", "--remove-orphans")
        code, said = await _compose(project, file, DOWN_WITHIN_S, *words)
        if code:
            raise TestbedError(f"docker compose down failed: {said[-1000:]}")
    try:
        await asyncio.to_thread(compose_owners.remove, f"{PROJECT}={project}", surely=True)
    except (OSError, subprocess.SubprocessError) as error:
        why: object = error if type(error) is OSError else "the Docker engine does not answer"
        if isinstance(error, subprocess.CalledProcessError):
            why = f"the Docker engine says: {error.stderr.strip()[-300:]}"
        raise TestbedError(
            f"{project} can't be removed, {why}; the next run, or make clean, removes it"
        ) from error


async def _compose(project: str, file: Path, within_s: float, *words: str) -> tuple[int, str]:
    command = ["docker", "compose", "--ansi", "never", "--progress", "quiet"]
    command += ["--project-name", project, "--file", str(file), *words]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # Not in the terminal's group: Ctrl-C is the runner's, which then ends this one in order.
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    try:
        async with asyncio.timeout(within_s):
            _, said = await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise TestbedError(f"docker compose {words[0]} took more than {within_s:g} s") from None
        raise
    return process.returncode or 0, said.decode(errors="replace").strip()


def _die_with_parent() -> None:
    """A killed runner's `up` must not go on making what its reaper is removing."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
