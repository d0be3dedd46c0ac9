"""The interpreter of the golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `ChainInterpreter`. (A node's core stands in its field `raft`, as that one calls it.)
"""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

from services.protocols import raft
from services.protocols.chain import Chain, Limits
from services.protocols.core import Entry
from tests.protocols.chain.trace import chain_text, event_text, message_text, records_text
from tests.protocols.raft.transcript import Interpreter, Node, Store, StoryError


class Invariants:
    """§3, over all that any server ever held or applied."""

    def __init__(self) -> None:
        self._chains: dict[int, Any] = {}
        self._entries: dict[tuple[int, int], tuple[int | None, bytes]] = {}
        self._applied: dict[int, tuple[Entry, int]] = {}  # and the epoch it was acknowledged in

    def applied(self, core: Chain, entry: Entry) -> None:
        first, _ = self._applied.setdefault(entry.index, (entry, core.epoch))
        assert first == entry, f"{core.node} applies {entry}, not {first}"

    def check(self, cores: list[Chain]) -> None:
        by_name = {core.node: core for core in cores}
        for core in cores:
            core.check_invariants()
            known = self._chains.setdefault(core.epoch, core.config)
            assert known == core.config, f"{core.node} is in {core.config}, another in {known}"
            for entry in core.log.between(core.log.offset, core.log.last_index):
                here = (core.log.term(entry.index - 1), entry.command)
                first = self._entries.setdefault((entry.index, entry.term), here)
                assert here == first, f"log matching: {core.node}: {entry} after {here[0]}: {first}"
            before = by_name.get(core.upstream or "")
            if core.in_chain and before is not None and before.epoch == core.epoch:
                last = core.verified
                has = before.log.term(last), core.log.term(last)
                assert has[0] == has[1] or None in has, f"{before.node} → {core.node}: {has}"
            if core.in_chain and core.node not in core.config.joining:
                for entry, epoch in self._applied.values():
                    lacks = core.log.term(entry.index) not in (None, entry.term)
                    assert not (lacks and epoch < core.epoch), f"{core.node} lacks {entry}"


class ChainInterpreter(Interpreter):
    """Commands that this protocol does not have, or no story needs, are None."""

    event_text = staticmethod(event_text)
    message_text = staticmethod(message_text)
    records_text = staticmethod(records_text)
    do_give_log = None
    do_campaign = None
    do_transfer = None
    do_duplicate = None
    do_tick = None
    do_cut = None
    do_drop = None

    def __init__(self) -> None:
        super().__init__()
        self.invariants: Any = Invariants()
        self.limits: Any = Limits()

    def _core(self, node: Node) -> Any:
        return Chain(
            node.name,
            tuple(peer for peer in self.nodes if peer != node.name),
            random=Random(f"{node.name}/{node.starts}"),
            records=deepcopy(node.records),
            limits=self.limits,
            **self.options,
        )

    def _check_records(self, node: Node) -> None:
        """What a restart would find is what the server is now."""
        found, core = self._core(node), _core(node)
        assert found.config == core.config, f"{node.name}: {node.records}"
        after = max(found.log.offset, core.log.offset)
        logs = [log.between(after, log.last_index) for log in (found.log, core.log)]
        assert logs[0] == logs[1], f"{node.name}: on disk {logs[0]}, in memory {logs[1]}"

    # ---- the master's talk is not told ----------------------------------------------------------

    def tell(self, line: str) -> None:
        """All but events without words."""
        if line.partition(" ")[2]:
            self.trace.append(line)

    def _send(self, messages: list[Any]) -> None:
        for message in messages:
            if type(message) not in raft.MESSAGES:
                super()._send([message])
            elif (message.src, message.dst) not in self.cuts:
                self.in_flight.append(deepcopy(message))

    def receive(self, message: Any) -> None:
        if type(message) not in raft.MESSAGES:
            super().receive(message)
            return
        node = self.node(message.dst)
        if node.raft is not None:
            node.raft.step(deepcopy(message))
            self.carry_out(node)

    # ---- commands -------------------------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 kept_entries=0`: a chain of all, in which nothing was written yet. The
        master is the second."""
        given = {name: int(value) for name, _, value in (o.partition("=") for o in options)}
        self.limits = Limits(**given)
        self.nodes = {name: Node(name) for name in (f"n{i + 1}" for i in range(int(count)))}
        for node in self.nodes.values():
            self.start(node)
        second = self.node("n2")
        _core(second).master.campaign()
        self.carry_out(second)
        self._settle(set(self.nodes))
        start = len(self.trace)
        for _ in range(10):
            self.do_run("1")
        core = _core(second)
        assert {_core(node).epoch for node in self.live()} == {core.epoch}
        self.trace[start:] = [
            f"epoch {core.epoch}: {chain_text(core.config.chain)}; the logs are empty"
        ]

    def do_crash(self, name: str) -> None:
        """`crash n1`: what it persisted remains."""
        node = self.node(name)
        node.core()
        self.nodes[name] = Node(name, None, node.records, Store(), node.starts)
        self.tell(f"{name} is down")

    def do_restart(self, name: str) -> None:
        """`restart n1`: a new core from the records, in their order."""
        node = self.node(name)
        if node.raft:
            raise StoryError(f"{name} is not down")
        self.start(node)
        core = _core(node)
        self.tell(
            f"{name} restarts: epoch {core.epoch}, log ends "
            f"{core.log.last_index}/{core.log.last_term}"
        )
        self.carry_out(node)

    def do_status(self, *names: str) -> None:
        """`status`, `status n1`: what a server is, and the state of its state machine."""
        for node in [self.node(name) for name in names] or list(self.nodes.values()):
            if node.raft is None:
                self.tell(f"{node.name} down")
                continue
            core = _core(node)
            master = ", the master" if core.master.leader == node.name else ""
            self.tell(
                f"{node.name} {core.role:7} epoch {core.epoch}, log ends {core.log.last_index}/"
                f"{core.log.last_term}, stable {core.commit_index}: {node.store}{master}"
            )

    def do_log(self, *names: str) -> None:
        """`log`, `log n1 n2`: epoch and update by index; `✓` is stable as far as it knows."""
        nodes = [self.node(name) for name in names] or self.live()
        rows = {node.name: _row(_core(node)) for node in nodes}
        columns = sorted({index for row in rows.values() for index in row})
        heading = {index: str(index) for index in columns}
        cells = [heading, *rows.values()]
        width = {i: max(len(row.get(i, "")) for row in cells) for i in columns}
        for name, row in [("index", heading), *rows.items()]:
            line = "  ".join(row.get(i, "").ljust(width[i]) for i in columns)
            self.tell(f"{name:5} {line}".rstrip())


def _core(node: Node) -> Chain:
    core: Any = node.core()
    assert isinstance(core, Chain)
    return core


def _row(core: Chain) -> dict[int, str]:
    """Index → what `log` shows of it."""
    log = core.log
    row = {log.offset: "snapshot"} if log.offset else {}
    for entry in log.between(log.offset, log.last_index):
        mark = "✓" if entry.index <= core.commit_index else ""
        row[entry.index] = f"{entry.term} {entry.command.decode()}{mark}"
    return row


COMMANDS = ChainInterpreter.commands()
