"""The interpreter of Paxos' golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `PaxosInterpreter`. (A node's core stands in its field `raft`, as the interpreter calls it.)
"""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

from services.protocols.core import Entry, Event
from services.protocols.paxos import Limits, Paxos, Role
from tests.protocols.paxos.invariants import Invariants
from tests.protocols.paxos.trace import Words
from tests.protocols.raft.transcript import Interpreter, Node, StoryError


class PaxosInterpreter(Interpreter):
    """Commands that no story of Paxos needs are None."""

    do_give_log = None
    do_transfer = None

    def __init__(self) -> None:
        super().__init__()
        self.invariants: Any = Invariants()
        self.limits: Any = Limits()
        self.words = Words(1)

    # The words need to know the members, hence methods in place of functions.

    def event_text(self, event: Event) -> str:  # type: ignore[override]
        return self.words.event(event)

    def message_text(self, message: Any) -> str:  # type: ignore[override]
        return self.words.message(message)

    def records_text(self, records: list[Any]) -> list[str]:  # type: ignore[override]
        return [self.words.record(record) for record in records]

    def _core(self, node: Node) -> Any:
        return Paxos(
            node.name,
            tuple(peer for peer in self.nodes if peer != node.name),
            random=Random(f"{node.name}/{node.starts}"),
            records=deepcopy(node.records),
            limits=self.limits,
            **self.options,
        )

    def _check_records(self, node: Node) -> None:
        """A restart would find the promise, and each acceptance unless it is decided."""
        found, paxos = self._core(node), _paxos(node)
        assert found.ballot == paxos.ballot, f"{node.name}: {node.records}"
        for slot, pvalue in paxos.slots.accepted.items():
            assert found.slots.accepted.get(slot) == pvalue, f"{node.name}: {pvalue} is not on disk"

    def _tell_applied(self, node: Node, entries: list[Entry]) -> None:
        if entries:
            self.tell(f"{node.name} applies {self.words.entries(entries)}")

    # ---- commands ---------------------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 window=2`: options of Paxos and of its Limits."""
        given = {name: int(value) for name, _, value in (o.partition("=") for o in options)}
        limits = {name: given.pop(name) for name in list(given) if name in Limits.__slots__}
        self.options, self.limits = given, Limits(**limits)
        self.words = Words(int(count))
        self.nodes = {name: Node(name) for name in (f"n{i + 1}" for i in range(int(count)))}
        for node in self.nodes.values():
            self.start(node)
        self.tell(f"{' '.join(self.nodes)} start: passive, no ballot, no slots")

    def do_restart(self, name: str) -> None:
        """`restart n1`: a new core from the records, in their order."""
        node = self.node(name)
        if node.raft:
            raise StoryError(f"{name} is not down")
        self.start(node)
        paxos = _paxos(node)
        ballot = self.words.ballots.text(paxos.ballot)
        self.tell(f"{name} restarts: ballot {ballot}, decided {paxos.slots.decided}")
        self.carry_out(node)

    def do_campaign(self, name: str) -> None:
        """`campaign n1`: its timer runs out now."""
        paxos = _paxos(self.node(name))
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

    def do_status(self, *names: str) -> None:
        """`status`, `status n1`: what a node is, and the state of its state machine."""
        for node in [self.node(name) for name in names] or list(self.nodes.values()):
            if node.raft is None:
                self.tell(f"{node.name} down")
                continue
            paxos = _paxos(node)
            lease = ", holds a lease" if paxos.role is Role.LEADER and paxos.has_lease() else ""
            self.tell(
                f"{node.name} {paxos.role.value:13} adopted "
                f"{self.words.ballots.text(paxos.ballot)}, leader {paxos.leader or 'not known'}, "
                f"decided {paxos.slots.decided}: {node.store}{lease}"
            )

    def do_log(self, *names: str) -> None:
        """`log`, `log n1 n2`: by slot the ballot of the acceptance and the command; `✓`: decided,
        as far as the node knows (of which the ballot is not kept)."""
        nodes = [self.node(name) for name in names] or self.live()
        rows = {node.name: self._row(_paxos(node)) for node in nodes}
        slots = sorted({slot for row in rows.values() for slot in row})
        heading = {slot: str(slot) for slot in range(slots[0], slots[-1] + 1)} if slots else {}
        cells = [heading, *rows.values()]
        width = {i: max(len(row.get(i, "")) for row in cells) for i in heading}
        for name, row in [("slot", heading), *rows.items()]:
            line = "  ".join(row.get(i, "").ljust(width[i]) for i in heading)
            self.tell(f"{name:5} {line}".rstrip())

    def _row(self, paxos: Paxos) -> dict[int, str]:
        slots = paxos.slots
        row = {slots.offset: "snapshot"} if slots.offset else {}
        for entry in slots.between(slots.offset, slots.decided):
            row[entry.index] = f"{entry.command.decode() or 'no-op'}✓"
        for slot, pvalue in slots.accepted.items():
            ballot = self.words.ballots.text(pvalue.ballot)
            row[slot] = f"{ballot} {pvalue.entry.command.decode() or 'no-op'}"
        return row


def _paxos(node: Node) -> Paxos:
    core: Any = node.core()
    assert isinstance(core, Paxos)
    return core


COMMANDS = PaxosInterpreter.commands()
