"""Protocols with one rule removed: the controls of lab-consensus, and of whoever wants to see why.

A store runs one by `KV_PROTOCOL=labs.broken:NoLogCheck`. Each is derived from a shipped core and
says which rule it lacks and which history then goes wrong. The bug zoo of the simulation
(tests/simulation/zoo) plants them, too; they live here because labs import nothing of the tests.
"""

from __future__ import annotations

from typing import Any

from services.protocols.paxos import Paxos, Role
from services.protocols.paxos.messages import P1a, P1b, P2b
from services.protocols.raft import Raft
from services.protocols.viewstamped import Viewstamped
from services.protocols.viewstamped.messages import DoViewChange
from services.protocols.zab import Zab
from services.protocols.zab.messages import Zxid


class NoLogCheck(Raft):
    """§5.4.1: a vote for a candidate whose log is behind. It leads, and cuts off of the others'
    logs what it has missed: committed, acknowledged, gone."""

    def log_is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        return True


class PromisesIgnored(Paxos):
    """P2c of *Paxos Made Simple*: a proposer takes the promise, and not what it tells of accepted
    and decided values. It proposes its own in slots where others have been chosen."""

    def on_p1b(self, message: P1b) -> None:
        super().on_p1b(P1b(message.src, message.dst, message.ballot, 0, []))


class NoZxidCheck(Zab):
    """Step l.1.2: all histories count as equally recent, in the election and in discovery. A leader
    that has missed transactions makes a quorum equal to itself: TRUNC."""

    def rank(self, current_epoch: int, last: Zxid) -> tuple[int, ...]:
        return ()


class LogForgotten(Viewstamped):
    """§4.2: the new primary keeps its own log and takes no better one out of the DOVIEWCHANGEs. It
    was cut off while others committed x; they elect it, and overwrite x with what it has."""

    def preference(self, vote: DoViewChange) -> tuple[int, int, bool]:
        return int(vote.src == self.node), 0, False


class Duelling(Paxos):
    """*Paxos Made Simple* §2.4: no distinguished proposer. Two proposers, the first two by name,
    take a higher ballot as soon as they hear of one: each preempts the other between its promise
    and its acceptance, and nothing need ever be chosen. Nothing wrong is chosen either."""

    met = False  # the other one was heard of, since this one started

    @property
    def proposers(self) -> list[str]:
        return sorted([self.node, *self.peers])[:2]

    @property
    def proposes(self) -> bool:
        return self.node in self.proposers

    def status(self) -> dict[str, Any]:
        """Clients have somebody to ask, hence a node is ready, though nobody need ever lead."""
        status = super().status()
        return status | {"leader": status["leader"] or self.proposers[0]}

    def consider_adoption(self) -> None:
        """Not before the two have met. One that begins while the other still dials is alone, hence
        distinguished: it gets dozens of values chosen before there is anybody to duel with."""
        if self.met or len(self.proposers) == 1:
            super().consider_adoption()

    def hears_leader(self) -> bool:
        return False  # no promise is refused for the sake of somebody who leads

    def back_off(self) -> None:
        """Nobody gives way."""

    def tick(self) -> None:
        super().tick()
        if self.role is not Role.LEADER:
            self._take_ballot()

    def campaign(self) -> None:
        self._take_ballot()

    def on_p1a(self, message: P1a) -> None:
        overtaken = message.ballot > self.ballot
        self.met = True  # only the other one asks
        super().on_p1a(message)
        if overtaken:
            self._take_ballot()

    def on_p1b(self, message: P1b) -> None:
        self.met = self.met or message.src in self.proposers
        super().on_p1b(message)

    def on_p2b(self, message: P2b) -> None:
        super().on_p2b(message)
        if message.ballot > self.ballot:
            self._take_ballot()

    def _take_ballot(self) -> None:
        """Phase 1 with a ballot above all that it knows of, without asking who would promise."""
        if self.proposes and self.role is not Role.CANDIDATE:
            self._scout_ballot = self.ballots.next(max(self.ballot, self.seen), self.node)
            self.start_scout()


__all__ = ["Duelling", "LogForgotten", "NoLogCheck", "NoZxidCheck", "PromisesIgnored"]
