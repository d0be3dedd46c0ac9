"""The interpreter of Zab's golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `ZabInterpreter`.
"""

from __future__ import annotations

from typing import Any

from services.protocols.core import Entry
from services.protocols.zab import Limits, State, Zab
from services.protocols.zab.messages import Epochs
from tests.protocols.raft.transcript import Interpreter, Node, Store, row
from tests.protocols.zab.invariants import Invariants
from tests.protocols.zab.trace import event_text, message_text, records_text


class ZabInterpreter(Interpreter):
    """Commands that Zab does not have are None."""

    core_type = Zab
    limits_type = Limits
    position = "zxid"
    event_text = staticmethod(event_text)
    message_text = staticmethod(message_text)
    records_text = staticmethod(records_text)
    do_give_log = None
    do_campaign = None
    do_transfer = None
    do_duplicate = None

    def __init__(self) -> None:
        super().__init__()
        self.invariants = Invariants()

    def _check_records(self, node: Node) -> None:
        """What a restart would find is what the node is now."""
        found, zab = self._core(node), node.core()
        epochs = [(each.accepted_epoch, each.current_epoch) for each in (found, zab)]
        assert epochs[0] == epochs[1], f"{node.name}: {node.records}"
        after = max(found.history.offset, zab.history.offset)
        assert found.history.last == zab.history.last, f"{node.name}: {node.records}"
        histories = [h.between(after, h.last_index) for h in (found.history, zab.history)]
        assert histories[0] == histories[1], f"{node.name}: on disk {histories[0]}"

    # ---- commands ---------------------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 kept_entries=0`: options of Zab and of its Limits."""
        self._add_nodes(int(count), options)
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
        last = node.core().history.last
        self.tell(f"{name} has promised {accepted}, accepted {current}, and history up to {last}")

    def _restarted(self, core: Any) -> str:
        epochs = f"acceptedEpoch {core.accepted_epoch}, currentEpoch {core.current_epoch}"
        return f"{epochs}, history ends {core.history.last}"

    def do_elect(self, name: str, *voters: str) -> None:
        """`elect n1 n2`: the election comes out so for these nodes; n1 is to lead, n2 to follow.

        What phase 0 says does not matter to the later phases, so a story may begin there.
        """
        for voter in (name, *voters):
            zab = self.node(voter).core()
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

    def _status(self, core: Any, store: Store) -> str:
        return (
            f"{core.role():9} phase {int(core.phase)}, promised {core.accepted_epoch}, epoch "
            f"{core.current_epoch}, history ends {core.history.last}, committed "
            f"{core.commit_index}: {store}"
        )

    def _row(self, core: Any) -> dict[int, str]:
        return row(core.history, core.commit_index)


COMMANDS = ZabInterpreter.commands()
