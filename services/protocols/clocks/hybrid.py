"""Hybrid logical clocks (Kulkarni et al., *Logical Physical Clocks*, OPODIS 2014, figure 5).

A timestamp (l, c): `l` is the greatest wall time that the event knows of, its own or one that a
message brought; `c` counts the events that share it. So, with ε the greatest distance between any
two wall clocks:

- e → f implies (l.e, c.e) < (l.f, c.f)                            (theorem 1)
- l.e is at least the wall time at e, and at most ε more           (theorem 2, corollary 1)
- c is bounded, by the number of events that can happen within ε   (corollary 2)

One such number sorts events as cause and effect demand, names a moment that people can read, and
costs eight bytes: CockroachDB, YugabyteDB and MongoDB date their transactions so.

*A clock that is far ahead takes all others with it*: l never goes back, so one node with a date of
next year makes timestamps of next year everywhere. `max_ahead` refuses such a message instead
(CockroachDB: 500 ms, and the node with the wrong clock is to stop).
"""

from __future__ import annotations

from typing import NamedTuple

C_BITS = 16  # of the 64-bit encoding that the paper proposes; 48 are left for l


class Timestamp(NamedTuple):
    """`l` in the unit of the wall clock that is passed in; compares as the paper says."""

    l: int  # noqa: E741 - the paper's name
    c: int

    def packed(self) -> int:
        """One number with the same order, for l in any unit and c below 2**16."""
        assert 0 <= self.c < 1 << C_BITS, self
        return self.l << C_BITS | self.c

    @classmethod
    def unpacked(cls, number: int) -> Timestamp:
        return cls(number >> C_BITS, number & (1 << C_BITS) - 1)


class ClockTooFarAhead(Exception):
    """A message's timestamp is more than `max_ahead` beyond this node's wall time.

    Definite: the clock has not changed. One of the two wall clocks is wrong.
    """


class HybridClock:
    """The clock of one process. Wall times (`pt` in the paper) are integers, any unit, e.g. ns.

    >>> clock = HybridClock()
    >>> clock.tick(100), clock.receive(101, Timestamp(150, 3)), clock.tick(102)
    (Timestamp(l=100, c=0), Timestamp(l=150, c=4), Timestamp(l=150, c=5))
    """

    __slots__ = ("last", "max_ahead")

    def __init__(self, *, max_ahead: int | None = None) -> None:
        self.last = Timestamp(0, 0)
        self.max_ahead = max_ahead

    def tick(self, wall: int) -> Timestamp:
        """The timestamp of a local event, or of a message about to be sent, at wall time `wall`.

        `wall` may have gone back since the last call, as a clock that is set does.
        """
        last = self.last
        self.last = Timestamp(wall, 0) if wall > last.l else Timestamp(last.l, last.c + 1)
        return self.last

    def receive(self, wall: int, message: Timestamp) -> Timestamp:
        """The timestamp of the receipt, at wall time `wall`, of what carries `message`.

        Raises ClockTooFarAhead.
        """
        if self.max_ahead is not None and message.l - wall > self.max_ahead:
            raise ClockTooFarAhead(
                f"a message is dated {message.l - wall} ahead of this node's clock, more than the "
                f"{self.max_ahead} that clocks may be apart"
            )
        last = self.last
        l = max(last.l, message.l, wall)  # noqa: E741 - the paper's name
        if l == last.l == message.l:
            c = max(last.c, message.c) + 1
        elif l == last.l:
            c = last.c + 1
        elif l == message.l:
            c = message.c + 1
        else:
            c = 0
        self.last = Timestamp(l, c)
        return self.last
