"""The paper's properties, checked over a whole ensemble after every command of a transcript."""

from __future__ import annotations

from services.protocols.core import Entry
from services.protocols.zab import Phase, State, Zab


class Invariants:
    """DSN 2011 §III, over all that any node ever held, delivered or led."""

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}
        self._entries: dict[tuple[int, int], tuple[int | None, bytes]] = {}
        self._applied: dict[int, tuple[Entry, int]] = {}  # and the epoch it was committed in

    def applied(self, zab: Zab, entry: Entry) -> None:
        first, _ = self._applied.setdefault(entry.index, (entry, zab.current_epoch))
        assert first == entry, f"total order: {zab.node} delivers {entry}, not {first}"

    def check(self, nodes: list[Zab]) -> None:
        for zab in nodes:
            zab.check_invariants()
            self._prefixes(zab)
            if zab.state is State.LEADING and zab.phase >= Phase.SYNCHRONISATION:
                epoch = zab.accepted_epoch
                first = self._leaders.setdefault(epoch, zab.node)
                assert first == zab.node, f"one primary: {first}, {zab.node} in {epoch}"
                self._primary_integrity(zab)

    def _prefixes(self, zab: Zab) -> None:
        history = zab.history
        for entry in history.between(history.offset, history.last_index):
            here = (history.term(entry.index - 1), entry.command)
            first = self._entries.setdefault((entry.index, entry.term), here)
            assert here == first, f"prefixes: {zab.node} has {entry} after {here[0]}: {first}"

    def _primary_integrity(self, zab: Zab) -> None:
        for entry, epoch in self._applied.values():
            if zab.accepted_epoch > epoch and entry.index > zab.history.offset:
                held = zab.history.term(entry.index)
                assert held == entry.term, f"primary integrity: {zab.node} lacks {entry}"
