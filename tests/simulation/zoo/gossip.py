"""Planted bugs: mistakes that people make in gossip. See zoo/bug.py."""

from __future__ import annotations

from typing import Any

from services.protocols.gossip import Gossip
from services.protocols.gossip.membership import Membership
from services.protocols.gossip.messages import Ack, Incarnation, PingRequest, Update
from services.protocols.gossip.rumours import RumourMill
from services.protocols.quorum import Siblings
from services.protocols.quorum.messages import Stored
from services.protocols.quorum.versions import join
from tests.simulation.zoo.bug import Bug
from tests.simulation.zoo.quorum import _HalfBlindTree


class _WithMembership(Gossip):
    """`membership_class` in place of the shipped one's rules."""

    membership_class: type[Membership] = Membership

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.membership.__class__ = self.membership_class


class _SameIncarnation(Membership):
    def _hear_of_itself(self, update: Update) -> None:
        if update.status != "alive" and update.incarnation >= self.incarnation:
            self.become(update.incarnation)


class IncarnationNotRaised(_WithMembership):
    """A suspect says that it is alive, with the incarnation that it is suspected in: everybody goes
    on believing the worse, and it is faulty for ever."""

    membership_class = _SameIncarnation


class IncarnationForgotten(Gossip):
    """Each life begins with incarnation 1: what was said of an earlier one, "faulty", is newer than
    all that this one says."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        records = [each for each in how.pop("records", ()) if not isinstance(each, Incarnation)]
        super().__init__(*arguments, records=records, **how)


class RefutationNotOnDisk(Gossip):
    """A refutation raises the incarnation in memory; after a crash the node takes the same number
    for its next life."""

    def ready(self) -> Any:
        out = super().ready()
        if self.now:
            out.persist = [each for each in out.persist if not isinstance(each, Incarnation)]
        return out


class _Credulous(Membership):
    def hear(self, update: Update) -> None:
        view = self.views.get(update.member)
        if view is not None and update.incarnation == view.incarnation:
            self.views[update.member] = Update(update.member, "alive", 0)
            self.suspected.pop(update.member, None)
        super().hear(update)


class OldNewsBelieved(_WithMembership):
    """Of two news with one incarnation the last to arrive holds: an old "alive" takes back the
    suspicion of one who is dead."""

    membership_class = _Credulous


class _Chatterbox(Membership):
    def _piggyback(self, dst: str) -> list[Update]:
        before = dict(self.news)
        updates = super()._piggyback(dst)
        for member in before.keys() - self.news.keys():
            self.news[member] = before[member]
            self.news[member].sent = 0
        return updates


class NewsWithoutEnd(_WithMembership):
    """News is sent along without counting how often: the messages grow, and what is old keeps out
    what is new."""

    membership_class = _Chatterbox


class _Vouches(Membership):
    def step(self, message: Any) -> None:
        super().step(message)
        if isinstance(message, PingRequest):
            node = self._core.node
            self._core.send(Ack(node, message.src, message.number, message.target, []))


class ProxyVouches(_WithMembership):
    """A proxy answers for the one whom it shall ping, before that has answered: nobody who is gone
    is found out."""

    membership_class = _Vouches


class SuspectsForEver(Gossip):
    """A suspicion never runs out: the dead one stays a suspect, and everybody goes on asking it."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **{**how, "suspicion_periods": 10**6})


class _Hasty(Membership):
    def _end_period(self) -> None:
        probe = self._probe
        super()._end_period()
        if probe is not None and self.status(probe.target) == "alive":
            held = self.views[probe.target]
            self.hear(Update(probe.target, "suspect", held.incarnation + 1))


class SuspectsInAnothersName(_WithMembership):
    """An accuser raises the incarnation of the accused, so that its accusation be the newer: the
    numbers no longer say who has spoken last."""

    membership_class = _Hasty


class _OneSend(RumourMill):
    def _end_round(self, told: list[str]) -> None:
        super()._end_round(told)
        for key in told:
            self.hot.pop(key, None)


class RumourDroppedAfterOneSend(Gossip):
    """A rumour is told once and forgotten: it dies out with the first message that is lost."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.mill.__class__ = _OneSend


class RumourReplaces(Gossip):
    """What a rumour says replaces what is here instead of being merged: an old one that comes late
    takes back what is new."""

    def learn(self, key: str, state: Siblings, how: str) -> bool:
        before = self.state(key)
        if before == state:
            return False
        self.states[key] = state
        self.persist(Stored(key, state))
        self.synchronisation.changed(key)
        self.mill.news(key)
        return True


class LastToArriveWins(Gossip):
    """A replica keeps what came last, not what is newest: two replicas hear two writes in different
    orders and stay apart."""

    def merge(self, one: Siblings, other: Siblings) -> Siblings:
        if self.conflicts != "last-write-wins":
            return super().merge(one, other)
        if join(one.context, other.context) == one.context:
            return one
        return Siblings(join(one.context, other.context), other.versions)


class TombstoneCollectedTooEarly(Gossip):
    """A tombstone goes as soon as its rumour is no news any more: who was away brings the deleted
    value back, by anti-entropy, as something new."""

    def tick(self) -> None:
        super().tick()
        for key, state in list(self.states.items()):
            gone = bool(state.versions) and all(each.value is None for each in state.versions)
            if gone and key not in self.mill.hot:
                del self.states[key]
                self.synchronisation = type(self.synchronisation)(self)


class ComparesTheWrongRange(Gossip):
    """The comparison leaves out the upper half of the hashes: what a rumour missed there stays
    missing."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        for peer in self.peers:
            self.synchronisation.tree(peer).__class__ = _HalfBlindTree


BUGS = {
    bug.name: bug
    for bug in (
        Bug("incarnation_not_raised", IncarnationNotRaised),
        Bug("incarnation_forgotten", IncarnationForgotten),
        Bug("refutation_not_on_disk", RefutationNotOnDisk),
        Bug("old_news_believed", OldNewsBelieved),
        Bug("news_without_end", NewsWithoutEnd),
        Bug("proxy_vouches", ProxyVouches),
        Bug("suspects_for_ever", SuspectsForEver),
        Bug("suspects_in_anothers_name", SuspectsInAnothersName),
        Bug("rumour_dropped_after_one_send", RumourDroppedAfterOneSend),
        Bug("rumour_replaces", RumourReplaces),
        Bug("last_to_arrive_wins", LastToArriveWins),
        Bug("tombstone_collected_too_early", TombstoneCollectedTooEarly),
        Bug("compares_the_wrong_range", ComparesTheWrongRange),
        Bug("ack_before_persist", persist_before_send=False),
    )
}
