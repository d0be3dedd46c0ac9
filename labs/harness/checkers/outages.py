"""What an outage cost: requests lost, how long nobody was served, and what that is in nines."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import inf, log10
from typing import NamedTuple

MONTH_S = 30 * 24 * 3600.0


class Outage(NamedTuple):
    """Of the requests sent in one stretch of a run.

    `silent_s`: the longest time in which nobody got an answer, from one good answer to the next,
    or to either end of the stretch.
    """

    asked: int
    lost: int
    silent_s: float

    @property
    def share(self) -> float:
        """Lost of those asked; 0 without any."""
        return self.lost / self.asked if self.asked else 0.0


def outage(
    requests: Iterable[tuple[bool, int]], begin_ns: int, end_ns: int
) -> Outage:
    """Sum up (answered?, when it ended in ns) of the requests that were sent in the stretch."""
    asked = lost = 0
    good = [begin_ns, end_ns]
    for answered, ended_ns in requests:
        asked += 1
        lost += not answered
        if answered:
            good.append(min(max(ended_ns, begin_ns), end_ns))
    good.sort()
    longest = max(after - before for before, after in pairwise(good))
    return Outage(asked, lost, longest / 1e9)


def nines(down_s: float, of_s: float = MONTH_S) -> float:
    """Availability in nines: 3 for 99.9 %; a tenth of the time down is one. `down_s` ≤ `of_s`."""
    assert 0 <= down_s <= of_s, (down_s, of_s)
    return inf if down_s == 0 else -log10(down_s / of_s)
