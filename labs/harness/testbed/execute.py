"""Become another program: how the zygote starts a server that is not written in Python.

The child replaces itself (`exec`), so the server *is* the child: it has the pid that the zygote
knows, signals and `waitpid` act on it and on no wrapper in between, and on Linux it keeps the order
to die with the zygote (prctl(2): PR_SET_PDEATHSIG survives execve).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

COMMAND = "FAULTLINE_EXECUTE"


def environment(command: list[str]) -> dict[str, str]:
    """What `main` is to be given so that it becomes `command` (a path, then its arguments)."""
    return {COMMAND: json.dumps(command)}


def main(environ: Mapping[str, str]) -> int:
    """Returns only when that program can't be run: 127, as a shell would."""
    command: list[str] = json.loads(environ[COMMAND])
    os.environ.pop(COMMAND, None)
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]} can't be run: {error}", file=sys.stderr)  # noqa: T201 - to its log
    return 127
