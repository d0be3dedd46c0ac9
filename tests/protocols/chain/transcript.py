"""The interpreter of the golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `ChainInterpreter`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from services.protocols import raft
from services.protocols.chain import Chain, Limits
from services.protocols.core import Entry
from tests.protocols.chain.trace import chain_text, event_text, message_text, records_text
from tests.protocols.raft.transcript import Interpreter, Node, Store, ends


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

    core_type = Chain
    limits_type = Limits
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
        self.invariants = Invariants()

    def _check_records(self, node: Node) -> None:
        """What a restart would find is what the server is now."""
        found, core = self._core(node), node.core()
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
        if node.running is not None:
            node.running.step(deepcopy(message))
            self.carry_out(node)

    # ---- commands -------------------------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 kept_entries=0`: a chain of all, in which nothing was written yet. The
        master is the second."""
        self._add_nodes(int(count), options)
        second = self.node("n2")
        second.core().master.campaign()
        self.carry_out(second)
        self._settle(set(self.nodes))
        start = len(self.trace)
        for _ in range(10):
            self.do_run("1")
        core = second.core()
        assert {node.core().epoch for node in self.live()} == {core.epoch}
        self.trace[start:] = [
            f"epoch {core.epoch}: {chain_text(core.config.chain)}; the logs are empty"
        ]

    def _restarted(self, core: Any) -> str:
        return f"epoch {core.epoch}, log ends {ends(core.log)}"

    def _status(self, core: Any, store: Store) -> str:
        master = ", the master" if core.master.leader == core.node else ""
        return (
            f"{core.role:7} epoch {core.epoch}, log ends {ends(core.log)}, stable "
            f"{core.commit_index}: {store}{master}"
        )


COMMANDS = ChainInterpreter.commands()
