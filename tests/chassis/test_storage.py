"""The write-ahead log: cut anywhere, flipped anywhere, crashed between any two system calls."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from services.chassis import files as files_module
from services.chassis import storage as storage_module
from services.chassis.codec import Codec
from services.chassis.files import Files, UnsafeFiles
from services.chassis.storage import Storage, StorageError
from services.protocols.core import Entry, Snapshot

WAL = "wal-0000000000000000"


class Crash(BaseException):
    """The machine stops here."""


class FaultyFiles(UnsafeFiles):
    """Fails at a given system call; counts them."""

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self._fail_at = fail_at
        self._error = error or Crash()

    def _count(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self._fail_at:
            raise self._error

    def open(self, path: Path) -> int:
        self._count("open")
        return super().open(path)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        self._count("write")
        super().write(descriptor, data, offset)

    def truncate(self, descriptor: int, length: int) -> None:
        self._count("truncate")
        super().truncate(descriptor, length)

    def synchronize(self, descriptor: int) -> None:
        self._count("synchronize")

    def synchronize_directory(self, path: Path) -> None:
        self._count("synchronize_directory")

    def rename(self, source: Path, target: Path) -> None:
        self._count("rename")
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._count("remove")
        super().remove(path)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preallocate little: these tests open the log thousands of times."""
    monkeypatch.setattr(storage_module, "INITIAL_BYTES", 1 << 10)
    monkeypatch.setattr(storage_module, "CHUNK_BYTES", 1 << 10)


def open_storage(directory: Path, files: Files | None = None) -> Storage:
    return Storage(directory, Codec([Entry, Snapshot]), files or UnsafeFiles())


def write(directory: Path, *batches: list[Any]) -> list[int]:
    """Append the batches; returns the offset after each."""
    storage = open_storage(directory)
    ends = []
    for batch in batches:
        storage.append(batch)
        ends.append(storage.wal_bytes)
    storage.close()
    return ends


def recover(directory: Path) -> list[Any]:
    storage = open_storage(directory)
    try:
        return storage.take_records()
    finally:
        storage.close()


A, B, C = Entry(1, 1, b"a"), Entry(2, 1, b"bb"), Entry(3, 2, b"ccc")


def test_reopen(tmp_path: Path) -> None:
    """Records come back in the order in which they were appended, over several restarts."""
    write(tmp_path, [A, B], [C])
    write(tmp_path, [Entry(4, 2, b"d" * 5_000)])  # more than what was preallocated

    assert recover(tmp_path) == [A, B, C, Entry(4, 2, b"d" * 5_000)]


def test_real_files(tmp_path: Path) -> None:
    """The same with real synchronization."""
    storage = open_storage(tmp_path, Files())
    storage.append([A])
    storage.append([Snapshot(1, 1, b"state"), B])
    storage.close()

    assert recover(tmp_path) == [Snapshot(1, 1, b"state"), B]


def test_one_synchronize_per_batch(tmp_path: Path) -> None:
    """One write and one fdatasync per batch, however many records it has."""
    files = FaultyFiles()
    storage = open_storage(tmp_path, files)
    files.calls.clear()
    storage.append([A, B, C])

    assert files.calls == ["write", "synchronize"]
    storage.close()


def test_torn_tail_at_every_byte(tmp_path: Path) -> None:
    """A crash may write any part of the last batch: it is cut off, zeroed, and written anew."""
    first, last = write(tmp_path, [A], [B, C])
    whole = (tmp_path / WAL).read_bytes()
    for cut in range(first, last):
        (tmp_path / WAL).write_bytes(whole[:cut] + bytes(len(whole) - cut))
        assert recover(tmp_path) == [A], cut
        assert not (tmp_path / WAL).read_bytes()[first:].strip(b"\0"), cut
        (tmp_path / WAL).write_bytes(whole[:cut])  # the file's length was not written either
        write(tmp_path, [C])
        assert recover(tmp_path) == [A, C], cut


