"""The interpreter of the golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `ViewstampedInterpreter`. (A node's core stands in its field `raft`, as that one calls it.)
"""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

from services.protocols.core import Entry
from services.protocols.viewstamped import Limits, Status, Viewstamped
from tests.protocols.raft.transcript import Interpreter, Node, StoryError
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
        return Viewstamped(
            node.name,
            tuple(peer for peer in self.nodes if peer != node.name),
            random=Random(f"{node.name}/{node.starts}"),
            nonce=1000 * int(node.name[1:]) + 100 * node.starts,
            records=deepcopy(node.records),
            limits=self.limits,
            **self.options,
        )

    def _check_records(self, node: Node) -> None:
        """What a restart would find is what the replica is now; unless it still recovers."""
        found, core = self._core(node), _core(node)
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
        given = {name: int(value) for name, _, value in (o.partition("=") for o in options)}
        limits = {name: given.pop(name) for name in list(given) if name in Limits.__slots__}
        self.options, self.limits = given, Limits(**limits)
        self.nodes = {name: Node(name) for name in (f"n{i + 1}" for i in range(int(count)))}
        for node in self.nodes.values():
            self.start(node)
        for node in self.nodes.values():
            self.carry_out(node)

    def do_found(self, count: str, *options: str) -> None:
        """`found 3`: nodes that have founded a group; n1 leads view 2."""
        start = len(self.trace)
        self.do_add_nodes(count, *options)
        self.do_stabilize()
        self.trace[start:] = [f"{' '.join(self.nodes)}: view 2, led by n1"]
        assert _core(self.nodes["n1"]).leading

    def do_wipe(self, name: str) -> None:
        """`wipe n1`: it is down, and what it had persisted is gone."""
        self.do_crash(name)
        self.nodes[name].records = []
        self.trace[-1] += ", its disk is wiped"

    def do_restart(self, name: str) -> None:
        """`restart n1`: a new core from the records, in their order."""
        node = self.node(name)
        if node.raft:
            raise StoryError(f"{name} is not down")
        self.start(node)
        core = _core(node)
        if core.status_ is not Status.RECOVERING:
            self.tell(f"{name} restarts: view {core.view}, log ends {_last(core)}")
        self.carry_out(node)

    def do_suspect(self, *names: str) -> None:
        """`suspect n2 n3`: their timers run out now."""
        for name in names:
            core = _core(self.node(name))
            core.suspect("no primary heard for an election timeout")
            self.carry_out(self.nodes[name])

    def do_status(self, *names: str) -> None:
        """`status`, `status n1`: what a replica is, and the state of its state machine."""
        for node in [self.node(name) for name in names] or list(self.nodes.values()):
            if node.raft is None:
                self.tell(f"{node.name} down")
                continue
            core = _core(node)
            lease = ", holds a lease" if core.has_lease() else ""
            self.tell(
                f"{node.name} {core.status()['role']:11} view {core.view}, v' "
                f"{core.last_normal_view}, log ends {_last(core)}, committed "
                f"{core.commit_number}{lives_text(core.lives)}: {node.store}{lease}"
            )

    def do_log(self, *names: str) -> None:
        """`log`, `log n1 n2`: view and request by op-number; `✓`: committed as far as it knows."""
        nodes = [self.node(name) for name in names] or self.live()
        rows = {node.name: _row(_core(node)) for node in nodes}
        columns = sorted({number for row in rows.values() for number in row})
        heading = {number: str(number) for number in columns}
        cells = [heading, *rows.values()]
        width = {i: max(len(row.get(i, "")) for row in cells) for i in columns}
        for name, row in [("n", heading), *rows.items()]:
            line = "  ".join(row.get(i, "").ljust(width[i]) for i in columns)
            self.tell(f"{name:5} {line}".rstrip())


def _core(node: Node) -> Viewstamped:
    core: Any = node.core()
    assert isinstance(core, Viewstamped)
    return core


def _last(core: Viewstamped) -> str:
    return f"{core.log.last_index}/{core.log.last_term}"


def _row(core: Viewstamped) -> dict[int, str]:
    """Op-number → what `log` shows of it."""
    log = core.log
    row = {log.offset: "checkpoint"} if log.offset else {}
    for entry in log.between(log.offset, log.last_index):
        mark = "✓" if entry.index <= core.commit_number else ""
        row[entry.index] = f"{entry.term} {entry.command.decode()}{mark}"
    return row


COMMANDS = ViewstampedInterpreter.commands()
