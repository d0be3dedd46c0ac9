"""The simulated disk of a node: it outlives the node's process, and forgets what it may.

A disk promises no more than POSIX does: bytes are safe once `synchronize` of their file has
returned, names (created, renamed, removed) once `synchronize_directory` has. A process that is
killed loses nothing, for the kernel has its writes; a machine that loses its power
(`lose_unfsynced_writes`) loses any part of what was not safe: whole writes, or single sectors of
one (a torn write), and of the names the latest.

A disk can fail, too. *Full*: no file grows, though bytes that a file has already may be written
anew. *Failing*: `synchronize` reports EIO once, and the kernel forgets that those pages were to be
written: they can be read, and a later `synchronize` that succeeds has not saved them ("fsyncgate",
PostgreSQL 2018; Rebello et al., "Can Applications Recover from fsync Failures?", 2020).

`synchronize` takes time, during which the process stands still (`VirtualLoop.stall`); if the power
fails meanwhile, nothing was promised yet. What the process did after that, in the same callback, it
has done in its own future: killed before that, it has never done it.
"""

from __future__ import annotations

import errno
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from services.chassis.machine import Files

if TYPE_CHECKING:
    from labs.harness.testbed.simulation.loop import VirtualLoop

SECTOR_BYTES = 512
SYNC_MS = (0.1, 0.4)  # an fdatasync takes, from, to


@dataclass(slots=True)
class Write:
    """One write or truncation, made at `at_ns`: `after` in place of `before`.

    `safe_ns`: from when on a power failure leaves it alone; None until it is synchronized.
    `forgotten`: to synchronize it failed, and whoever does so again only believes that it is safe.
    """

    offset: int
    before: bytes
    after: bytes
    at_ns: int
    safe_ns: int | None = None
    forgotten: bool = False

    def covers(self, other: Write) -> bool:
        """Is every byte of `other` written anew by this?"""
        end = self.offset + len(self.after)
        return self.offset <= other.offset and other.offset + len(other.after) <= end


@dataclass(slots=True)
class Names:
    """The names as they were before a change of theirs, at `at_ns`; `safe_ns` as in `Write`."""

    before: dict[Path, Inode]
    at_ns: int
    safe_ns: int | None = None


@dataclass(eq=False, slots=True)
class Inode:
    """A file's content as the kernel sees it, and the writes that may not be on the disk yet."""

    data: bytearray = field(default_factory=bytearray)
    unsafe: list[Write] = field(default_factory=list)

    def replace(self, offset: int, length: int, new: bytes, at_ns: int, now_ns: int) -> None:
        """Put `new` in place of `length` bytes at `offset`. The process is at `at_ns`, all others
        at `now_ns`, which may be before."""
        if offset > len(self.data):  # a hole reads as zeros
            new, offset = bytes(offset - len(self.data)) + new, len(self.data)
        if self.unsafe and _safe(self.unsafe[0].safe_ns, now_ns):
            self.unsafe = self._at_risk(now_ns)
        self.unsafe.append(Write(offset, bytes(self.data[offset : offset + length]), new, at_ns))
        self.data[offset : offset + length] = new

    def take_back(self, now_ns: int) -> None:
        """The process was killed at `now_ns`: what it would have written later, it has not."""
        while self.unsafe and self.unsafe[-1].at_ns > now_ns:
            write = self.unsafe.pop()
            self.data[write.offset : write.offset + len(write.after)] = write.before

    def synchronized(self, at_ns: int) -> None:
        """All is safe from `at_ns` on, but for what is forgotten."""
        for write in self.unsafe:
            if write.safe_ns is None and not write.forgotten:
                write.safe_ns = at_ns

    def _at_risk(self, now_ns: int) -> list[Write]:
        """What a power failure may take: neither safe, nor covered by something later that is."""
        risky: list[Write] = []
        safe: list[Write] = []
        for write in reversed(self.unsafe):
            if _safe(write.safe_ns, now_ns):
                safe.append(write)
            elif not (write.forgotten and any(later.covers(write) for later in safe)):
                risky.append(write)
        return risky[::-1]

    def forget(self) -> None:
        """To synchronize has failed: these pages count as clean."""
        for write in self.unsafe:
            write.forgotten = write.forgotten or write.safe_ns is None

    def power_cut(self, now_ns: int, random: Random) -> None:
        """Keep what is safe, and of the rest what chance keeps."""
        unsafe = self._at_risk(now_ns)
        self.unsafe = []
        for write in reversed(unsafe):
            self.data[write.offset : write.offset + len(write.after)] = write.before
        for write in unsafe:
            fate = random.random()
            if fate < 0.5:
                continue  # lost
            torn = fate < 0.75
            for at, piece in _sectors(write):
                if torn and random.random() < 0.5:
                    continue
                if at > len(self.data):
                    self.data.extend(bytes(at - len(self.data)))
                self.data[at : at + len(piece)] = piece
            if not torn and len(write.after) < len(write.before):
                end = write.offset + len(write.after)
                del self.data[end : end + len(write.before) - len(write.after)]


def _sectors(write: Write) -> list[tuple[int, bytes]]:
    """(offset, bytes) of `after`, cut at the boundaries of sectors."""
    pieces = []
    at, rest = write.offset, write.after
    while rest:
        size = SECTOR_BYTES - at % SECTOR_BYTES
        pieces.append((at, rest[:size]))
        at, rest = at + size, rest[size:]
    return pieces