def test_last_batch_loses_early_sectors(tmp_path: Path) -> None:
    """The disk may have written the end of the last batch and not its beginning."""
    first, last = write(tmp_path, [A], [B, C])
    whole = (tmp_path / WAL).read_bytes()
    for start in range(first + 1, last):
        (tmp_path / WAL).write_bytes(whole[:first] + bytes(start - first) + whole[start:])
        assert recover(tmp_path) == [A], start
        assert not (tmp_path / WAL).read_bytes()[first:].strip(b"\0"), start


def test_every_bit_of_the_last_batch(tmp_path: Path) -> None:
    """A flipped bit in the last batch cannot be told from a torn write: the batch is cut off."""
    first, last = write(tmp_path, [A], [B])
    whole = (tmp_path / WAL).read_bytes()
    for bit in range(first * 8, last * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / WAL).write_bytes(damaged)
        assert recover(tmp_path) == [A], bit


def test_every_bit_in_the_middle(tmp_path: Path) -> None:
    """A flipped bit before a whole batch stops the node; the error names file and offset."""
    first, second, _ = write(tmp_path, [A], [B], [C])
    whole = (tmp_path / WAL).read_bytes()
    for bit in range(second * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / WAL).write_bytes(damaged)
        at = 0 if bit < first * 8 else first
        with pytest.raises(StorageError, match=rf"{WAL}: damaged at offset {at}:"):
            recover(tmp_path)
        assert (tmp_path / WAL).read_bytes() == bytes(damaged), "a damaged log is left as it is"


