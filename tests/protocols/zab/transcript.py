"""The interpreter of Zab's golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `ZabInterpreter`. (A node's core stands in its field `raft`, as the interpreter calls it.)
"""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

from services.protocols.core import Entry
from services.protocols.zab import Limits, State, Zab
from services.protocols.zab.messages import Epochs
from tests.protocols.raft.transcript import Interpreter, Node, StoryError
from tests.protocols.zab.invariants import Invariants
from tests.protocols.zab.trace import event_text, message_text, records_text


class ZabInterpreter(Interpreter):
    """Commands that Zab does not have are None."""

    event_text = staticmethod(event_text)
    message_text = staticmethod(message_text)
    records_text = staticmethod(records_text)
    do_give_log = None
    do_campaign = None
    do_transfer = None
    do_duplicate = None

    def __init__(self) -> None:
        super().__init__()
        self.invariants: Any = Invariants()
        self.limits: Any = Limits()

    def _core(self, node: Node) -> Any:
        return Zab(
            node.name,
            tuple(peer for peer in self.nodes if peer != node.name),
            random=Random(f"{node.name}/{node.starts}"),
            records=deepcopy(node.records),
            limits=self.limits,
            **self.options,
        )

    def _check_records(self, node: Node) -> None:
        """What a restart would find is what the node is now."""
        found, zab = self._core(node), _zab(node)
        epochs = [(each.accepted_epoch, each.current_epoch) for each in (found, zab)]
        assert epochs[0] == epochs[1], f"{node.name}: {node.records}"
        after = max(found.history.offset, zab.history.offset)
        assert found.history.last == zab.history.last, f"{node.name}: {node.records}"
        histories = [h.between(after, h.last_index) for h in (found.history, zab.history)]
        assert histories[0] == histories[1], f"{node.name}: on disk {histories[0]}"

    # ---- commands ---------------------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 kept_entries=0`: options of Zab and of its Limits."""
        given = {name: int(value) for name, _, value in (o.partition("=") for o in options)}
        limits = {name: given.pop(name) for name in list(given) if name in Limits.__slots__}
        self.options, self.limits = given, Limits(**limits)
        self.nodes = {name: Node(name) for name in (f"n{i + 1}" for i in range(int(count)))}
        for node in self.nodes.values():
            self.start(node)
        self.tell(f"{' '.join(self.nodes)} start: no epoch, empty histories")
        for node in self.nodes.values():
            self.carry_out(node)

    def do_give_history(self, name: str, accepted: str, current: str, *epochs: str) -> None:
        """`give-history n1 3 2 1 2`: n1 starts with acceptedEpoch 3, currentEpoch 2, and
        transactions of epochs 1 and 2. (What the nodes have said so far is forgotten.)"""
        node = self.node(name)
        entries = [Entry(i, int(e), f"x={e}{i}".encode()) for i, e in enumerate(epochs, 1)]
        node.records = [Epochs(int(accepted), int(current)), *entries]
        self.in_flight.clear()
        for each in self.nodes.values():
            self.start(each)
        last = _zab(node).history.last
        self.tell(f"{name} has promised {accepted}, accepted {current}, and history up to {last}")

    def do_restart(self, name: str) -> None:
        """`restart n1`: a new core from the records, in their order."""
        node = self.node(name)
        if node.raft:
            raise StoryError(f"{name} is not down")
        self.start(node)
        zab = _zab(node)
        epochs = f"acceptedEpoch {zab.accepted_epoch}, currentEpoch {zab.current_epoch}"
        self.tell(f"{name} restarts: {epochs}, history ends {zab.history.last}")
        self.carry_out(node)

    def do_elect(self, name: str, *voters: str) -> None:
        """`elect n1 n2`: the election comes out so for these nodes; n1 is to lead, n2 to follow.

        What phase 0 says does not matter to the later phases, so a story may begin there.
        """
        for voter in (name, *voters):
            zab = _zab(self.node(voter))
            if zab.state is not State.LOOKING:
                zab.look("the story wants an election")
            zab._messages = [m for m in zab._messages if type(m).__name__ != "Notification"]
            if voter == name:
                zab.lead()
            else:
                zab.follow(name)
        self.in_flight = [m for m in self.in_flight if type(m).__name__ != "Notification"]
        for voter in (name, *voters):
            self.carry_out(self.nodes[voter])

    def do_status(self, *names: str) -> None:
        """`status`, `status n1`: what a node is, and the state of its state machine."""
        for node in [self.node(name) for name in names] or list(self.nodes.values()):
            if node.raft is None:
                self.tell(f"{node.name} down")
                continue
            zab = _zab(node)
            self.tell(
                f"{node.name} {zab.role():9} phase {int(zab.phase)}, promised "
                f"{zab.accepted_epoch}, epoch {zab.current_epoch}, history ends "
                f"{zab.history.last}, committed {zab.commit_index}: {node.store}"
            )

    def do_log(self, *names: str) -> None:
        """`log`, `log n1 n2`: epoch and command by counter; `✓`: committed as far as it knows."""
        nodes = [self.node(name) for name in names] or self.live()
        rows = {node.name: _row(_zab(node)) for node in nodes}
        columns = sorted({counter for row in rows.values() for counter in row})
        heading = {counter: str(counter) for counter in columns}
        cells = [heading, *rows.values()]
        width = {i: max(len(row.get(i, "")) for row in cells) for i in columns}
        for name, row in [("zxid", heading), *rows.items()]:
            line = "  ".join(row.get(i, "").ljust(width[i]) for i in columns)
            self.tell(f"{name:5} {line}".rstrip())


def _zab(node: Node) -> Zab:
    core: Any = node.core()
    assert isinstance(core, Zab)
    return core


def _row(zab: Zab) -> dict[int, str]:
    """Counter → what `log` shows of it."""
    history = zab.history
    row = {history.offset: "snapshot"} if history.offset else {}
    for entry in history.between(history.offset, history.last_index):
        mark = "✓" if entry.index <= zab.commit_index else ""
        row[entry.index] = f"{entry.term} {entry.command.decode()}{mark}"
    return row


COMMANDS = ZabInterpreter.commands()
