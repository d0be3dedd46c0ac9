"""The interpreter of the golden transcripts in `testdata/`: a cluster that does what a story says.

A transcript is read top to bottom: comments (`#`), then blocks of one or more commands, a line
`----`, and the trace of what they did, up to the next empty line:

    # The election timer of n1 runs out.
    campaign n1
    ----
    n1 becomes pre-candidate, still in term 0
    n1 → n2 RequestPreVote term 1, log ends 0/0

A line of a trace may end in two spaces and a `# remark`; `--rewrite` keeps both kinds of comment.
Commands are the methods `do_<command>` of `Interpreter`; their docstrings are the manual. `x=5`
sets a key, `x+=1` adds to it, `k7:x+=1` does so at most once for the idempotency key k7.

Nothing happens by itself: no time passes but by `tick` and `run`, no message arrives but by
`deliver`, `stabilize` and `run`. Each node's `Ready` is carried out at once and as a whole, in its
order; the trace puts the events first, as the reason for the rest.

After every command the invariants of figure 3 are checked over the whole cluster.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import getmembers, isfunction
from random import Random
from typing import Any

from services.protocols.core import Busy, Entry, NotLeader, ReadGrant, Ready, Snapshot
from services.protocols.log import Log
from services.protocols.raft import Limits, Raft
from services.protocols.raft.messages import HardState
from services.protocols.sessions import SessionTable
from tests.protocols.raft.invariants import Invariants
from tests.protocols.raft.trace import (
    entries_text,
    entry_text,
    event_text,
    kind,
    message_text,
    records_text,
)

STABILIZE_MESSAGES_MAX = 1_000


class StoryError(Exception):
    """What is wrong with one command; `run` adds where."""


# ---- the state machine ----------------------------------------------------------------------


class Store:
    """Integers by name, and the idempotency keys (Raft §8)."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.sessions = SessionTable(capacity=8)

    def apply(self, command: str) -> str:
        """Carry out one command; what the trace adds to it."""
        key, _, operation = command.rpartition(":")
        if key:
            reply = self.sessions.lookup(key, operation)
            if reply is not None:
                return f" (a repetition, answered from the table: {reply})"
        name, _, operand = operation.partition("=")
        if name.endswith("+"):
            name = name[:-1]
            operand = str(int(self.values.get(name, "0")) + int(operand))
        self.values[name] = operand
        reply = f"{name}={operand}"
        if key:
            self.sessions.record(key, operation, reply)
        return "" if reply == command else f" (now {reply})"

    def to_bytes(self) -> bytes:
        return json.dumps([self.values, self.sessions.to_plain()]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Store:
        store = cls()
        store.values, sessions = json.loads(data)
        store.sessions = SessionTable.from_plain(sessions)
        return store

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in sorted(self.values.items())) or "empty"


# ---- a node and its environment -------------------------------------------------------------


@dataclass
class Node:
    """A core, what it persisted, the state machine it feeds, and the clients that wait at it."""

    name: str
    running: Any = None  # its core; None: it is down
    records: list[Any] = field(default_factory=list)
    store: Store = field(default_factory=Store)
    starts: int = 0
    proposed: dict[int, tuple[int, str]] = field(default_factory=dict)  # index: (term, command)
    reading: dict[int, str] = field(default_factory=dict)  # read id: key

    def core(self) -> Any:
        if self.running is None:
            raise StoryError(f"{self.name} is down")
        return self.running


