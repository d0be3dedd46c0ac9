"""How a node gets what no log has any more: another one's states, piece by piece.

The asking node keeps count, the other answers and remembers nothing. It goes through the keys in
their order; what is written meanwhile comes by the logs. All of it is taken on at once with the
last piece, and the vector is that of the *first* one: what the other had then is in the pieces,
what it got later may not be. Should either disk be another one meanwhile, all begins anew.
"""

from __future__ import annotations

from bisect import bisect_right
from random import Random
from typing import TYPE_CHECKING

from services.protocols.multi_leader.logs import BYTES_PER_MESSAGE
from services.protocols.multi_leader.messages import Fetch, Have, States, Whole
from services.protocols.multi_leader.versions import State, within

if TYPE_CHECKING:
    from services.protocols.multi_leader.core import MultiLeader

ATTEMPT_BITS = 52


class Refill:
    """Of one node; `source` is whom it asks, None when it lacks nothing."""

    def __init__(self, core: MultiLeader, *, random: Random, keys_max: int) -> None:
        self._core = core
        self._random = random
        self._keys_max = keys_max
        self.source: str | None = None
        self._disk = ""
        self._attempt = 0
        self._after = ""
        self._vector: dict[str, int] | None = None  # of the first piece
        self._states: list[tuple[str, State]] = []
        self._asked = 0  # tick

    def consider(self, message: Have) -> None:
        """Does its sender's log begin after what is here? Ask it, unless another is answering."""
        core = self._core
        if self.source is not None and core.now - self._asked < 3 * core.look_ticks:
            return
        self.source = None
        if within(message.begins, core.vector):
            return
        self.source, self._disk = message.src, message.disk
        self._attempt = self._random.getrandbits(ATTEMPT_BITS)
        self._after, self._vector, self._states = "", None, []
        core.tell("fetch", peer=message.src)
        self._ask()

    def _ask(self) -> None:
        assert self.source is not None
        self._asked = self._core.now
        self._core.send(Fetch(self._core.node, self.source, self._attempt, self._after))

    def give(self, message: Fetch) -> None:
        """The next keys after the one that was named."""
        core = self._core
        keys = sorted(core.states)
        first = bisect_right(keys, message.after)
        chosen: list[str] = []
        room = BYTES_PER_MESSAGE
        for key in keys[first : first + self._keys_max]:
            latest = core.states[key].latest
            assert latest is not None
            room -= len(latest.value or b"")
            if room < 0 and chosen:
                break
            chosen.append(key)
        core.send(
            States(
                core.node,
                message.src,
                core.disk,
                message.attempt,
                message.after,
                [(key, core.states[key]) for key in chosen],
                core.vector,
                done=first + len(chosen) == len(keys),
            )
        )

    def take(self, message: States) -> None:
        """A piece that was asked for; any other is of an earlier attempt."""
        core = self._core
        asked = self.source, self._disk, self._attempt, self._after
        if (message.src, message.disk, message.attempt, message.after) != asked:
            return
        self._vector = message.vector if self._vector is None else self._vector
        self._states += message.states
        if not message.done:
            self._after = message.states[-1][0]
            self._ask()
            return
        whole = Whole(self._states, self._vector, core.conflicts)
        core.keep(whole)
        core.take_whole(whole)
        core.tell("refilled", peer=message.src, keys=len(whole.states))
        self.source, self._states = None, []
