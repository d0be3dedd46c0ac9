"""The single-decree Synod of *Paxos Made Simple*: proposer, acceptor, learner; one value chosen.

Lamport, *Paxos Made Simple* (2001), §2. Nothing of the rest of the package is used here, nor the
other way round: this is the algorithm by itself, small enough to try every interleaving of it.

Theory of operation
-------------------
**Invariants** (§2.2), each stronger than the one before:

- *P2*: if a proposal with value v is chosen, every higher-numbered proposal chosen has value v.
- *P2b*: … every higher-numbered proposal *issued* by any proposer has value v.
- *P2c*: for any proposal (n, v) issued there is a majority S of acceptors such that either no
  acceptor in S has accepted a proposal numbered less than n, or v is the value of the highest-
  numbered of the proposals less than n that they have accepted.

P2c is kept by asking first: `Prepare(n)` extracts from a majority both what it has accepted and the
promise to accept nothing below n any more (*P1a*: an acceptor can accept a proposal numbered n if
and only if it has not responded to a prepare request having a number greater than n).

**Ordering rule.** An acceptor's `promised` and `accepted` are on stable storage before an answer
leaves (§2.5), so a caller persists `state` between `step` and sending what it returned.

**Liveness** (§2.4). Two proposers that each begin anew as soon as they are overtaken can go on for
ever with nothing chosen: each prepare takes away the promises on which the other's accept rests.
No choice of numbers helps. Only a *distinguished proposer*, the one that alone issues proposals,
makes progress; safety never rests on there being only one.

Numbers are disjoint (§2.2): with k proposers, the one of rank r uses r + k, r + 2k, r + 3k …
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from services.protocols.core import NodeId


class Proposal(NamedTuple):
    """A number and a value. Numbers order; equal numbers have equal values."""

    number: int
    value: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """Phase 1 (a): a request with number n."""

    src: NodeId
    dst: NodeId
    number: int


@dataclass(frozen=True, slots=True)
class Promise:
    """Phase 1 (b): nothing below n any more; and the highest-numbered proposal accepted, if any."""

    src: NodeId
    dst: NodeId
    number: int
    accepted: Proposal | None


@dataclass(frozen=True, slots=True)
class Accept:
    """Phase 2 (a): please accept this proposal."""

    src: NodeId
    dst: NodeId
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Accepted:
    """Phase 2 (b), to proposer and learners (§2.3): `src` has accepted this proposal."""

    src: NodeId
    dst: NodeId
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Reject:
    """The performance optimisation of §2.2: a request numbered `number` came after the promise
    `promised`, so its proposer "should then abandon its proposal"."""

    src: NodeId
    dst: NodeId
    number: int
    promised: int


Message = Prepare | Promise | Accept | Accepted | Reject


class Acceptor:
    """Keeps its promise. `state` is what a restart needs, and all that it needs (§2.5)."""

    def __init__(self, node: NodeId, state: tuple[int, Proposal | None] = (0, None)) -> None:
        self.node = node
        self.promised, self.accepted = state

    @property
    def state(self) -> tuple[int, Proposal | None]:
        """(highest prepare responded to, highest-numbered proposal accepted): to be persisted."""
        return self.promised, self.accepted

    def step(self, message: Message) -> list[Message]:
        """The answers to one message, to be sent once `state` is on stable storage."""
        match message:
            case Prepare(src=src, number=number):
                if number < self.promised:
                    return [Reject(self.node, src, number, self.promised)]
                self.promised = number  # the same number again: a repeated message, and answer
                return [Promise(self.node, src, number, self.accepted)]
            case Accept(src=src, proposal=proposal):
                if proposal.number < self.promised:
                    return [Reject(self.node, src, proposal.number, self.promised)]
                assert self.accepted is None or self.accepted.number <= proposal.number
                self.promised, self.accepted = proposal.number, proposal
                return [Accepted(self.node, src, proposal)]
        return []


class Learner:
    """Learns that a proposal has been accepted by a majority of the acceptors (§2.3).

    Acceptors are kept as a set and by proposal: the network may repeat an answer, and a majority
    that accepted one value under different numbers has chosen nothing.
    """

    def __init__(self, acceptors: Iterable[NodeId]) -> None:
        self.acceptors = frozenset(acceptors)
        self.majority = len(self.acceptors) // 2 + 1
        self.chosen: str | None = None
        self._accepted: dict[int, set[NodeId]] = {}  # by number: it names the proposal

    def step(self, message: Message) -> None:
        if not isinstance(message, Accepted) or message.src not in self.acceptors:
            return
        by = self._accepted.setdefault(message.proposal.number, set())
        by.add(message.src)
        if len(by) >= self.majority:
            value = message.proposal.value
            assert self.chosen in (None, value), f"chosen: {self.chosen!r}, and then {value!r}"
            self.chosen = value


class Proposer:
    """Tries to get a value chosen; also a learner, so that it knows when to stop.

    Args:
        node: its id. rank: from 0 to `proposers` - 1, for numbers of its own.
        value: what it would like; what it proposes is an earlier value if phase 1 shows one.
        distinguished: whether it may issue proposals now. Who that is, a failure detector says
            (§2.4): with none chosen nothing happens, with two they may hinder each other.
    """

    def __init__(
        self,
        node: NodeId,
        rank: int,
        proposers: int,
        acceptors: Iterable[NodeId],
        value: str,
        *,
        distinguished: bool = True,
    ) -> None:
        assert 0 <= rank < proposers, (rank, proposers)
        self.node, self.value, self.distinguished = node, value, distinguished
        self.acceptors = tuple(sorted(acceptors))
        self.learner = Learner(self.acceptors)
        self.rank, self.proposers = rank, proposers
        self.number = rank  # of the attempt that is running, or was given up; `rank`: none yet
        self.attempts = 0
        self.overtaken_by = 0  # the highest number that made an acceptor reject ours
        self._promises: dict[NodeId, Proposal | None] = {}
        self._issued: Proposal | None = None

    @property
    def chosen(self) -> str | None:
        return self.learner.chosen

    @property
    def overtaken(self) -> bool:
        """Has the attempt that is running come to nothing?"""
        return self.overtaken_by > self.number

    def propose(self) -> list[Message]:
        """Begin an attempt with a number above all heard of: the prepare requests.

        Nothing if this proposer is not distinguished, or the value is chosen.
        """
        if not self.distinguished or self.chosen is not None:
            return []
        above = max(self.number, self.overtaken_by)
        self.number += self.proposers * max(1, -(-(above + 1 - self.number) // self.proposers))
        assert self.number > above, (self.number, above)
        self.attempts += 1
        self._promises, self._issued = {}, None
        return [Prepare(self.node, acceptor, self.number) for acceptor in self.acceptors]

    def step(self, message: Message) -> list[Message]:
        """What to send after one message. After a Reject: nothing; `propose` is the caller's."""
        match message:
            case Promise(src=src, number=number, accepted=accepted) if number == self.number:
                self._promises[src] = accepted
                if self._issued is None and len(self._promises) >= self.learner.majority:
                    return self._issue()
            case Accepted():
                self.learner.step(message)
            case Reject(number=number, promised=promised) if number == self.number:
                self.overtaken_by = max(self.overtaken_by, promised)
        return []

    def _issue(self) -> list[Message]:
        """P2c: the value of the highest-numbered proposal among the responses, or any value if
        they reported none."""
        reported = [proposal for proposal in self._promises.values() if proposal is not None]
        value = max(reported).value if reported else self.value
        self._issued = Proposal(self.number, value)
        return [Accept(self.node, acceptor, self._issued) for acceptor in self.acceptors]
