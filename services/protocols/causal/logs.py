"""What is kept of a disk's writes: the newest ones for those that lack them, without a gap, and
those that can't be shown yet. Both are bounded in bytes: few large ones are as much as many small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile

from services.protocols.causal.messages import VersionVector, Write

LOG_BYTES_MAX = 16 << 20  # of one disk's writes; who lacks earlier ones fetches the states
BATCH_WRITES, BATCH_BYTES = 500, 1 << 20  # in one message
WRITE_BYTES, ENTRY_BYTES = 100, 60  # of a write beside its key and value, and of what it depends on


def size_of(write: Write) -> int:
    """About how many bytes."""
    text = len(write.key) + len(write.value or b"")
    return text + WRITE_BYTES + ENTRY_BYTES * len(write.depends)


class Log:
    """The writes `base` + 1 … of one disk that were applied here and are still kept."""

    def __init__(self, base: int = 0) -> None:
        self.base = base
        self.writes: dict[int, Write] = {}
        self._bytes = 0

    @property
    def last(self) -> int:
        return self.base + len(self.writes)

    def append(self, write: Write) -> None:
        """The next one. Beyond LOG_BYTES_MAX the oldest go: the states have them."""
        assert write.number == self.last + 1, (write, self.last)
        self.writes[write.number] = write
        self._bytes += size_of(write)
        while self._bytes > LOG_BYTES_MAX:
            self._drop(self.base + 1)

    def _drop(self, number: int) -> None:
        assert number == self.base + 1, (number, self.base)
        self._bytes -= size_of(self.writes.pop(number))
        self.base = number

    def after(self, number: int) -> Iterator[Write]:
        """The writes behind `number`; none where the first of them is kept no more."""
        numbers = range(number + 1, self.last + 1) if number >= self.base else ()
        return (self.writes[each] for each in numbers)

    def forget(self, number: int) -> None:
        """All have what comes up to this one."""
        for each in list(takewhile(number.__ge__, self.writes)):
            self._drop(each)


class Pending(dict[int, Write]):
    """Writes of one disk, by number, that wait for what they depend on.

    Beyond LOG_BYTES_MAX the last ones go, and come again: the first is what all others wait for.
    """

    size = 0

    def put(self, write: Write) -> bool:
        """Keep it; False: there is no room for it."""
        self[write.number] = write
        self.size += size_of(write)
        while self.size > LOG_BYTES_MAX and len(self) > 1:
            self.take(max(self))
        return write.number in self

    def take(self, number: int) -> Write:
        """It waits no longer."""
        write = self.pop(number)
        self.size -= size_of(write)
        return write


def begins(logs: Mapping[str, Log]) -> VersionVector:
    """Up to where the logs go no longer back."""
    return {disk: log.base for disk, log in logs.items() if log.base}


def batch_of(writes: Iterable[Write]) -> tuple[list[Write], bool]:
    """As many of them as fit into a message; are there more?"""
    batch: list[Write] = []
    size = 0
    for write in writes:
        size += size_of(write)
        if batch and (len(batch) >= BATCH_WRITES or size > BATCH_BYTES):
            return batch, True
        batch.append(write)
    return batch, False


def batches(writes: list[Write]) -> Iterator[list[Write]]:
    """All of them, in messages."""
    while writes:
        batch, _ = batch_of(writes)
        yield batch
        writes = writes[len(batch) :]
