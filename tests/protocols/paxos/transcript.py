"""The interpreter of Paxos' golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `PaxosInterpreter`.
"""

from __future__ import annotations

from typing import Any

from services.protocols.core import Entry, Event
from services.protocols.paxos import Limits, Paxos, Role
from tests.protocols.paxos.invariants import Invariants
from tests.protocols.paxos.trace import Words
from tests.protocols.raft.transcript import Interpreter, Node, Store, StoryError


class PaxosInterpreter(Interpreter):
    """Commands that no story of Paxos needs are None."""

    core_type = Paxos
    limits_type = Limits
    position = "slot"
    do_give_log = None
    do_transfer = None

    def __init__(self) -> None:
        super().__init__()
        self.invariants = Invariants()
        self.words = Words(1)

    # The words need to know the members, hence methods in place of functions.

    def event_text(self, event: Event) -> str:  # type: ignore[override]
        return self.words.event(event)

    def message_text(self, message: Any) -> str:  # type: ignore[override]
        return self.words.message(message)

    def records_text(self, records: list[Any]) -> list[str]:  # type: ignore[override]
        return [self.words.record(record) for record in records]

    def _check_records(self, node: Node) -> None:
        """A restart would find the promise, and each acceptance unless it is decided."""
        found, paxos = self._core(node), node.core()
        assert found.ballot == paxos.ballot, f"{node.name}: {node.records}"
        for slot, pvalue in paxos.slots.accepted.items():
            assert found.slots.accepted.get(slot) == pvalue, f"{node.name}: {pvalue} is not on disk"

    def _tell_applied(self, node: Node, entries: list[Entry]) -> None:
        if entries:
            self.tell(f"{node.name} applies {self.words.entries(entries)}")

    # ---- commands ---------------------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 window=2`: options of Paxos and of its Limits."""
        self.words = Words(int(count))
        self._add_nodes(int(count), options)
        self.tell(f"{' '.join(self.nodes)} start: passive, no ballot, no slots")

    def _restarted(self, core: Any) -> str:
        return f"ballot {self.words.ballots.text(core.ballot)}, decided {core.slots.decided}"

    def do_campaign(self, name: str) -> None:
        """`campaign n1`: its timer runs out now."""
        paxos = self.node(name).core()
        if paxos.role is Role.LEADER:
            raise StoryError(f"{name} is active")
        paxos.campaign()
        self.carry_out(self.nodes[name])

    def do_propose(self, name: str, *commands: str) -> None:
        """`propose n1 x=1 k7:y+=1`: clients ask for writes, all before n1 sends anything."""
        start = len(self.trace)
        super().do_propose(name, *commands)
        for i, line in enumerate(self.trace[start:], start):
            head, mark, at = line.partition(" as entry ")
            if mark:
                slot, _, ballot = at.partition("/")
                text = self.words.ballots.text(int(ballot))
                self.trace[i] = f"{head} for slot {slot} in {text}"

    def _status(self, core: Any, store: Store) -> str:
        lease = ", holds a lease" if core.has_lease() else ""
        return (
            f"{core.role.value:13} adopted {self.words.ballots.text(core.ballot)}, leader "
            f"{core.leader or 'not known'}, decided {core.slots.decided}: {store}{lease}"
        )

    def _row(self, core: Any) -> dict[int, str]:
        """Of an acceptance the ballot, too; `✓`: decided (and the ballot is not kept)."""
        slots = core.slots
        row = {slots.offset: "snapshot"} if slots.offset else {}
        for entry in slots.between(slots.offset, slots.decided):
            row[entry.index] = f"{entry.command.decode() or 'no-op'}✓"
        for slot, pvalue in slots.accepted.items():
            ballot = self.words.ballots.text(pvalue.ballot)
            row[slot] = f"{ballot} {pvalue.entry.command.decode() or 'no-op'}"
        return row


COMMANDS = PaxosInterpreter.commands()
