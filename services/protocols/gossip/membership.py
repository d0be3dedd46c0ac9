"""Who is there: the failure detector and the dissemination of SWIM (Das, Gupta, Motivala 2002)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.protocols.core import NodeId
from services.protocols.gossip.messages import (
    Ack,
    Incarnation,
    Ping,
    PingRequest,
    Status,
    Update,
)

if TYPE_CHECKING:
    from services.protocols.gossip.core import Gossip

NUMBER_BITS = 40
PIGGYBACK_MAX = 8  # updates in a message
RANK: dict[Status, int] = {"alive": 0, "suspect": 1, "faulty": 2}


@dataclass(slots=True)
class Probe:
    """The ping of a protocol period, and whether it was answered, directly or for a proxy."""

    number: int
    target: NodeId
    began: int  # tick
    answered: bool = False


@dataclass(slots=True)
class News:
    """An update on its way, and how often it was sent."""

    update: Update
    sent: int = 0


class Membership:
    """One node's view of the others.

    Args:
        period_ticks: a protocol period; one member is probed in each.
        timeout_ticks: after that without an answer, proxies are asked; well within a period.
        proxies: k, how many.
        suspicion_ticks: so long a suspect may refute; then it is faulty.
        retransmissions: λ; each update is sent at most λ·⌈log2(n + 1)⌉ times by a node.
        incarnation: of this life; greater than that of any earlier one.
    """

    def __init__(
        self,
        core: Gossip,
        *,
        period_ticks: int,
        timeout_ticks: int,
        proxies: int,
        suspicion_ticks: int,
        retransmissions: int,
        incarnation: int,
    ) -> None:
        if not 1 <= timeout_ticks < period_ticks:
            raise ValueError(f"timeout_ticks={timeout_ticks} with period_ticks={period_ticks}")
        self._core = core
        self.period_ticks, self.timeout_ticks = period_ticks, timeout_ticks
        self.proxies, self.suspicion_ticks = proxies, suspicion_ticks
        size = len(core.nodes)
        self.sends_max = retransmissions * size.bit_length()  # ⌈log2(n + 1)⌉
        self.incarnation = incarnation
        self.views = {peer: Update(peer, "alive", 0) for peer in core.peers}
        self.suspected: dict[NodeId, int] = {}  # since which tick
        self.news: dict[NodeId, News] = {}
        self._probe: Probe | None = None
        self._asked: dict[int, tuple[NodeId, int, int]] = {}  # for whom, its number, since
        self._number = core.random.getrandbits(NUMBER_BITS)
        self._rotation: list[NodeId] = []

    # ------------------------------------------------------------------ what is known

    def status(self, member: NodeId) -> Status:
        """What this node takes `member` for."""
        return self.views[member].status

    @property
    def present(self) -> list[NodeId]:
        """The peers that are not taken for faulty; all of them if none is left."""
        peers = self._core.peers
        return [peer for peer in peers if self.views[peer].status != "faulty"] or list(peers)

    def hear(self, update: Update) -> None:
        """News of a member; old news changes nothing."""
        if update.member == self._core.node:
            self._hear_of_itself(update)
            return
        view = self.views.get(update.member)
        if view is None:
            return
        if _order(update) <= _order(view):
            return
        self.views[update.member] = update
        self.suspected.pop(update.member, None)
        if update.status == "suspect":
            self.suspected[update.member] = self._core.now
        self._spread(update)
        if update.status != view.status:
            self._core.tell(update.status, member=update.member, incarnation=update.incarnation)

    def _hear_of_itself(self, update: Update) -> None:
        """Refute: with a greater incarnation, for with the same one the worse status holds."""
        # (Who hears itself called alive with a number that it never had has lost its disk.)
        accused = update.status != "alive" and update.incarnation >= self.incarnation
        if accused or update.incarnation > self.incarnation:
            self.become(update.incarnation + 1)

    def become(self, incarnation: int) -> None:
        """Be alive with this incarnation from now on."""
        assert incarnation >= self.incarnation, (incarnation, self.incarnation)
        self.incarnation = incarnation
        self._core.persist(Incarnation(incarnation))
        self._core.tell("refute", incarnation=incarnation)

    def _spread(self, update: Update) -> None:
        self.news[update.member] = News(update)

    def _piggyback(self, dst: NodeId) -> list[Update]:
        """What to send along, the least often sent first; each so often and no more.

        And always two things. What is held against the receiver: it alone can refute it. And the
        sender's own incarnation: its news was perhaps told to the end while the receiver was cut
        off, and took the sender for faulty in an older one, which needs no refutation and never
        goes away by itself (the simulation found two halves that stayed apart so).
        """
        # Ties by name, so that a run can be replayed.
        waiting = sorted(self.news.values(), key=lambda news: (news.sent, news.update.member))
        chosen = waiting[:PIGGYBACK_MAX]
        for news in chosen:
            news.sent += 1
            if news.sent >= self.sends_max:
                del self.news[news.update.member]
        updates = [Update(self._core.node, "alive", self.incarnation)]
        updates += [news.update for news in chosen]
        held = self.views.get(dst)
        if held is not None and held.status != "alive" and held not in updates:
            updates.append(held)
        return updates

    # ------------------------------------------------------------------ messages

    def step(self, message: Any) -> None:
        """A message of the failure detector."""
        for update in message.updates:
            self.hear(update)
        node, src = self._core.node, message.src
        if isinstance(message, Ping):
            self._core.send(Ack(node, src, message.number, node, self._piggyback(src)))
        elif isinstance(message, PingRequest):
            if message.target in self.views:
                number = self._ping(message.target)
                self._asked[number] = (src, message.number, self._core.now)
        elif isinstance(message, Ack):
            self._answered(message)

    def _answered(self, ack: Ack) -> None:
        if ack.number in self._asked:
            asker, number, _ = self._asked.pop(ack.number)
            self._core.send(
                Ack(self._core.node, asker, number, ack.subject, self._piggyback(asker))
            )
        probe = self._probe
        if probe is not None and (ack.number, ack.subject) == (probe.number, probe.target):
            probe.answered = True

    def _ping(self, target: NodeId) -> int:
        self._number += 1
        self._core.send(Ping(self._core.node, target, self._number, self._piggyback(target)))
        return self._number

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """One unit of time has passed."""
        now, probe = self._core.now, self._probe
        for member, since in list(self.suspected.items()):
            if now - since >= self.suspicion_ticks:
                self.hear(Update(member, "faulty", self.views[member].incarnation))
        if probe is not None and not probe.answered and now - probe.began == self.timeout_ticks:
            self._ask_proxies(probe)
        if now % self.period_ticks == 0:
            self._end_period()

    def _ask_proxies(self, probe: Probe) -> None:
        """The link may be the one at fault, or this node: let others try (SWIM §3.1)."""
        others = [peer for peer in self.present if peer != probe.target]
        for proxy in self._core.random.sample(others, min(self.proxies, len(others))):
            self._core.send(
                PingRequest(
                    self._core.node, proxy, probe.number, probe.target, self._piggyback(proxy)
                )
            )

    def _end_period(self) -> None:
        now, probe = self._core.now, self._probe
        if probe is not None and not probe.answered and self.status(probe.target) == "alive":
            self.hear(Update(probe.target, "suspect", self.views[probe.target].incarnation))
        for number, (_, _, since) in list(self._asked.items()):
            if now - since > 2 * self.period_ticks:
                del self._asked[number]
        target = self._next_target()
        self._probe = Probe(self._ping(target), target, now) if target else None
        faulty = [peer for peer in self._core.peers if self.views[peer].status == "faulty"]
        if faulty:
            # Two halves that took each other for faulty would never speak again, were nobody to
            # try. (The paper's faulty members are gone for ever.)
            self._ping(self._core.random.choice(faulty))

    def _next_target(self) -> NodeId | None:
        """Round robin in an order drawn anew each time: within 2n - 1 periods each member is probed
        (SWIM §4.3), however unlucky the draws."""
        while self._rotation:
            target = self._rotation.pop()
            if self.views[target].status != "faulty":
                return target
        self._rotation = [peer for peer in self._core.peers if self.status(peer) != "faulty"]
        self._core.random.shuffle(self._rotation)
        return self._rotation.pop() if self._rotation else None

    def check_invariants(self) -> None:
        """Raise AssertionError if this node's own state is impossible."""
        suspects = {peer for peer, view in self.views.items() if view.status == "suspect"}
        assert suspects == set(self.suspected), (suspects, self.suspected)
        for news in self.news.values():
            assert news.sent < self.sends_max, news


def _order(update: Update) -> tuple[int, int]:
    return update.incarnation, RANK[update.status]