def test_damaged_snapshot(tmp_path: Path) -> None:
    """A damaged snapshot stops the node: without it what was acknowledged is gone."""
    write(tmp_path, [A], [Snapshot(1, 1, b"state"), B])
    path = tmp_path / "snapshot-0000000000000001"
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="snapshot-0000000000000001: damaged"):
            recover(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    """A snapshot without its log, or a log without its snapshot, is said and not guessed at."""
    write(tmp_path, [A], [Snapshot(1, 1, b"state"), B])
    wal, snapshot = tmp_path / "wal-0000000000000001", tmp_path / "snapshot-0000000000000001"
    saved = wal.read_bytes()
    wal.unlink()
    with pytest.raises(StorageError, match="missing"):
        recover(tmp_path)
    wal.write_bytes(saved)
    snapshot.unlink()
    with pytest.raises(StorageError, match="snapshot is missing"):
        recover(tmp_path)


def test_unknown_record(tmp_path: Path) -> None:
    """A log of another protocol is refused by name."""
    write(tmp_path, [A])
    with pytest.raises(StorageError, match="unknown type 'Entry'"):
        Storage(tmp_path, Codec([Snapshot]), UnsafeFiles())


def test_snapshot_resets(tmp_path: Path) -> None:
    """A Snapshot record stands for all before it; what follows it in its list survives."""
    write(tmp_path, [A, B], [C, Snapshot(2, 1, b"s2"), C], [Entry(4, 2, b"d")])

    assert recover(tmp_path) == [Snapshot(2, 1, b"s2"), C, Entry(4, 2, b"d")]
    write(tmp_path, [Snapshot(4, 2, b"s4")])
    assert recover(tmp_path) == [Snapshot(4, 2, b"s4")]
    assert sorted(os.listdir(tmp_path)) == [
        "lock",
        "snapshot-0000000000000002",
        "wal-0000000000000002",
    ]


def crash_everywhere(
    base: Path, before: list[list[Any]], batch: list[Any]
) -> tuple[list[str], list[list[Any]]]:
    """Crash at each system call of `append(batch)`; returns the calls and what was recovered."""
    files = FaultyFiles()
    write(base / "count", *before)
    storage = open_storage(base / "count", files)
    started = len(files.calls)
    storage.append(batch)
    storage.close()
    calls = files.calls[started:]
    found = []
    for position in range(len(calls)):
        directory = base / str(position)
        write(directory, *before)
        storage = open_storage(directory, FaultyFiles(fail_at=started + position))
        with pytest.raises(Crash):
            storage.append(batch)
        with pytest.raises(StorageError, match="failed before"):
            storage.append(batch)
        storage.close()
        found.append(recover(directory))
        write(directory, [C])  # and it goes on from there
        assert recover(directory) == [*found[-1], C]
    return calls, found


@pytest.mark.parametrize("before", [[[A], [B]], [[A], [Snapshot(1, 1, b"old"), B]]])
def test_crash_in_snapshot_sequence(tmp_path: Path, before: list[list[Any]]) -> None:
    """A crash between any two system calls of a new generation leaves the old or the new state."""
    write(tmp_path / "old", *before)
    old, new = recover(tmp_path / "old"), [Snapshot(2, 1, b"new"), C]
    calls, found = crash_everywhere(tmp_path, before, new)

    moment = calls.index("rename")
    assert found == [old] * (moment + 1) + [new] * (len(calls) - moment - 1)
    sync_before = calls[:moment]
    assert sync_before.count("synchronize") == 2, "log and snapshot are synchronized before"
    assert sync_before[-1] == "synchronize_directory"
    assert calls[moment + 1] == "synchronize_directory", "nothing is removed before this"


@pytest.mark.parametrize("call", ["write", "synchronize"])
def test_failure_is_final(tmp_path: Path, call: str) -> None:
    """A failed write or fsync is never retried: every later append fails as well (fsyncgate)."""
    files = FaultyFiles()
    storage = open_storage(tmp_path, files)
    position = len(files.calls) + ("write", "synchronize").index(call)
    files._fail_at, files._error = position, OSError(errno.EIO, "Input/output error")
    with pytest.raises(StorageError, match="Input/output error"):
        storage.append([A])
    assert not storage.usable
    calls = len(files.calls)
    with pytest.raises(StorageError, match="failed before"):
        storage.append([A])
    assert len(files.calls) == calls, "the disk is not touched again"
    storage.close()


def test_a_batch_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a header can say is refused in words, and what was there before stays whole."""
    write(tmp_path, [Entry(1, 1, b"a")])
    monkeypatch.setattr(storage_module, "BATCH_BYTES_MAX", 1_000)
    storage = open_storage(tmp_path)
    try:
        with pytest.raises(StorageError, match="at most 1000 fit"):
            storage.append([Entry(2, 1, bytes(2_000))])
        assert not storage.usable
    finally:
        storage.close()
    assert recover(tmp_path) == [Entry(1, 1, b"a")]


def test_lock(tmp_path: Path) -> None:
    """Two processes never share a directory; the lock goes with its holder."""
    storage = open_storage(tmp_path)
    with pytest.raises(StorageError, match="another process uses this directory"):
        open_storage(tmp_path)
    storage.close()
    open_storage(tmp_path).close()


def test_unusable_directory(tmp_path: Path) -> None:
    """A directory that cannot be made is a StorageError with the system's reason."""
    directory = tmp_path / "data"
    directory.write_text("a file is in the way")
    with pytest.raises(StorageError, match="data"):
        open_storage(directory)


def test_portable_synchronize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no fdatasync (macOS), F_FULLFSYNC is used, else fsync."""
    asked: list[str] = []
    monkeypatch.delattr(os, "fdatasync", raising=False)
    monkeypatch.setattr(os, "fsync", lambda _: asked.append("fsync"))
    Files().synchronize(0)
    monkeypatch.setattr(files_module, "_FULL_FSYNC", 51)
    monkeypatch.setattr(files_module.fcntl, "fcntl", lambda _, name: asked.append(f"fcntl {name}"))
    Files().synchronize(0)

    assert asked == ["fsync", "fcntl 51"]
