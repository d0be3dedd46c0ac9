"""One contender for the lease: what to ask of the register next, and whether it holds the lease."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from services.protocols.core import Event, NodeId

RENEW_AFTER = 1 / 3  # of the term, so that two renewals may fail before it ends
LOOK_EVERY = 1 / 10  # of the term: what a new holder's first sight adds to the time without one


class Record(NamedTuple):
    """The register: its version, and who wrote its name there."""

    version: int
    holder: NodeId


@dataclass(frozen=True, slots=True)
class Look:
    """Read the register, linearizably; then call `saw`, or `lost`."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write `node` into the register if it is still at `version` (None: if it is absent).

    Then call `wrote`, `refused` (the version was another), or `lost` (nobody knows).
    """

    version: int | None
    node: NodeId


Action = Look | Write


class Elector:
    """Decides for `node`, with `now` in seconds on the node's own monotonic clock.

    One action is under way at a time: `next` gives none until the last one was answered.

    Args:
        term_s: how long a lease lasts without renewal.
        drift_max: how much faster than another a clock may run (0.05: five percent).
    """

    def __init__(self, node: NodeId, *, term_s: float, drift_max: float) -> None:
        if not term_s > 0:
            raise ValueError(f"term_s must be positive, not {term_s}")
        if not drift_max >= 0:
            raise ValueError(f"drift_max must be at least 0, not {drift_max}")
        self.node = node
        self.term_s = term_s
        self.drift_max = drift_max
        self.token: int | None = None  # set while it holds the lease, or has not noticed the end
        self._until = 0.0  # until when, with a token
        self._renew_at = 0.0
        self._record: Record | None = None
        self.known = False  # whether `_record` is what the register held at the last look
        self._seen_at = 0.0  # when this version was seen first
        self._look_at = -math.inf  # a clock's zero means nothing: it may be years from now
        self._under_way: Action | None = None
        self._sent_at = 0.0
        self._events: list[Event] = []

    def holds(self, now: float) -> bool:
        """Does this node hold the lease? By its own clock, at this instant, and no later."""
        return self.token is not None and now < self._until

    @property
    def holder(self) -> NodeId | None:
        """Who holds the lease, as far as this node knows."""
        return self._record.holder if self._record is not None else None

    def next(self, now: float) -> Action | None:
        """What to ask of the register now; None: nothing yet."""
        if self.token is not None and not self.holds(now):
            self._lose("expired")
        if self._under_way is not None:
            return None
        action = self._choose(now)
        if action is not None:
            self._under_way, self._sent_at = action, now
        return action

    def _choose(self, now: float) -> Action | None:
        if not self.known:
            return Look() if now >= self._look_at else None
        record = self._record
        if record is None:
            return self._write()
        if record.holder == self.node:
            # Ours, but not held: of an earlier life, or written by a request that had no answer.
            return self._write() if self.token is None or now >= self._renew_at else None
        if now >= self._seen_at + self.term_s * (1 + self.drift_max):
            return self._write()
        return Look() if now >= self._look_at else None

    def _write(self) -> Write:
        return Write(self._record.version if self._record is not None else None, self.node)

    # ------------------------------------------------------------------ answers

    def saw(self, now: float, record: Record | None) -> None:
        """The answer to a `Look`; None: there is no such key."""
        self._answered(Look)
        self._learn(now, record)

    def wrote(self, now: float, version: int) -> None:
        """The `Write` succeeded and made this version."""
        self._answered(Write)
        before = self._record.version if self._record is not None else 0
        assert version > before, f"version {version} replaced {before}: the register's do not grow"
        self._learn(now, Record(version, self.node))
        # From when it was sent, not from now: others may have seen it since, and count from there.
        self._until = self._sent_at + self.term_s
        self._renew_at = self._sent_at + self.term_s * RENEW_AFTER
        if self.token is None and now < self._until:  # else it is over before it was known of
            self.token = version
            self._events.append(Event("acquire", {"token": version}))

    def refused(self, now: float, record: Record | None) -> None:
        """The `Write` did not happen: the register was at another version, this one."""
        self._answered(Write)
        self._learn(now, record)

    def lost(self, now: float) -> None:
        """No answer, or one that says nothing about the register."""
        assert self._under_way is not None, "nothing was asked"
        self._under_way = None
        self.known = False
        self._look_at = now + self.term_s * LOOK_EVERY

    def fenced(self, token: int) -> None:
        """A resource has refused `token`: there is a newer holder, whatever the clock says."""
        if self.token == token:
            self._lose("fenced")
            self.known = False

    def resign(self) -> int | None:
        """Give the lease up: the version at which the register may be cleared, if it is held."""
        if self.token is None or self._record is None:
            return None
        self._lose("resigned")
        return self._record.version

    def take_events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def _answered(self, kind: type[Action]) -> None:
        assert isinstance(self._under_way, kind), f"{self._under_way} is under way, no {kind}"
        self._under_way = None

    def _learn(self, now: float, record: Record | None) -> None:
        if record != self._record:
            self._seen_at = now
        self._record, self.known = record, True
        self._look_at = now + self.term_s * LOOK_EVERY
        if self.token is not None and self.holder != self.node:
            self._lose("taken")

    def _lose(self, reason: str) -> None:
        self._events.append(Event("lose", {"token": self.token, "reason": reason}))
        self.token = None

    def check_invariants(self) -> None:
        """Raise AssertionError if this state is impossible."""
        if self.token is not None:
            assert self._record is not None, "a token, and no record"
            assert self._record.holder == self.node, self._record
            assert self._record.version >= self.token, (self._record, self.token)