class Interpreter:
    """Carries out commands; `trace` collects what happens.

    Another protocol's is a subclass that says how to make its core, how to word what the core does,
    what must hold, and which commands there are (tests/protocols/zab/transcript.py).
    """

    core_type: Callable[..., Any] = Raft
    limits_type: Any = Limits
    position = "index"  # what a place in the log is called
    event_text = staticmethod(event_text)
    message_text = staticmethod(message_text)
    records_text = staticmethod(records_text)

    @classmethod
    def commands(cls) -> dict[str, Callable[..., None]]:
        return {
            name.removeprefix("do_").replace("_", "-"): method
            for name, method in getmembers(cls, isfunction)
            if name.startswith("do_")
        }

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.in_flight: list[Any] = []
        self.cuts: set[tuple[str, str]] = set()
        self.trace: list[str] = []
        self.invariants: Any = Invariants()
        self.options: dict[str, int] = {}
        self.limits = self.limits_type()
        self.reads = 0

    def execute(self, line: str) -> None:
        """One command. Raises StoryError, or AssertionError for an invariant."""
        name, *arguments = line.split()
        commands = self.commands()
        if name not in commands:
            raise StoryError(f"no such command: {name}; there are {', '.join(commands)}")
        commands[name](self, *arguments)
        self.invariants.check([node.running for node in self.live()])
        for node in self.live():
            self._check_records(node)

    def _check_records(self, node: Node) -> None:
        """What a restart would find is what the node is now (the persistent state of figure 2)."""
        found, raft = self._core(node), node.core()
        assert (found.term, found.vote) == (raft.term, raft.vote), f"{node.name}: {node.records}"
        ends = found.log.last_index, raft.log.last_index
        after = max(found.log.offset, raft.log.offset)
        logs = [log.between(after, log.last_index) for log in (found.log, raft.log)]
        assert ends[0] == ends[1], f"{node.name}: on disk up to {ends[0]}, in memory {ends[1]}"
        assert logs[0] == logs[1], f"{node.name}: on disk {logs[0]}, in memory {logs[1]}"

    # ---- carrying out what a core decides ---------------------------------------------------

    def tell(self, line: str) -> None:
        self.trace.append(line)

    def node(self, name: str) -> Node:
        if name not in self.nodes:
            raise StoryError(f"no such node: {name}")
        return self.nodes[name]

    def live(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.running]

    def start(self, node: Node) -> None:
        node.starts += 1
        node.running = self._core(node)

    def _core(self, node: Node) -> Any:
        return self.core_type(
            node.name,
            tuple(peer for peer in self.nodes if peer != node.name),
            random=Random(f"{node.name}/{node.starts}"),
            records=deepcopy(node.records),
            limits=self.limits,
            **self.options,
            **self._lots(node),
        )

    def _lots(self, node: Node) -> dict[str, Any]:
        """What else a core is given at each start."""
        return {}

    def carry_out(self, node: Node) -> None:
        """Empty `ready()`, in the order of its fields (services/protocols/core.py)."""
        while ready := node.core().ready():
            for event in ready.events:
                self.tell(f"{node.name} {self.event_text(event)}")
            self._persist(node, ready.persist)
            self._send(ready.messages)
            if ready.restore is not None:
                node.store = Store.from_bytes(ready.restore.data)
                self.tell(f"{node.name} restores its state machine: {node.store}")
                self._answer_unknown(node, ready.restore.last_index)
            self._apply(node, ready.committed)
            self._serve(node, ready)

    def _persist(self, node: Node, records: list[Any]) -> None:
        for record in records:
            if isinstance(record, Snapshot):
                node.records.clear()
            node.records.append(deepcopy(record))
        for line in self.records_text(records):
            self.tell(f"{node.name} persists {line}")

    def _send(self, messages: list[Any]) -> None:
        for message in messages:
            lost = (message.src, message.dst) in self.cuts
            self.tell(self.message_text(message) + (" (lost)" if lost else ""))
            if not lost:
                self.in_flight.append(deepcopy(message))

    def _apply(self, node: Node, entries: list[Entry]) -> None:
        plain: list[Entry] = []  # to be told in one line
        told: list[str] = []
        for entry in entries:
            self.invariants.applied(node.core(), entry)
            effect = node.store.apply(entry.command.decode()) if entry.command else ""
            term, command = node.proposed.pop(entry.index, (entry.term, ""))
            done = "done" if term == entry.term else "overwritten, definitely not done"
            told += [f"{node.name} answers {command}: {done}"] if command else []
            if not effect:
                plain.append(entry)
                continue
            self._tell_applied(node, plain)
            plain = []
            self.tell(f"{node.name} applies {entry_text(entry)}{effect}")
        self._tell_applied(node, plain)
        self.trace += told

    def _tell_applied(self, node: Node, entries: list[Entry]) -> None:
        if entries:
            self.tell(f"{node.name} applies {entries_text(entries)}")

    def _answer_unknown(self, node: Node, upto: int) -> None:
        for index in [index for index in node.proposed if index <= upto]:
            _, command = node.proposed.pop(index)
            self.tell(f"{node.name} answers {command}: may have been done or not")

    def _serve(self, node: Node, ready: Ready) -> None:
        for read in ready.reads:
            key = node.reading.pop(read.read_id)
            if isinstance(read, ReadGrant):
                assert read.index <= node.core().applied_index, (read, node.core().applied_index)
                value = node.store.values.get(key, "nothing")
                self.tell(f"{node.name} grants read {read.read_id} at index {read.index}: ")
                self.trace[-1] += f"{key} is {value}"
            else:
                leader = read.leader or "not known"
                self.tell(f"{node.name} refuses read {read.read_id}: the leader is {leader}")

    def receive(self, message: Any) -> None:
        """One message arrives; what it leads to is indented below it."""
        node = self.node(message.dst)
        line = f"{message.dst} ← {message.src} {kind(message)}"
        if node.running is None:
            self.tell(f"{line}: lost, {node.name} is down")
            return
        self.tell(line)
        start = len(self.trace)
        node.running.step(deepcopy(message))
        self.carry_out(node)
        self.trace[start:] = [f"  {line}" for line in self.trace[start:]]

    def on(self, link: str) -> Callable[[Any], bool]:
        """Does a message travel on `n1->n2` (`*` on either side: any node)?"""
        src, arrow, dst = link.partition("->")
        if not arrow or not {src, dst} - {"*"} <= set(self.nodes):
            raise StoryError(f"not a link: {link}")
        return lambda message: src in ("*", message.src) and dst in ("*", message.dst)

    def take(self, links: tuple[str, ...]) -> list[Any]:
        """The messages in flight on `links`, oldest first; none at all is an error in the story."""
        on = [self.on(link) for link in links or ("*->*",)]
        taken = [message for message in self.in_flight if any(test(message) for test in on)]
        if not taken:
            raise StoryError(f"nothing is in flight on {' '.join(links) or 'any link'}")
        return taken

    def remove(self, messages: list[Any]) -> None:
        gone = {id(message) for message in messages}
        self.in_flight = [message for message in self.in_flight if id(message) not in gone]

    # ---- commands: the cluster --------------------------------------------------------------

    def do_add_nodes(self, count: str, *options: str) -> None:
        """`add-nodes 3 lease_ticks=10 kept_entries=0`: options of Raft and of its Limits."""
        self._add_nodes(int(count), options)
        self.tell(f"{' '.join(self.nodes)} start: followers, term 0, empty logs")

    def _add_nodes(self, count: int, options: tuple[str, ...]) -> None:
        given = {name: int(value) for name, _, value in (o.partition("=") for o in options)}
        bounded = self.limits_type.names()
        limits = {name: given.pop(name) for name in list(given) if name in bounded}
        self.options, self.limits = given, self.limits_type(**limits)
        self.nodes = {name: Node(name) for name in (f"n{i + 1}" for i in range(count))}
        for node in self.nodes.values():
            self.start(node)

    def do_give_log(self, name: str, term: str, *terms: str) -> None:
        """`give-log n1 7 1 1 4`: n1 (`*`: each node) restarts in term 7 with entries of these."""
        for node in self.nodes.values() if name == "*" else [self.node(name)]:
            entries = [Entry(i, int(t), f"x={t}".encode()) for i, t in enumerate(terms, 1)]
            node.records = [HardState(int(term), None), *entries]
            self.start(node)

    def do_crash(self, name: str) -> None:
        """`crash n1`: what it persisted remains."""
        self.node(name).core()
        self.nodes[name] = Node(
            name, None, self.nodes[name].records, Store(), self.nodes[name].starts
        )
        self.tell(f"{name} is down")

    def do_restart(self, name: str) -> None:
        """`restart n1`: a new core from the records, in their order."""
        node = self.node(name)
        if node.running:
            raise StoryError(f"{name} is not down")
        self.start(node)
        if words := self._restarted(node.core()):
            self.tell(f"{name} restarts: {words}")
        self.carry_out(node)

    def _restarted(self, core: Any) -> str:
        """As what it restarts; empty: that is not told."""
        return f"term {core.term}, vote {core.vote or 'none'}, log ends {ends(core.log)}"

    # ---- commands: clients ------------------------------------------------------------------

    def do_propose(self, name: str, *commands: str) -> None:
        """`propose n1 x=1 k7:y+=1`: clients ask for writes, all before n1 sends anything."""
        node = self.node(name)
        for command in commands:
            try:
                index, term = node.core().propose(command.encode())
            except (NotLeader, Busy) as error:
                self.tell(f"{name} refuses {command}: {error}")
                continue
            node.proposed[index] = (term, command)
            self.tell(f"{name} takes {command} as entry {index}/{term}")
        self.carry_out(node)

    def do_read(self, name: str, key: str, how: str = "index") -> None:
        """`read n1 x`, `read n1 x lease`: a client asks for the value of x."""
        node = self.node(name)
        if how not in ("index", "lease"):
            raise StoryError(f"a read is by index or by lease, not by {how}")
        self.reads += 1
        node.reading[self.reads] = key
        self.tell(f"{name} is asked to read {key}: read {self.reads}")
        try:
            node.core().read(self.reads, lease=how == "lease")
        except NotLeader as error:
            del node.reading[self.reads]
            self.tell(f"{name} refuses read {self.reads}: {error}")
        self.carry_out(node)

    # ---- commands: time and decisions -------------------------------------------------------

    def do_campaign(self, name: str) -> None:
        """`campaign n1`: its election timer runs out now."""
        raft = self.node(name).core()
        if raft.leads():
            raise StoryError(f"{name} is the leader")
        raft.campaign()
        self.carry_out(self.nodes[name])

    def do_tick(self, *arguments: str) -> None:
        """`tick n1 n2 20`: their clocks advance in turn; without names, those of all nodes."""
        *names, count = arguments
        nodes = [self.node(name) for name in names] or self.live()
        before = len(self.trace)
        for _ in range(int(count)):
            for node in nodes:
                node.core().tick()
                self.carry_out(node)
        if len(self.trace) == before:
            self.tell("nothing happens")

    def do_run(self, count: str) -> None:
        """`run 20`: all clocks advance, and after each tick all messages arrive."""
        before = len(self.trace)
        for _ in range(int(count)):
            for node in self.live():
                node.core().tick()
                self.carry_out(node)
            self._settle(set(self.nodes))
        if len(self.trace) == before:
            self.tell("nothing happens")

    def do_compact(self, name: str) -> None:
        """`compact n1`: its log goes up to what it has applied, the state machine stays."""
        node = self.node(name)
        data = node.store.to_bytes()
        self.tell(f"{name} compacts its log up to {node.core().applied_index}: {len(data)} bytes")
        node.core().compact(node.core().applied_index, data)
        self.carry_out(node)

    def do_transfer(self, name: str, target: str) -> None:
        """`transfer n1 n2`: an operator asks the leader n1 to hand over to n2."""
        self.node(name).core().transfer_leadership(target)
        self.carry_out(self.nodes[name])

    # ---- commands: the network --------------------------------------------------------------

    def do_deliver(self, *links: str) -> None:
        """`deliver`, `deliver n1->n2 *->n3`: what is in flight now arrives, the oldest first.

        `deliver 3`: and then what that led to, and once more.
        """
        rounds, links = (int(links[0]), links[1:]) if links and links[0].isdigit() else (1, links)
        for _ in range(rounds):
            messages = self.take(links)
            self.remove(messages)
            for message in messages:
                self.receive(message)

    def do_drop(self, *links: str) -> None:
        """`drop`, `drop n1->n2`: what is in flight now is lost."""
        messages = self.take(links)
        self.remove(messages)
        for message in messages:
            self.tell(f"{message.src} → {message.dst} {kind(message)} is lost")

    def do_duplicate(self, *links: str) -> None:
        """`duplicate n1->n2`: what is in flight now will arrive a second time, after the rest."""
        for message in self.take(links):
            self.in_flight.append(deepcopy(message))
            self.tell(f"{message.src} → {message.dst} {kind(message)} is repeated")

    def do_stabilize(self, *names: str) -> None:
        """`stabilize`, `stabilize n1 n2`: deliver (among these) until nothing is in flight."""
        if not self._settle({self.node(name).name for name in names} or set(self.nodes)):
            raise StoryError("nothing is in flight")

    def _settle(self, among: set[str]) -> int:
        for count in range(STABILIZE_MESSAGES_MAX):
            ready = [m for m in self.in_flight if {m.src, m.dst} <= among]
            if not ready:
                return count
            self.remove(ready[:1])
            self.receive(ready[0])
        raise StoryError(f"not stable after {STABILIZE_MESSAGES_MAX} messages")

    def do_partition(self, *arguments: str) -> None:
        """`partition n1 | n2 n3`: from now on nothing passes; what is in flight still arrives."""
        groups = [[self.node(n).name for n in g.split()] for g in " ".join(arguments).split("|")]
        group_of = {name: i for i, group in enumerate(groups) for name in group}
        if set(group_of) != set(self.nodes):
            raise StoryError("each node must be on one side")
        pairs = {(a, b) for a in group_of for b in group_of if group_of[a] != group_of[b]}
        self.cuts |= pairs
        self.tell("nothing passes between " + " and ".join(" ".join(group) for group in groups))

    def do_cut(self, link: str) -> None:
        """`cut n1->n2`: nothing passes that way; the way back is open."""
        self.on(link)
        src, _, dst = link.partition("->")
        names = {"*": tuple(self.nodes)}
        for a in names.get(src, (src,)):
            self.cuts |= {(a, b) for b in names.get(dst, (dst,)) if a != b}
        self.tell(f"nothing passes from {src} to {dst}")

    def do_heal(self) -> None:
        """`heal`: all links pass messages again."""
        self.cuts.clear()
        self.tell("everything passes")

    # ---- commands: looking ------------------------------------------------------------------

    def do_quietly(self, *command: str) -> None:
        """`quietly stabilize`: the trace of a command is only counted."""
        start = len(self.trace)
        self.execute(" ".join(command))
        count = len(self.trace) - start
        self.trace[start:] = [f"… {count} line{'s' * (count != 1)}"]

    def do_status(self, *names: str) -> None:
        """`status`, `status n1`: what a node is, and the state of its state machine."""
        for node in [self.node(name) for name in names] or list(self.nodes.values()):
            if node.running is None:
                self.tell(f"{node.name} down")
            else:
                self.tell(f"{node.name} {self._status(node.running, node.store)}")

    def _status(self, core: Any, store: Store) -> str:
        lease = ", holds a lease" if core.has_lease() else ""
        return (
            f"{core.role.value:13} term {core.term}, vote {core.vote or 'none'}, leader "
            f"{core.leader or 'not known'}, log ends {ends(core.log)}, committed "
            f"{core.commit_index}: {store}{lease}"
        )

    def do_log(self, *names: str) -> None:
        """`log`, `log n1 n2`: term and command by index; `✓` is committed as far as it knows."""
        nodes = [self.node(name) for name in names] or self.live()
        rows = {node.name: self._row(node.core()) for node in nodes}
        last = max((index for row in rows.values() for index in row), default=0)
        columns = range(min((i for row in rows.values() for i in row), default=1), last + 1)
        heading = {index: str(index) for index in columns}
        cells = [heading, *rows.values()]
        width = {i: max(len(row.get(i, "")) for row in cells) for i in columns}
        for name, row in [(self.position, heading), *rows.items()]:
            line = "  ".join(row.get(i, "").ljust(width[i]) for i in columns)
            self.tell(f"{name:5} {line}".rstrip())

    def _row(self, core: Any) -> dict[int, str]:
        """Position → what `log` shows of it."""
        return row(core.log, core.commit_index)


def ends(log: Log) -> str:
    return f"{log.last_index}/{log.last_term}"


def row(log: Log, committed: int, *, before: str = "snapshot") -> dict[int, str]:
    cells = {log.offset: before} if log.offset else {}
    for entry in log.between(log.offset, log.last_index):
        mark = "✓" if entry.index <= committed else ""
        cells[entry.index] = f"{entry.term} {entry.command.decode() or 'no-op'}{mark}"
    return cells


COMMANDS = Interpreter.commands()
