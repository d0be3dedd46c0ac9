"""The invariants of figure 3, checked over a whole cluster after every command of a transcript."""

from __future__ import annotations

from services.protocols.core import Entry
from services.protocols.raft import Raft, Role


class Invariants:
    """Figure 3, over all that any node ever held, applied or led."""

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}
        self._entries: dict[tuple[int, int], tuple[int | None, bytes]] = {}
        self._applied: dict[int, tuple[Entry, int]] = {}  # and the term it was committed in

    def applied(self, raft: Raft, entry: Entry) -> None:
        first, _ = self._applied.setdefault(entry.index, (entry, raft.term))
        assert first == entry, f"state-machine safety: {raft.node} applies {entry}, not {first}"

    def check(self, rafts: list[Raft]) -> None:
        for raft in rafts:
            raft.check_invariants()
            self._log_matching(raft)
            if raft.role is Role.LEADER:
                first = self._leaders.setdefault(raft.term, raft.node)
                assert first == raft.node, f"election safety: {first}, {raft.node} in {raft.term}"
                self._leader_completeness(raft)

    def _log_matching(self, raft: Raft) -> None:
        log = raft.log
        for entry in log.between(log.offset, log.last_index):
            here = (log.term(entry.index - 1), entry.command)
            first = self._entries.setdefault((entry.index, entry.term), here)
            assert here == first, f"log matching: {raft.node} has {entry} after {here[0]}: {first}"

    def _leader_completeness(self, raft: Raft) -> None:
        for entry, term in self._applied.values():
            if raft.term > term and entry.index > raft.log.offset:
                held = raft.log.term(entry.index)
                assert held == entry.term, f"leader completeness: {raft.node} lacks {entry}"
