"""The slots as a node holds them: a snapshot, decisions without a gap, and pvalues beyond them.

State reduction (*Paxos Made Moderately Complex* §4): per slot only the pvalue of the highest
ballot is kept, and of a decided slot the decision alone. Garbage collection (§4): decisions that
a snapshot stands for go, save the last few (`kept_entries`) for replicas that are a little behind.
"""

from __future__ import annotations

from services.protocols.core import Entry, Snapshot
from services.protocols.paxos.messages import PValue


class Slots:
    """Decisions of the slots `offset + 1 … decided`; `accepted` has slots above `decided` only."""

    __slots__ = ("_decisions", "accepted", "decided", "last_index", "offset", "snapshot")

    def __init__(self) -> None:
        self._decisions: list[Entry] = []
        self.offset = 0
        self.decided = 0  # every slot up to here is decided (the paper's slot_out - 1, at most)
        self.last_index = 0  # the highest slot with a decision or a pvalue
        self.accepted: dict[int, PValue] = {}
        self.snapshot: Snapshot | None = None

    @property
    def snapshot_index(self) -> int:
        """The last slot that the snapshot stands for; 0 without one."""
        return self.snapshot.last_index if self.snapshot else 0

    def accept(self, ballot: int, entry: Entry) -> None:
        assert entry.index > self.decided, (entry.index, self.decided)
        before = self.accepted.get(entry.index)
        assert before is None or before.ballot <= ballot, (before, ballot)
        self.accepted[entry.index] = PValue(ballot, entry)
        self.last_index = max(self.last_index, entry.index)

    def decide(self, entry: Entry) -> None:
        """`entry` is the decision of the next slot."""
        assert entry.index == self.decided + 1, (entry.index, self.decided)
        self._decisions.append(entry)
        self.decided = entry.index
        self.accepted.pop(entry.index, None)
        self.last_index = max(self.last_index, entry.index)

    def decision(self, slot: int) -> Entry:
        assert self.offset < slot <= self.decided, (slot, self.offset, self.decided)
        return self._decisions[slot - self.offset - 1]

    def between(self, after: int, upto: int) -> list[Entry]:
        """The decisions with after < slot ≤ upto."""
        assert self.offset <= after <= upto <= self.decided, (after, upto, self.decided)
        return self._decisions[after - self.offset : upto - self.offset]

    def pvalues(self) -> list[PValue]:
        """All that is accepted and not decided, by slot."""
        return [pvalue for _, pvalue in sorted(self.accepted.items())]

    def compact(self, snapshot: Snapshot, kept_entries: int) -> None:
        """`snapshot` stands for the decisions up to its last slot; keep the last few of them."""
        assert self.snapshot_index < snapshot.last_index <= self.decided, snapshot.last_index
        assert self.decision(snapshot.last_index).term == snapshot.last_term, snapshot.last_term
        self.snapshot = snapshot
        offset = max(self.offset, snapshot.last_index - kept_entries)
        del self._decisions[: offset - self.offset]
        self.offset = offset

    def reset(self, snapshot: Snapshot) -> None:
        """`snapshot` stands for all decisions. Pvalues beyond it stay: they may be chosen."""
        assert snapshot.last_index >= self.decided, (snapshot.last_index, self.decided)
        self.snapshot = snapshot
        self._decisions.clear()
        self.offset = self.decided = snapshot.last_index
        for slot in [slot for slot in self.accepted if slot <= self.decided]:
            del self.accepted[slot]
        self.last_index = max(self.decided, self.last_index)

    def check_invariants(self) -> None:
        assert self.decided == self.offset + len(self._decisions), (self.decided, self.offset)
        for slot, entry in enumerate(self._decisions, self.offset + 1):
            assert entry.index == slot, (entry.index, slot)
        for slot, pvalue in self.accepted.items():
            assert slot == pvalue.entry.index > self.decided, (slot, pvalue, self.decided)
            assert pvalue.entry.term <= pvalue.ballot, pvalue
        assert self.last_index >= max(self.accepted, default=self.decided), self.last_index
