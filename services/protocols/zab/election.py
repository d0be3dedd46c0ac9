"""Phase 0: fast leader election (Medeiros §4.2).

A node that looks for a leader tells everybody its vote, takes over a better one, and is done when a
quorum votes as it does and nothing better has come for a while. A vote is for the most recent
history, (currentEpoch, lastZxid), and among equals for the greater id: then the leader's own
history can be the initial one, and need not be fetched first.

*Safety does not rest on this.* Whoever comes out is a prospective leader; discovery decides. What
rests on it is that somebody who can lead comes out. Therefore, other than in the paper:

- **A node stands only while it hears a quorum.** A node that sends but does not hear would
  otherwise be elected again and again if its history is the most recent: everybody votes for it,
  and its discovery never ends. (Raft's pre-vote asks the same question.)
- **A vote is only for a node heard directly,** not one that is known from others' votes; for the
  same reason, the other way round.
- A node never votes for a history less recent than its own. Without a vote it says so: None.

With all links whole everyone hears everyone, and the outcome is the paper's.

A node that follows or leads answers with that, so a late one finds the leader without a new
election and without disturbing anybody: it joins when a quorum, the leader among it, says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.protocols.zab.messages import Notification, Zxid
from services.protocols.zab.state import State, ZabState

if TYPE_CHECKING:
    from services.protocols.core import NodeId


class Said(NamedTuple):
    """The last that one peer said of itself in an election."""

    tick: int
    round: int
    state: str
    vote: NodeId | None
    stands: bool
    recency: tuple[int, Zxid]


class Election(ZabState):
    """Looking for a leader, and answering those who look."""

    vote: NodeId | None = None
    _notify_due = 0
    _vote_tick = 0  # when the vote last changed, or was made
    _said: dict[NodeId, Said]

    def _begin_election(self) -> None:
        self._said = {}
        self.begin_round(1)

    def begin_round(self, number: int) -> None:
        """Into a round: what others said in earlier ones does not count any more."""
        self.round = number
        self._vote_tick = self.ticks
        self.vote = None
        self._choose()
        self._notify()

    # ---- the vote ---------------------------------------------------------------------------

    def stands(self) -> bool:
        """Does it hear a quorum, itself included?"""
        heard = 1 + sum(self._heard(said) for said in self._said.values())
        return heard >= self.quorum

    def _heard(self, said: Said) -> bool:
        return self.ticks - said.tick < self.election_ticks

    def _choose(self) -> bool:
        """Vote for the best there is; whether that is another vote than before."""
        own = self.rank(*self.recency())
        candidates = [(own, self.node)] if self.stands() else []
        candidates += [
            (self.rank(*said.recency), peer)
            for peer, said in self._said.items()
            if said.stands and said.round == self.round and self._heard(said)
        ]
        rank, best = max(candidates, default=(own, None))
        vote = best if rank >= own else None
        if vote == self.vote:
            return False
        self.vote, self._vote_tick = vote, self.ticks
        return True

    def _notification(self, dst: NodeId) -> Notification:
        looking = self.state is State.LOOKING
        vote = self.vote if looking else self.elected
        epoch, last = self.recency()
        stands = looking and self.stands()
        return Notification(self.node, dst, self.round, self.state.value, vote, stands, epoch, last)

    def _notify(self) -> None:
        self._notify_due = self.ticks + self.heartbeat_ticks
        for peer in self.peers:
            self.send(self._notification(peer))

    # ---- notifications ----------------------------------------------------------------------

    def on_notification(self, message: Notification) -> None:
        known = self._said.get(message.src)
        if known is None or not self._heard(known) or message.round >= known.round:
            # (else it was overtaken by a later one, which counts)
            recency = message.current_epoch, message.last
            self._said[message.src] = Said(
                self.ticks, message.round, message.state, message.vote, message.stands, recency
            )
        if self.state is State.LOOKING:
            self._look_at(message, new=known is None or known.round != message.round)
            return
        if message.src == self.elected:
            self.on_leader_notification(message)
        if self._settled() and message.state == State.LOOKING.value:
            self.send(self._notification(message.src))

    def _settled(self) -> bool:
        return self.state is not State.LOOKING

    def _look_at(self, message: Notification, *, new: bool) -> None:
        looking = message.state == State.LOOKING.value
        if not looking and self._join(message.round):
            return
        if looking and message.round > self.round:
            self.begin_round(message.round)
        elif self._choose():
            self._notify()
        elif looking and (message.round < self.round or new):
            # It is behind, or has only just come: what this node says is news to it.
            self.send(self._notification(message.src))
        self._decide()

    def _decide(self) -> None:
        """A quorum votes as this node does, and nothing better came for a while, or can come."""
        if self.vote is None:
            return
        votes = 1 + sum(
            said.vote == self.vote and said.round == self.round and self._heard(said)
            for said in self._said.values()
        )
        everybody = votes == len(self.peers) + 1
        waited = self.ticks - self._vote_tick >= self.heartbeat_ticks
        if votes >= self.quorum and (everybody or waited):
            self._deduce(self.vote)

    def _join(self, number: int) -> bool:
        """Is there a leader whom a quorum follows, with itself and with this node?"""
        settled = {
            peer: said
            for peer, said in self._said.items()
            if said.state != State.LOOKING.value and self._heard(said)
        }
        for peer, said in settled.items():
            voters = 1 + sum(other.vote == peer for other in settled.values())
            if said.state == State.LEADING.value and voters >= self.quorum:
                self.round = number
                self._deduce(peer)
                return True
        return False

    def _deduce(self, leader: NodeId) -> None:
        self.vote = leader
        if leader == self.node:
            self.lead()
        else:
            self.follow(leader)

    # ---- time -------------------------------------------------------------------------------

    def tick_looking(self) -> None:
        if self._choose() or self.ticks >= self._notify_due:
            self._notify()
        self._decide()
