"""The interpreter of the golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `ViewstampedInterpreter`.
"""

from __future__ import annotations

from typing import Any

from services.protocols.core import Entry
from services.protocols.viewstamped import Limits, Status, Viewstamped
from tests.protocols.raft.transcript import Interpreter, Node, Store, ends, row
from tests.protocols.viewstamped.trace import event_text, lives_text, message_text, records_text


class Invariants:
    """§8, over all that any replica ever held, applied or led."""

    def __init__(self) -> None:
        self._primaries: dict[int, str] = {}
        self._entries: dict[tuple[int, int], tuple[int | None, bytes]] = {}
        self._applied: dict[int, tuple[Entry, int]] = {}  # and the view it was committed in

    def applied(self, core: Viewstamped, entry: Entry) -> None:
        first, _ = self._applied.setdefault(entry.index, (entry, core.view))
        assert first == entry, f"{core.node} applies {entry}, not {first}"

    def check(self, cores: list[Viewstamped]) -> None:
        for core in cores:
            core.check_invariants()
            log = core.log
            for entry in log.between(log.offset, log.last_index):
                here = (log.term(entry.index - 1), entry.command)
                first = self._entries.setdefault((entry.index, entry.term), here)
                assert here == first, f"log matching: {core.node}: {entry} after {here[0]}: {first}"
            if core.leading:
                known = self._primaries.setdefault(core.view, core.node)
                assert known == core.node, f"{known} and {core.node} lead view {core.view}"
            if core.status_ is Status.NORMAL:
                for entry, view in self._applied.values():
                    lacks = core.view > view and log.term(entry.index) not in (None, entry.term)
                    assert not lacks, f"{core.node} lacks {entry} in view {core.view}"


class ViewstampedInterpreter(Interpreter):
    """Commands that this protocol does not have, or no story needs, are None."""

    core_type = Viewstamped
    limits_type = Limits
    position = "n"
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

    def _lots(self, node: Node) -> dict[str, Any]:
        return {"nonce": 1000 * int(node.name[1:]) + 100 * node.starts}

    def _check_records(self, node: Node) -> None:
        """What a restart would find is what the replica is now; unless it still recovers."""
        found, core = self._core(node), node.core()
        if core.status_ is Status.RECOVERING:
            assert found.status_ is Status.RECOVERING, f"{node.name}: {node.records}"
            return
        here, there = ((c.last_normal_view, c.lives, c.log.last_index) for c in (core, found))
        assert here == there, f"{node.name}: on disk {there}, in memory {here}"
        after = max(found.log.offset, core.log.offset)
        assert found.log.between(after, found.log.last_index) == core.log.between(
            after, core.log.last_index
        )

    # ---- commands ---------------------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 kept_entries=0`: options of Viewstamped and of its Limits."""
        self._add_nodes(int(count), options)
        for node in self.nodes.values():
            self.carry_out(node)

    def do_found(self, count: str, *options: str) -> None:
        """`found 3`: nodes that have founded a group; n1 leads view 2."""
        start = len(self.trace)
        self.do_add_nodes(count, *options)
        self.do_stabilize()
        self.trace[start:] = [f"{' '.join(self.nodes)}: view 2, led by n1"]
        assert self.nodes["n1"].core().leading

    def do_wipe(self, name: str) -> None:
        """`wipe n1`: it is down, and what it had persisted is gone."""
        self.do_crash(name)
        self.nodes[name].records = []
        self.trace[-1] += ", its disk is wiped"

    def _restarted(self, core: Any) -> str:
        if core.status_ is Status.RECOVERING:
            return ""  # its events say so
        return f"view {core.view}, log ends {ends(core.log)}"

    def do_suspect(self, *names: str) -> None:
        """`suspect n2 n3`: their timers run out now."""
        for name in names:
            core = self.node(name).core()
            core.suspect("no primary heard for an election timeout")
            self.carry_out(self.nodes[name])

    def _status(self, core: Any, store: Store) -> str:
        lease = ", holds a lease" if core.has_lease() else ""
        return (
            f"{core.status()['role']:11} view {core.view}, v' {core.last_normal_view}, log ends "
            f"{ends(core.log)}, committed {core.commit_number}{lives_text(core.lives)}: "
            f"{store}{lease}"
        )

    def _row(self, core: Any) -> dict[int, str]:
        return row(core.log, core.commit_number, before="checkpoint")


COMMANDS = ViewstampedInterpreter.commands()
