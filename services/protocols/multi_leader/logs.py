"""The logs that a node has a prefix of, and what a neighbour is known to have of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.protocols.multi_leader.versions import Write

BYTES_PER_MESSAGE = 1 << 20
LOG_BYTES_MAX = 16 << 20  # kept of each log; who lacks earlier writes fetches the states
WRITE_BYTES = 100  # of a write beside its key and value


@dataclass(slots=True)
class Log:
    """Writes `base` + 1 … `last` of one log; the earlier ones are in the states alone."""

    base: int = 0
    writes: list[Write] = field(default_factory=list)
    size: int = 0  # of the writes, about, in bytes

    @property
    def last(self) -> int:
        return self.base + len(self.writes)

    def append(self, write: Write) -> None:
        assert write.sequence == self.last + 1, (write, self.last)
        self.writes.append(write)
        self.size += size_of(write)

    def between(self, after: int, last: int) -> list[Write]:
        """The writes `after` + 1 … `last`, or as many of them as one message should hold; none when
        the first of them is no longer kept."""
        if after < self.base or last <= after:
            return []  # (`last` may lie before `base`, and a slice would count it from the end)
        writes, room = self.writes[after - self.base : last - self.base], BYTES_PER_MESSAGE
        for at, write in enumerate(writes):
            room -= len(write.value or b"")
            if room < 0 and at > 0:
                return writes[:at]
        return writes

    def forget(self, sequence: int) -> None:
        """Keep what comes after this one."""
        dropped = min(sequence, self.last) - self.base
        if dropped > 0:
            self.size -= sum(map(size_of, self.writes[:dropped]))
            del self.writes[:dropped]
            self.base += dropped

    def jump(self, sequence: int) -> None:
        """What lies before is in the states; nothing of it is kept here."""
        assert sequence > self.last, (sequence, self.last)
        self.base, self.writes, self.size = sequence, [], 0

    def excess(self) -> int:
        """Up to which write they have to go, for LOG_BYTES_MAX to hold the rest."""
        sequence, size = self.base, self.size
        for write in self.writes:
            if size <= LOG_BYTES_MAX:
                break
            sequence, size = sequence + 1, size - size_of(write)
        return sequence


def size_of(write: Write) -> int:
    """About how many bytes."""
    return len(write.key) + len(write.value or b"") + WRITE_BYTES


@dataclass(slots=True)
class Neighbour:
    """What a neighbour said, and what it was sent.

    `disk`: empty before its first word. `silent_ticks`: since the last one. `fed`: the end of what
    it was sent at the last look, by log; None when it has that.
    """

    name: str
    disk: str = ""
    vector: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    fed: dict[str, int] | None = None
    silent_ticks: int = 0

    def said(self, disk: str, vector: Mapping[str, int]) -> None:
        """An older word of the same disk changes nothing; one of another disk changes all."""
        if disk != self.disk:
            self.disk, self.vector, self.sent, self.fed = disk, {}, {}, None
        for log, sequence in vector.items():
            self.vector[log] = max(sequence, self.vector.get(log, 0))

    def has(self, log: str) -> int:
        return self.vector.get(log, 0)