def _safe(safe_ns: int | None, now_ns: int) -> bool:
    return safe_ns is not None and safe_ns <= now_ns


class Disk:
    """What one node has stored. `lose_unfsynced_writes` makes the next kill a power failure.

    `synchronize_ms`: how long that takes, from and to. `full`: nothing may grow. `failing`: the
    next `synchronize` of a file fails.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lose_unfsynced_writes = False
        self.synchronize_ms: tuple[float, float] = SYNC_MS
        self.full = False
        self.failing = False
        self.names: dict[Path, Inode] = {}
        self._changes: list[Names] = []

    def changing_names(self, at_ns: int, now_ns: int) -> None:
        """Called before every change of names."""
        self._changes = [each for each in self._changes if not _safe(each.safe_ns, now_ns)]
        self._changes.append(Names(dict(self.names), at_ns))

    def names_safe(self, at_ns: int) -> None:
        for change in self._changes:
            if change.safe_ns is None:
                change.safe_ns = at_ns

    def killed(self, now_ns: int) -> None:
        """The node's process was killed at `now_ns`."""
        inodes = dict.fromkeys(itertools.chain(
            self.names.values(), *(each.before.values() for each in self._changes)))  # fmt: skip
        for inode in inodes:
            inode.take_back(now_ns)
        while self._changes and self._changes[-1].at_ns > now_ns:
            self.names = self._changes.pop().before
        if not self.lose_unfsynced_writes:
            return
        self.lose_unfsynced_writes = False
        unsafe = [each for each in self._changes if not _safe(each.safe_ns, now_ns)]
        self._changes = []
        kept = self.random.randint(0, len(unsafe))  # a journal: in order, up to some point
        if kept < len(unsafe):
            self.names = unsafe[kept].before
        for inode in inodes:
            inode.power_cut(now_ns, self.random)

    def wipe(self) -> None:
        """Nothing was ever stored."""
        self.names.clear()
        self._changes.clear()


class SimulatedFiles(Files):
    """The files of one process on its node's disk. From a dead process no call does anything."""

    def __init__(self, disk: Disk, loop: VirtualLoop, *, synchronizes: bool = True) -> None:
        self._disk = disk
        self._loop = loop
        self._synchronizes = synchronizes
        self._numbers = itertools.count(3)
        self._open: dict[int, Inode] = {}

    def _change_names(self) -> dict[Path, Inode]:
        self._disk.changing_names(self._loop.now_ns(), self._loop.simulation.now_ns)
        return self._disk.names

    def _replace(self, inode: Inode, offset: int, length: int, new: bytes) -> None:
        inode.replace(offset, length, new, self._loop.now_ns(), self._loop.simulation.now_ns)

    def _inode(self, path: Path) -> Inode:
        inode = self._disk.names.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return inode

    def open(self, path: Path) -> int:
        if path not in self._disk.names:
            if self._loop.dead:
                return -1
            self._change_names()[path] = Inode()
        number = next(self._numbers)
        self._open[number] = self._disk.names[path]
        return number

    def read(self, path: Path) -> bytes:
        return bytes(self._inode(path).data)

    def make_directory(self, path: Path) -> None:
        """Directories are there by themselves."""

    def names(self, path: Path) -> list[str]:
        return sorted(each.name for each in self._disk.names if each.parent == path)

    def lock(self, descriptor: int) -> bool:
        return True  # one process per node, and a lock goes with its process

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        if not self._loop.dead:
            inode = self._open[descriptor]
            self._may_grow(inode, offset + len(data))
            self._replace(inode, offset, len(data), data)

    def _may_grow(self, inode: Inode, length: int) -> None:
        if self._disk.full and length > len(inode.data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def truncate(self, descriptor: int, length: int) -> None:
        inode = self._open[descriptor]
        surplus = len(inode.data) - length
        if self._loop.dead or not surplus:
            return
        if surplus > 0:
            self._replace(inode, length, surplus, b"")
        else:
            self._may_grow(inode, length)
            self._replace(inode, len(inode.data), 0, bytes(-surplus))

    def synchronize(self, descriptor: int) -> None:
        if self._synchronizes and not self._loop.dead:
            at_ns, inode = self._take_time(), self._open[descriptor]
            if self._disk.failing:
                self._disk.failing = False
                inode.forget()
                raise OSError(errno.EIO, "Input/output error")
            inode.synchronized(at_ns)

    def synchronize_directory(self, path: Path) -> None:
        if self._synchronizes and not self._loop.dead:
            self._disk.names_safe(self._take_time())

    def _take_time(self) -> int:
        """The process stands still; returns when it goes on."""
        low_ms, high_ms = self._disk.synchronize_ms
        share = self._disk.random.random()
        self._loop.stall(int((low_ms + (high_ms - low_ms) * share) * 1e6))
        return self._loop.now_ns()

    def rename(self, source: Path, target: Path) -> None:
        if not self._loop.dead:
            inode = self._inode(source)
            names = self._change_names()
            del names[source]
            names[target] = inode

    def remove(self, path: Path) -> None:
        if path in self._disk.names and not self._loop.dead:
            del self._change_names()[path]

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
