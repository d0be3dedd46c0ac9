"""Lamport's clock (CACM 21(7), 1978): a counter that no effect is behind its cause by."""

from __future__ import annotations


class LamportClock:
    """The clock of one process.

    Implementation rules of the paper: IR1, it ticks between any two events; IR2, a message carries
    the sender's reading, and the receiver's goes beyond it. Where a *total* order is needed, ties
    are broken by the process's name: compare `(timestamp, process)`.

        >>> clock = LamportClock()
        >>> clock.tick(), clock.receive(41), clock.tick()
        (1, 42, 43)
    """

    __slots__ = ("time",)

    def __init__(self, time: int = 0) -> None:
        assert time >= 0, time
        self.time = time

    def tick(self) -> int:
        """The timestamp of a local event, or of a message about to be sent."""
        self.time += 1
        return self.time

    def receive(self, timestamp: int) -> int:
        """The timestamp of the receipt of a message that carries `timestamp`."""
        self.time = max(self.time, timestamp) + 1
        return self.time
