"""The interpreter of gossip's golden transcripts: Raft's, with another core and its words.

How a transcript is written: tests/protocols/raft/transcript.py. What is other here are the methods
of `GossipInterpreter`. (A node's core stands in its field `raft`, as the interpreter calls it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any

from services.protocols.core import Event
from services.protocols.gossip import Gossip
from services.protocols.gossip.messages import (
    Ack,
    Feedback,
    Incarnation,
    Ping,
    PingRequest,
    Rumours,
    Update,
)
from services.protocols.leaderless import Disk
from services.protocols.quorum import Siblings
from services.protocols.quorum.messages import Compare, Differ
from tests.protocols.raft.trace import kind
from tests.protocols.raft.transcript import Interpreter, Node, StoryError


class _Invariants:
    def check(self, cores: list[Any]) -> None:
        """Each core's own; what must hold between nodes, the simulation checks."""
        for core in cores:
            core.check_invariants()


class GossipInterpreter(Interpreter):
    """Commands that have no meaning without a log are None."""

    do_give_log = None
    do_propose = None
    do_read = None
    do_campaign = None
    do_compact = None
    do_transfer = None
    do_log = None
    do_duplicate = None

    def __init__(self) -> None:
        super().__init__()
        self.invariants: Any = _Invariants()
        self.requests = 0

    def _core(self, node: Node) -> Any:
        options: Any = self.options
        return Gossip(
            node.name,
            tuple(peer for peer in self.nodes if peer != node.name),
            random=Random(f"{node.name}/{node.starts}"),
            records=deepcopy(node.records),
            **options,
        )

    def _check_records(self, node: Node) -> None:
        """What a restart would find is what the node is now, in the next incarnation."""
        found, now = self._core(node), _gossip(node)
        assert found.states == now.states, f"{node.name}: {node.records}"
        assert found.membership.incarnation == now.membership.incarnation + 1, node.records

    def carry_out(self, node: Node) -> None:
        """Persist, send, reply; the events first, as the reason for the rest."""
        core: Any = node.core()
        while ready := core.ready():
            for event in ready.events:
                self.tell(f"{node.name} {_event(event)}")
            node.records += deepcopy(ready.persist)
            for line in _records(ready.persist):
                self.tell(f"{node.name} persists {line}")
            for message in ready.messages:
                lost = (message.src, message.dst) in self.cuts
                self.tell(_message(message) + (" (lost)" if lost else ""))
                if not lost:
                    self.in_flight.append(deepcopy(message))
            for reply in ready.replies:
                self.tell(f"{node.name} answers: {_state(reply.state)}")

    # ---- commands ---------------------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 fanout=1`: options of Gossip."""
        self.options = {name: int(value) for name, _, value in (o.partition("=") for o in options)}
        self.nodes = {name: Node(name) for name in (f"n{i + 1}" for i in range(int(count)))}
        for node in self.nodes.values():
            node.records = [Disk(f"{node.name}-disk")]  # none begins with a new one
            self.start(node)
            self.carry_out(node)

    def do_restart(self, name: str) -> None:
        """`restart n1`: a new core from the records."""
        node = self.node(name)
        if node.running:
            raise StoryError(f"{name} is not down")
        self.start(node)
        self.tell(f"{name} restarts")
        self.carry_out(node)

    def do_write(self, name: str, key: str, value: str) -> None:
        """`write n1 x 5`: a client writes; `nothing`: it deletes."""
        self.requests += 1
        data = None if value == "nothing" else value.encode()
        core: Any = self.node(name).core()
        core.write(self.requests, key, data, stamp=self.requests, context={})
        self.carry_out(self.nodes[name])

    def do_status(self, *names: str) -> None:
        """`status`, `status n1`: what a node thinks of the others, and has of each key."""
        for node in [self.node(name) for name in names] or list(self.nodes.values()):
            if node.running is None:
                self.tell(f"{node.name} down")
                continue
            core = _gossip(node)
            views = " ".join(_update(view) for view in core.membership.views.values())
            keys = " ".join(f"{key} is {_state(core.state(key))}" for key in sorted(core.states))
            hot = f"; tells {' '.join(core.mill.hot)}" if core.mill.hot else ""
            self.tell(f"{node.name} sees {views}; {keys or 'no keys'}{hot}")


def _gossip(node: Node) -> Gossip:
    core: Any = node.core()
    assert isinstance(core, Gossip)
    return core


def _update(update: Update) -> str:
    return f"{update.member} {update.status}/{update.incarnation}"


def _updates(updates: list[Update]) -> str:
    return ", ".join(map(_update, updates))


def _state(state: Siblings) -> str:
    values = [each.value.decode() if each.value else "deleted" for each in state.versions]
    return " or ".join(values) or "unknown"


def _records(records: Sequence[Any]) -> list[str]:
    return [
        f"incarnation {each.number}"
        if isinstance(each, Incarnation)
        else f"{each.key} = {_state(each.state)}"
        for each in records
    ]


def _event(event: Event) -> str:
    words = {
        "alive": "takes {member} for alive again, incarnation {incarnation}",
        "suspect": "suspects {member}, incarnation {incarnation}",
        "faulty": "takes {member} for faulty, incarnation {incarnation}",
        "refute": "refutes: it is alive, incarnation {incarnation}",
        "learn": "learns {key} by {how}",
        "anti_entropy": "compares with {peer}: {keys} keys differed",
    }
    return words[event.name].format(**event.fields)


def _message(message: Any) -> str:
    words = f"{message.src} → {message.dst} {kind(message)}"
    match message:
        case Ping():
            return f"{words}: {_updates(message.updates)}"
        case PingRequest():
            return f"{words} {message.target}: {_updates(message.updates)}"
        case Ack():
            return f"{words} of {message.subject}: {_updates(message.updates)}"
        case Rumours():
            told = ", ".join(f"{key} = {_state(state)}" for key, state in message.states)
            return f"{words}: {told or 'none'}" + (", and yours?" if message.pull else "")
        case Feedback():
            return f"{words}: {' '.join(message.known)} known"
        case Compare():
            return f"{words} {len(message.hashes)} hashes"
        case Differ():
            told = ", ".join(f"{key} = {_state(state)}" for key, state in message.states)
            return f"{words}: {told or 'none'}"
    raise AssertionError(message)


COMMANDS = GossipInterpreter.commands()
