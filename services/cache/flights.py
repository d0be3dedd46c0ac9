"""Single flight: of many callers that miss the same key, one asks the database, the rest wait.

(The name is that of Go's `golang.org/x/sync/singleflight`.) This module decides who leads and whose
answer is good for whom; it waits for nothing itself.

The rule that is easily forgotten: **an answer that the database gave before I asked may be stale
for me.** History that goes wrong without it: c1 misses, its flight reads version 1; a write of
version 2 is acknowledged to c2 and the cache entry deleted; c3, who *knows* of that write, misses,
joins the flight of c1, and is given version 1. So a joiner takes what a flight brings only when

- the flight departed after the joiner had come, or
- the fill was *confirmed*, and sent after the joiner had come: the cache took it under a guard
  (lease, version), which it does not when a write has come in between, so that it was still true
  then. (Sent, not taken: a write may be acknowledged while the cache's yes is under way.)

Else the joiner tries again; the next flight departs after it came, so two flights suffice.

And **who found nothing before a flight landed looks again**. The history that goes wrong: a
thousand look, c1's flight departs and lands while the answer "nothing" to c2's look is still under
way; c2 sees nobody flying, and asks the database for what the cache has by now.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """One question to the database. `departed`: its place in the order of arrivals."""

    key: str
    departed: int


@dataclass(slots=True)
class Looks:
    """Those who look for one key now. `landed`: the place of the last landing meanwhile."""

    count: int = 0
    landed: int = -1


class SingleFlight:
    """Who leads, per key. With `enabled=False` everybody leads: the control."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._flights: dict[str, Flight] = {}
        self._looks: dict[str, Looks] = {}
        self._arrivals = count()

    def arrive(self) -> int:
        """A caller has come: its place in the order."""
        return next(self._arrivals)

    def look(self, key: str) -> int:
        """The caller looks into the cache for `key`: the place of its look, for `looked`."""
        self._looks.setdefault(key, Looks()).count += 1
        return self.arrive()

    def looked(self, key: str, place: int) -> bool:
        """It has its answer. Has a flight landed since? Then "nothing" may be true no more."""
        looks = self._looks[key]
        looks.count -= 1
        if not looks.count:
            del self._looks[key]
        return self.enabled and looks.landed > place

    def join(self, key: str) -> tuple[Flight, bool]:
        """The flight for `key`, and whether the caller leads it: then it must `land` it."""
        flying = self._flights.get(key) if self.enabled else None
        if flying is not None:
            return flying, False
        flight = Flight(key, next(self._arrivals))
        if self.enabled:
            self._flights[key] = flight
        return flight, True

    def land(self, flight: Flight) -> None:
        """The flight is over, well or not; the next caller leads a new one."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        if flight.key in self._looks:
            self._looks[flight.key].landed = self.arrive()

    def forget(self, key: str) -> None:
        """The key was written: who comes now must not join what departed before."""
        self._flights.pop(key, None)

    @staticmethod
    def good_for(flight: Flight, arrival: int, *, confirmed: int | None) -> bool:
        """May the caller that came at `arrival` take what `flight` brought?

        `confirmed`: the place in the order at which a fill was sent that the cache took.
        """
        return flight.departed > arrival or (confirmed is not None and confirmed > arrival)

    def __len__(self) -> int:
        return len(self._flights)
