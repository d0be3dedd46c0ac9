"""The papers' invariants over all nodes of a transcript, after every command."""

from __future__ import annotations

from services.protocols.core import Entry
from services.protocols.paxos import Paxos, Role


class Invariants:
    """A1, A4, A5 and R1 of *Paxos Made Moderately Complex*, over all that any node ever held."""

    def __init__(self) -> None:
        self._ballots: dict[str, int] = {}
        self._leaders: dict[int, str] = {}
        self._accepted: dict[tuple[int, int], Entry] = {}  # (slot, ballot) →
        self._acceptors: dict[tuple[int, int], set[str]] = {}
        self._decided: dict[int, Entry] = {}
        self._majority = 0

    def applied(self, paxos: Paxos, entry: Entry) -> None:
        first = self._decided.setdefault(entry.index, entry)
        assert first == entry, f"R1: {paxos.node} decides {entry}, not {first}"

    def check(self, nodes: list[Paxos]) -> None:
        for paxos in nodes:
            self._majority = paxos.quorum
            paxos.check_invariants()
            before = self._ballots.get(paxos.node, 0)
            assert before <= paxos.ballot, f"A1: {paxos.node} adopts {paxos.ballot} after {before}"
            self._ballots[paxos.node] = paxos.ballot
            if paxos.role is Role.LEADER:
                first = self._leaders.setdefault(paxos.ballot, paxos.node)
                assert first == paxos.node, f"{first} and {paxos.node} are active"
            for slot, pvalue in paxos.slots.accepted.items():
                known = self._accepted.setdefault((slot, pvalue.ballot), pvalue.entry)
                assert known == pvalue.entry, f"A4: {paxos.node} has {pvalue}, others {known}"
                self._acceptors.setdefault((slot, pvalue.ballot), set()).add(paxos.node)
        self._a5()

    def _a5(self) -> None:
        for (slot, ballot), by in self._acceptors.items():
            if len(by) < self._majority:
                continue
            for (other, higher), entry in self._accepted.items():
                if other == slot and higher > ballot:
                    chosen = self._accepted[slot, ballot]
                    assert entry == chosen, f"A5: {entry} in {higher}, {chosen} in {ballot}"
