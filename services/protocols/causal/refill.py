"""How a node gets what no log has any more: all that another one holds, piece by piece.

Its disk is new, or it was away for longer than the logs go back. What it takes on must be closed
under causes, as everything here: so the other one lends it what it held at *one* moment (it keeps
the writes, which nobody changes, until the last piece is asked for or another is lent), and all of
it is taken on at once, with the vector of that moment. Two such states together are closed as well:
each has the causes of what it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from services.protocols.causal.logs import batch_of
from services.protocols.causal.messages import Fetch, Have, States, VersionVector, Whole, Write
from services.protocols.causal.sessions import covers

if TYPE_CHECKING:
    from services.protocols.causal.core import Causal

ATTEMPT_BITS = 52
PATIENCE_TICKS = 30  # so long a piece may take before another node is asked


@dataclass(slots=True)
class Lent:
    """What a peer is being given: the state of one moment."""

    attempt: int
    writes: list[Write]
    applied: VersionVector
    time: int


class Refill:
    """Of one node; `source` is whom it asks, None when it lacks nothing."""

    def __init__(self, core: Causal, random: Random) -> None:
        self._core = core
        self._random = random
        self.source: str | None = None
        self._attempt = 0
        self._writes: list[Write] = []
        self._asked = 0  # tick
        self._lent: dict[str, Lent] = {}

    def consider(self, message: Have) -> None:
        """Do its sender's logs begin after what is here? Ask it, unless another is answering."""
        core = self._core
        if self.source is not None and core.now - self._asked < PATIENCE_TICKS:
            return
        self.source = None
        if covers(core.applied, message.begins):
            return
        self.source, self._attempt = message.src, self._random.getrandbits(ATTEMPT_BITS)
        self._writes = []
        core.tell("fetch", peer=message.src)
        self._ask()

    def _ask(self) -> None:
        assert self.source is not None
        self._asked = self._core.now
        have = len(self._writes)
        self._core.send(Fetch(self._core.node, self.source, self._attempt, have))

    def give(self, message: Fetch) -> None:
        """The next piece. Whoever was lent nothing (this node has restarted) begins anew."""
        core, lent = self._core, self._lent.get(message.src)
        if message.after == 0:
            held = [core.states[key] for key in sorted(core.states)]
            lent = Lent(message.attempt, held, dict(core.applied), core.clock.time)
            self._lent[message.src] = lent
        if lent is None or lent.attempt != message.attempt:
            return
        piece, more = batch_of(lent.writes[message.after :])
        core.send(
            States(
                *(core.node, message.src, message.attempt, message.after),
                *(piece, lent.applied, lent.time),
                done=not more,
            )
        )
        if not more:
            del self._lent[message.src]

    def take(self, message: States) -> None:
        """A piece that was asked for; any other is of an earlier attempt."""
        asked = self.source, self._attempt, len(self._writes)
        if (message.src, message.attempt, message.after) != asked:
            return
        self._writes += message.writes
        if not message.done:
            self._ask()
            return
        self.source = None
        self._core.take_whole(Whole(message.applied, message.time, self._writes))
        self._writes = []
