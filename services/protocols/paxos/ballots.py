"""Ballot numbers: pairs (round, leader), in the one integer that messages and `Entry.term` carry.

*Paxos Made Moderately Complex* §2: a ballot number is a pair (r, λ) of a round number and the
identifier of a leader, or ⊥, which is less than all; pairs are ordered by round, then by leader.
With the members sorted, `round · members + rank of the leader` is in the same order, and gives the
pair back. 0 is ⊥. The encoding depends on the membership, which is fixed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from services.protocols.core import NodeId

BOTTOM = 0  # ⊥: less than every ballot


class Ballot(NamedTuple):
    """Compares as the paper has it: by round, then by leader."""

    round: int
    leader: NodeId


class Ballots:
    """Numbers of the ballots of one membership."""

    __slots__ = ("_rank", "members")

    def __init__(self, members: Iterable[NodeId]) -> None:
        self.members = tuple(sorted(members))
        self._rank = {member: rank for rank, member in enumerate(self.members)}

    def number(self, ballot: Ballot) -> int:
        assert ballot.round >= 1, ballot
        return ballot.round * len(self.members) + self._rank[ballot.leader]

    def pair(self, number: int) -> Ballot:
        """The ballot of a number; round 0 for what is none."""
        round_, rank = divmod(number, len(self.members))
        return Ballot(round_, self.members[rank])

    def belongs_to(self, number: int, node: NodeId) -> bool:
        """Is it a ballot, and one that only `node` may lead?"""
        round_, leader = self.pair(number)
        return round_ >= 1 and leader == node

    def next(self, above: int, leader: NodeId) -> int:
        """The first ballot of `leader` in a round after that of the number `above`."""
        return self.number(Ballot(self.pair(above).round + 1, leader))

    def text(self, number: int) -> str:
        """For people: `3.n1` is round 3 of n1."""
        if number == BOTTOM:
            return "⊥"
        round_, leader = self.pair(number)
        return f"{round_}.{leader}"
