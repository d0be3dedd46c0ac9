"""What a process takes from the machine that it runs on; a simulation passes its own.

Time, files, chance, a name for the process, a place for what it prints: whatever else a service
would ask the operating system for. The network is missing because it is the event loop's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TextIO

from services.chassis.clock import Clock
from services.chassis.files import Files, UnsafeFiles
from services.chassis.telemetry import EventFile

__all__ = ["Clock", "EventFile", "Files", "Machine"]


def _real_files(fsync: str) -> Files:
    return UnsafeFiles() if fsync == "never" else Files()


@dataclass(frozen=True, slots=True)
class Machine:
    """The real machine, where nothing else is said.

    `files` gives the files for a value of KV_FSYNC; `random` is what the operating system's chance
    is taken from (never a seed of the configuration).
    """

    clock: Clock = field(default_factory=Clock)
    files: Callable[[str], Files] = _real_files
    random: Random = field(default_factory=Random)
    output: TextIO = field(default_factory=lambda: sys.stderr)
    open_events: Callable[[Path], EventFile] = EventFile
    pid: int = field(default_factory=os.getpid)
