"""Target tracking: as many replicas as keep their utilisation at a target. Pure.

`wanted = ⌈replicas × utilisation / target⌉` (Kubernetes' Horizontal Pod Autoscaler, "Algorithm
details"). Two things keep it from swinging:

- A replica that was started and does not serve yet is counted as if it did: else every look at the
  same overload would start as many again.
- Fewer only after `cool_down_s` in which never more were wanted (HPA's stabilisation window): a
  replica that is gone a moment before the next burst must be paid for twice.

Utilisation cannot be above 1 where work beyond capacity is refused, so under a large spike it takes
several looks, each by a factor of 1 / target.
"""

from __future__ import annotations

from math import ceil

TOLERANCE = 0.1  # HPA's: so near to the target nothing is changed


class TargetTracking:
    """Decides, look by look, how many replicas there are to be.

    Args:
        target: utilisation to keep, above 0 and below 1.
        minimum, maximum: of the replicas.
        cool_down_s: how long fewer must be wanted.

    Raises ValueError.
    """

    def __init__(self, *, target: float, minimum: int, maximum: int, cool_down_s: float) -> None:
        if not 0.0 < target < 1.0:
            raise ValueError(f"the target is between 0 and 1, not {target}")
        if not 1 <= minimum <= maximum:
            raise ValueError(f"1 ≤ minimum ≤ maximum, not {minimum} and {maximum}")
        self.target = target
        self.minimum = minimum
        self.maximum = maximum
        self.cool_down_s = cool_down_s
        self._fewer_since: float | None = None
        self._most_wanted = minimum  # since then

    def look(self, now: float, replicas: int, utilisation: float) -> int:
        """How many there are to be, at `now` (seconds, monotonic).

        `replicas`: those that serve and those on their way. `utilisation`: of those that serve, 0
        to 1.
        """
        ratio = utilisation / self.target
        wanted = replicas if abs(ratio - 1.0) <= TOLERANCE else ceil(replicas * ratio)
        wanted = max(self.minimum, min(self.maximum, wanted))
        if wanted >= replicas:
            self._fewer_since = None
            return wanted
        if self._fewer_since is None:
            self._fewer_since, self._most_wanted = now, wanted
        self._most_wanted = max(self._most_wanted, wanted)
        if now - self._fewer_since < self.cool_down_s:
            return replicas
        self._fewer_since = None
        return self._most_wanted
