"""The write-ahead log of a node: what `Ready.persist` said, on stable storage, in order.

Theory of operation
-------------------
**Invariant.** When `append` has returned, a node that crashes at any later moment gets exactly
those records back from `open`, in that order.

One file per *generation*; a `Snapshot` record begins a new one (core.py: "it resets storage").

    wal-0000000000000007       batches, then zeros up to the preallocated length
    snapshot-0000000000000007  the batch that holds the Snapshot record of this generation
    lock                       flock: two processes never share a directory

A **batch** is all that one `append` was given: `magic, length, crc32, payload`. It is written by
one pwrite and one fdatasync, so a crash can tear only the last one. The checksum covers the offset
and the generation, so an old batch that shows up in the wrong place is not taken for a good one.

*Preallocated*: overwriting zeros changes no metadata, which makes fdatasync 1.5 times faster than
appending (measured). Growth happens by whole chunks.

*Torn tail*: a bad batch with no good one after it is the write that the crash interrupted. Nobody
was told of it (the driver sends only after `append` returned), so it is cut off and zeroed, lest a
part of it is found behind the next batch. *Damage in the middle*: a bad batch with a good one
behind it was once whole. To drop it would be to forget a vote or an acknowledged entry, and to
skip it would be worse: the node stops and says where. (Damage to the very last batch cannot be
told from a torn write here; the other nodes have it. TigerBeetle's journal with its separate
header ring can tell, at the price of a second write.)

*What is read is not yet safe*: a process that was killed between pwrite and fdatasync, or whose
fdatasync failed, leaves its last batch in the kernel's cache. The next process reads it there, and
acknowledges entries or repeats a vote without a write of its own; then the power fails. After a
failed fdatasync the kernel even takes the page for clean, and to synchronize again saves nothing.
So recovery writes the last batch anew, synchronizes it and the directory, and only then returns.

*A new generation* g+1, each step synchronized before the next:

    1. wal-(g+1) written, with the records that follow the Snapshot   4. directory
    2. snapshot-(g+1).tmp written                                     5. wal-g, snapshot-g removed
    3. directory, then tmp renamed: **this is the moment**

Whoever recovers takes the highest snapshot that has its final name and removes the rest: before
the rename that is the old state, whole; after it the new one, whole.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from services.chassis.codec import Codec, CodecError
from services.chassis.files import Files
from services.protocols.core import Snapshot

MAGIC = b"\xf5WAL"
HEADER = struct.Struct("<4sII")  # magic, length of the payload, crc32
BATCH_BYTES_MAX = (1 << 32) - 1  # of a payload: what the header has room for
# To write and synchronize a chunk of zeros stalls the node: 4 MiB took 10 ms, 512 KiB take 1.
INITIAL_BYTES = CHUNK_BYTES = 512 << 10
_NAME = re.compile(r"(wal|snapshot)-([0-9]{16})(\.tmp)?")


class StorageError(Exception):
    """The storage cannot be trusted or used any more; the node must stop. Names file and offset."""


def _checksum(generation: int, offset: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<QQI", generation, offset, len(payload))))


def _frame(generation: int, offset: int, payload: bytes) -> bytes:
    if len(payload) > BATCH_BYTES_MAX:
        raise StorageError(f"a batch of {len(payload)} bytes; at most {BATCH_BYTES_MAX} fit in one")
    header = HEADER.pack(MAGIC, len(payload), _checksum(generation, offset, payload))
    return header + payload


def _batch_at(data: bytes, offset: int, generation: int) -> bytes | None:
    """The payload of the whole, undamaged batch at `offset`, or None."""
    if offset + HEADER.size > len(data):
        return None
    magic, length, checksum = HEADER.unpack_from(data, offset)
    start = offset + HEADER.size
    if magic != MAGIC or length == 0 or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if _checksum(generation, offset, payload) == checksum else None


def _next_batch(data: bytes, offset: int, generation: int) -> int | None:
    """Where the next whole batch starts at or after `offset`, at whatever distance."""
    while (offset := data.find(MAGIC, offset)) >= 0:
        if _batch_at(data, offset, generation) is not None:
            return offset
        offset += 1
    return None


class Storage:
    """An open data directory. `records` are those recovered, oldest first.

    Args:
        directory: created when absent; held by a lock until `close`.
        codec: for the protocol's RECORDS and `Snapshot`.
        files: the system calls (`UnsafeFiles` for KV_FSYNC=never).

    Raises StorageError when the directory is in use or damaged.
    """

    def __init__(self, directory: Path, codec: Codec, files: Files | None = None) -> None:
        self.directory = directory
        self.records: list[Any] = []
        self.wal_bytes = 0
        self._codec = codec
        self._files = files or Files()
        self._failed = False
        self._lock = -1
        self._wal = -1
        self._generation = 0
        self._offset = 0
        self._allocated = 0
        try:
            self._files.make_directory(directory)
            self._take_lock()
            self._recover()
        except OSError as exc:
            self.close()
            raise StorageError(f"{exc.filename or directory}: {exc.strerror or exc}") from exc
        except BaseException:
            self.close()
            raise

    def _path(self, kind: str, generation: int) -> Path:
        return self.directory / f"{kind}-{generation:016d}"

    def _take_lock(self) -> None:
        self._lock = self._files.open(self.directory / "lock")
        if not self._files.lock(self._lock):
            raise StorageError(f"{self.directory}: another process uses this directory")

    # ------------------------------------------------------------------ recovery

    def _recover(self) -> None:
        found = [m for name in self._files.names(self.directory) if (m := _NAME.fullmatch(name))]
        whole = [int(m[2]) for m in found if m[1] == "snapshot" and not m[3]]
        self._generation = max(whole, default=0)
        wal = self._path("wal", self._generation)
        wal_exists = any(m[0] == wal.name for m in found)
        if whole:
            self._recover_snapshot()
            if not wal_exists:
                raise StorageError(f"{wal}: missing, though the snapshot that begins it is there")
        elif not wal_exists and any(int(m[2]) > 0 for m in found if m[1] == "wal"):
            raise StorageError(f"{self.directory}: a log is there but its snapshot is missing")
        if wal_exists:
            self._wal = self._files.open(wal)
            self._recover_wal(wal)
        else:
            self._wal = self._create_wal(0, b"")
        self._files.synchronize_directory(self.directory)
        for match in found:  # what a crash in the middle of a new generation left behind
            if match[3] or int(match[2]) != self._generation:
                self._files.remove(self.directory / match[0])

    def _recover_snapshot(self) -> None:
        path = self._path("snapshot", self._generation)
        payload = _batch_at(self._files.read(path), 0, self._generation)
        if payload is None:
            raise StorageError(f"{path}: damaged at offset 0: the checksum does not match")
        self.records += self._decode(path, 0, payload)

    def _recover_wal(self, path: Path) -> None:
        data = self._files.read(path)
        offset = last = 0
        while (payload := _batch_at(data, offset, self._generation)) is not None:
            self.records += self._decode(path, offset, payload)
            last, offset = offset, offset + HEADER.size + len(payload)
        good = _next_batch(data, offset, self._generation)
        if good is not None:
            raise StorageError(
                f"{path}: damaged at offset {offset}: the checksum does not match, and a whole "
                f"batch follows at {good}, so this is no torn write; restore the file, or wipe "
                f"{self.directory} and let the node catch up from its peers"
            )
        torn = len(data.rstrip(b"\0"))
        doubtful = data[last:offset] + bytes(max(0, torn - offset))
        if doubtful:
            self._files.write(self._wal, doubtful, last)
            self._files.synchronize(self._wal)
        self._offset = self.wal_bytes = offset
        self._allocated = len(data)

    def _decode(self, path: Path, offset: int, payload: bytes) -> list[Any]:
        try:
            return self._codec.decode_batch(payload)
        except CodecError as exc:  # the checksum is right: written by another protocol or version
            raise StorageError(f"{path}: unreadable at offset {offset}: {exc}") from exc

    # ------------------------------------------------------------------ writing

    def append(self, records: Sequence[Any]) -> None:
        """Put `records` on stable storage, all or none. Raises StorageError, once and for all."""
        assert records, "an empty batch needs no fdatasync"
        self._guarded(self._append, records)

    def _guarded(self, write: Callable[[Sequence[Any]], None], records: Sequence[Any]) -> None:
        if self._failed or self._wal < 0:
            raise StorageError(f"{self.directory}: closed, or failed before")
        try:
            write(records)
        except OSError as exc:
            # Never retried: after a failed fsync the kernel may have dropped the pages and call
            # the next one a success (see files.py).
            self._failed = True
            raise StorageError(f"{self.directory}: cannot write: {exc.strerror or exc}") from exc
        except BaseException:
            self._failed = True
            raise

    def _append(self, records: Sequence[Any]) -> None:
        last_snapshot = -1
        for position, record in enumerate(records):
            if type(record) is Snapshot:
                last_snapshot = position
        if last_snapshot >= 0:
            # All that must survive follows the Snapshot, so what stands before it does not matter.
            self._begin_generation(records[last_snapshot], records[last_snapshot + 1 :])
            return
        payload = self._codec.encode_batch(records)
        data = _frame(self._generation, self._offset, payload)
        end = self._offset + len(data)
        if end > self._allocated:
            allocate = max(CHUNK_BYTES, end - self._allocated)
            self._files.write(self._wal, bytes(allocate), self._allocated)
            self._allocated += allocate
        self._files.write(self._wal, data, self._offset)
        self._files.synchronize(self._wal)
        self._offset = self.wal_bytes = end

    def _begin_generation(self, snapshot: Snapshot, rest: Sequence[Any]) -> None:
        old, new = self._generation, self._generation + 1
        payload = self._codec.encode_batch(rest) if rest else b""
        first = _frame(new, 0, payload) if rest else b""
        wal = self._create_wal(new, first)

        target = self._path("snapshot", new)
        temporary = target.with_name(target.name + ".tmp")
        descriptor = self._files.open(temporary)
        try:
            data = _frame(new, 0, self._codec.encode_batch([snapshot]))
            self._files.truncate(descriptor, 0)
            self._files.write(descriptor, data, 0)
            self._files.synchronize(descriptor)
        finally:
            self._files.close(descriptor)
        self._files.synchronize_directory(self.directory)
        self._files.rename(temporary, target)
        self._files.synchronize_directory(self.directory)

        self._files.close(self._wal)
        self._wal, self._generation = wal, new
        self._offset = self.wal_bytes = len(first)
        self._files.remove(self._path("wal", old))
        self._files.remove(self._path("snapshot", old))

    def _create_wal(self, generation: int, first: bytes) -> int:
        descriptor = self._files.open(self._path("wal", generation))
        allocate = max(INITIAL_BYTES, len(first))
        self._files.truncate(descriptor, 0)  # a crash may have left one of this name
        self._files.write(descriptor, first + bytes(allocate - len(first)), 0)
        self._files.synchronize(descriptor)
        self._allocated = allocate
        return descriptor

    def take_records(self) -> list[Any]:
        """The recovered records, once: whoever builds the core from them owns them then."""
        records, self.records = self.records, []
        return records

    @property
    def usable(self) -> bool:
        """Open, and no write has failed."""
        return self._wal >= 0 and not self._failed

    def close(self) -> None:
        """Give the directory back; what was appended is on stable storage already."""
        for descriptor in (self._wal, self._lock):
            if descriptor >= 0:
                self._files.close(descriptor)
        self._wal = self._lock = -1
