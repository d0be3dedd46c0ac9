"""Passive outlier ejection: real traffic is a health check that nobody has to send.

A backend that fails `failures_to_eject` requests in a row (5xx, lost connection, timeout) is left
out for `ejection_s`, twice that at the next time, and so on up to `EJECTION_FACTOR_MAX`; each
`ejection_s` of good behaviour takes one step back (Envoy, *Outlier detection*). It finds what an
active check cannot: a backend whose `/health` is fine and whose work fails.

Never more than `share_max` of the backends are out at once, and never the last one: when all of
them fail, the fault is probably elsewhere (a dependency, a bad request), and to eject all would
turn many failures into nothing but failures. One may go out in any case, however small the share.
"""

from __future__ import annotations

from dataclasses import dataclass

EJECTION_FACTOR_MAX = 10


@dataclass(slots=True)
class _Record:
    failures_in_a_row: int = 0
    ejections: int = 0  # not yet forgiven
    until: float = float("-inf")
    forgiven_at: float = float("-inf")


class OutlierDetector:
    """Counts answers per backend; `now` is seconds on the caller's monotonic clock.

    Args:
        failures_to_eject: failures in a row; 0 switches ejection off.
        ejection_s: how long the first ejection lasts.
        share_max: the part of all backends that may be out at once, from 0 to 1.

    Raises ValueError.
    """

    def __init__(
        self, *, failures_to_eject: int, ejection_s: float, share_max: float = 0.5
    ) -> None:
        if failures_to_eject < 0 or not ejection_s > 0 or not 0.0 <= share_max <= 1.0:
            raise ValueError("failures_to_eject ≥ 0, ejection_s > 0, share_max from 0 to 1")
        self.failures_to_eject = failures_to_eject
        self.ejection_s = ejection_s
        self.share_max = share_max
        self._records: dict[str, _Record] = {}

    def update(self, names: list[str]) -> None:
        """The backends there are."""
        self._records = {name: self._records.get(name, _Record()) for name in names}

    def success(self, name: str) -> None:
        """An answer that was no failure."""
        record = self._records.get(name)
        if record is not None:
            record.failures_in_a_row = 0

    def failure(self, name: str, now: float) -> bool:
        """A failed request. True: the backend is ejected now, and was not before."""
        record = self._records.get(name)
        if record is None or not self.failures_to_eject:
            return False
        record.failures_in_a_row += 1
        if (
            record.failures_in_a_row < self.failures_to_eject
            or now < record.until
            or not self._may_eject(now)
        ):
            return False
        self._forgive(record, now)
        record.ejections = min(record.ejections + 1, EJECTION_FACTOR_MAX)
        record.until = record.forgiven_at = now + self.ejection_s * record.ejections
        record.failures_in_a_row = 0
        return True

    def ejected_until(self, name: str) -> float:
        """When the backend comes back; a time in the past: it is not out."""
        record = self._records.get(name)
        return float("-inf") if record is None else record.until

    def _may_eject(self, now: float) -> bool:
        out = sum(now < record.until for record in self._records.values())
        allowed = max(1, int(self.share_max * len(self._records)))
        return out < min(allowed, len(self._records) - 1)

    def _forgive(self, record: _Record, now: float) -> None:
        if record.ejections:
            steps = int((now - record.forgiven_at) / self.ejection_s)
            record.ejections = max(0, record.ejections - steps)
