"""Rumour spreading (Demers et al. 1987, §1.4): what is new is told until it is no news any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from services.protocols.core import NodeId
from services.protocols.gossip.messages import Feedback, Rumours
from services.protocols.quorum.synchronisation import BYTES_PER_MESSAGE, size_of

if TYPE_CHECKING:
    from services.protocols.gossip.core import Gossip

Spread = Literal["push", "pull", "push-pull"]
Stop = Literal["feedback", "blind"]
ROUND_BITS = 40
BATCH_MAX = 64  # rumours in a message, of some BYTES_PER_MESSAGE in all


@dataclass(slots=True)
class Hot:
    """A rumour that this node still tells. `idle`: how often it was told in vain (feedback)."""

    round: int  # when it became hot, or news again
    rounds: int = 0
    idle: int = 0


class RumourMill:
    """The hot rumours of one node.

    A rumour is a key: told is the state that the node has of it when it tells.

    Args:
        spread: *push* tells others what is hot here, *pull* asks them what is hot there,
            *push-pull* does both in one exchange.
        fanout: how many others a round speaks to.
        stop: *feedback*: a rumour is dropped after `stop_after` others knew it already; *blind*:
            after `stop_after` rounds, whatever they knew.
        rounds_max: so many rounds, and no more, a rumour is told by a node: nobody may be there who
            could give feedback.
    """

    def __init__(
        self,
        core: Gossip,
        *,
        spread: Spread,
        fanout: int,
        stop: Stop,
        stop_after: int,
        rounds_max: int,
    ) -> None:
        if fanout < 1 or stop_after < 1:
            raise ValueError(f"fanout={fanout}, stop_after={stop_after}")
        self._core = core
        self.spread, self.fanout = spread, fanout
        self.stop, self.stop_after, self.rounds_max = stop, stop_after, rounds_max
        self.hot: dict[str, Hot] = {}
        # Not from 0: feedback to rounds of an earlier life would count for those of this one.
        self.round = core.random.getrandbits(ROUND_BITS)

    def news(self, key: str) -> None:
        """The state of `key` has changed here: tell it."""
        # At the end of the order, so that no rumour waits behind others for ever.
        self.hot.pop(key, None)
        self.hot[key] = Hot(self.round)

    def tick(self) -> None:
        """A round: speak to `fanout` of those that are there."""
        self.round += 1
        pull = self.spread != "push"
        told = [] if self.spread == "pull" else self._batch(list(self.hot))
        if told or pull:
            present = self._core.membership.present
            for peer in self._core.random.sample(present, min(self.fanout, len(present))):
                self._tell(peer, told, pull=pull)
        self._end_round(told if self.spread != "pull" else list(self.hot))

    def _batch(self, keys: list[str]) -> list[str]:
        """The first of them, as many as a message should hold."""
        room = BYTES_PER_MESSAGE
        for number, key in enumerate(keys[:BATCH_MAX]):
            room -= size_of(key, self._core.state(key))
            if room < 0 and number:
                return keys[:number]
        return keys[:BATCH_MAX]

    def _tell(self, peer: NodeId, keys: list[str], *, pull: bool) -> None:
        states = [(key, self._core.state(key)) for key in keys]
        self._core.send(Rumours(self._core.node, peer, self.round, states, pull))

    def _end_round(self, told: list[str]) -> None:
        limit = self.stop_after if self.stop == "blind" else self.rounds_max
        for key in told:
            rumour = self.hot.pop(key)
            rumour.rounds += 1
            if rumour.rounds < limit:
                self.hot[key] = rumour

    def step(self, message: Any) -> None:
        """A message of rumours, or what became of ours."""
        if isinstance(message, Rumours):
            self._hear(message)
        elif isinstance(message, Feedback):
            self._lose_interest(message)

    def _hear(self, message: Rumours) -> None:
        core = self._core
        known = [key for key, state in message.states if not core.learn(key, state, "rumour")]
        if known and self.stop == "feedback":
            core.send(Feedback(core.node, message.src, message.number, known))
        if message.pull:
            theirs = dict(message.states)
            keys = [key for key in self.hot if theirs.get(key) != core.state(key)]
            if keys:
                self._tell(message.src, self._batch(keys), pull=False)

    def _lose_interest(self, message: Feedback) -> None:
        for key in message.known:
            rumour = self.hot.get(key)
            # What was told before the rumour became news again says nothing of it.
            if rumour is None or not rumour.round < message.number <= self.round:
                continue
            rumour.idle += 1
            if rumour.idle >= self.stop_after:
                del self.hot[key]
