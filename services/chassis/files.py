"""The system calls of the storage, by name: what a test or a simulation replaces to inject faults.

`synchronize` is the one with a history. Linux: `fdatasync` (data, and the length if it changed).
macOS: `fsync` leaves data in the drive's cache, `F_FULLFSYNC` does not. Neither is ever retried:
after a failed fsync the kernel may have dropped the dirty pages and report success next time
(PostgreSQL's "fsyncgate", 2018). So a failure is final: the node stops.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_FULL_FSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


class Files:
    """Real files. Every method may raise OSError, which is fatal to the storage."""

    def open(self, path: Path) -> int:
        """A descriptor for reading and writing; the file is created when absent."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def read(self, path: Path) -> bytes:
        """All that the file holds."""
        return path.read_bytes()

    def make_directory(self, path: Path) -> None:
        """The directory is there, with those above it."""
        path.mkdir(parents=True, exist_ok=True)

    def names(self, path: Path) -> list[str]:
        """What is in the directory, in alphabetical order."""
        return sorted(os.listdir(path))

    def lock(self, descriptor: int) -> bool:
        """Whether this process has the file for itself now; until it ends or closes it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
        return True

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """All of `data` at `offset` (pwrite may write less than it was given)."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view = view[written:]
            offset += written

    def truncate(self, descriptor: int, length: int) -> None:
        """The file is `length` bytes long."""
        os.ftruncate(descriptor, length)

    def synchronize(self, descriptor: int) -> None:
        """What was written is on stable storage."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(descriptor)
        elif _FULL_FSYNC is not None:
            fcntl.fcntl(descriptor, _FULL_FSYNC)
        else:
            os.fsync(descriptor)

    def synchronize_directory(self, path: Path) -> None:
        """Names created, renamed or removed in the directory are on stable storage."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """`target` is what `source` was, at once."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """The file is gone; it may have been gone before."""
        path.unlink(missing_ok=True)

    def close(self, descriptor: int) -> None:
        """Give the descriptor back."""
        os.close(descriptor)


class UnsafeFiles(Files):
    """KV_FSYNC=never: survives the death of the process, not that of the machine."""

    def synchronize(self, descriptor: int) -> None:
        """Nothing: the kernel writes when it likes."""

    def synchronize_directory(self, path: Path) -> None:
        """Nothing."""
