"""A cluster of protocol cores in one thread: simulated network, disks, clocks and crashes.

Nothing here knows Raft: any `services.protocols.core.Core` runs in it. Everything happens in one
queue of events, in virtual milliseconds, and every choice comes from one `Random`: the same seed
gives the same run.

The simulated driver does what `services/chassis/driver.py` must do: persist, send, apply, reply.
A crash can strike between steps or inside one: before the write (when the messages that may go
early are out, or some of them), in the middle of it (a prefix of the records stays), after it and
before the messages, or with only some of them sent.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from services.protocols.core import Core, Entry, Event, ReadGrant, ReadRefusal, Ready, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

Link = tuple[str, str]


class Violation(AssertionError):
    """An invariant does not hold; `invariant` is its name, for a report to begin with."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


class Trace:
    """What happened, line by line: a digest of all lines, and the last ones for a reader."""

    def __init__(self, kept: int = 60) -> None:
        self.lines: deque[str] = deque(maxlen=kept)
        self._digest = sha256()

    def add(self, line: str) -> None:
        self.lines.append(line)
        self._digest.update(line.encode() + b"\n")

    def digest(self) -> str:
        return self._digest.hexdigest()


@dataclass(slots=True)
class Weather:
    """How the network treats a message, wherever it goes."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_ms: tuple[int, int] = (1, 5)
    straggler: float = 0.0  # the chance that it takes ten times as long (and is overtaken)


class Disk:
    """What a node has written. Only what was synced is sure to survive a crash."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.unsynced: list[list[Any]] = []  # one list per write

    def write(self, records: list[Any]) -> None:
        if records:
            self.unsynced.append(records)

    def sync(self) -> None:
        for records in self.unsynced:
            self._append(records)
        self.unsynced.clear()

    def crash(self, random: Random) -> None:
        """Of what was not synced a prefix may have reached the platter."""
        unsynced, self.unsynced = self.unsynced, []
        for records in unsynced:
            if any(isinstance(record, Snapshot) for record in records):
                if random.random() < 0.5:  # a new file takes the old one's place, or does not
                    return
                self._append(records)
                continue
            kept = random.randrange(len(records) + 1)
            self._append(records[:kept])
            if kept < len(records):
                return

    def _append(self, records: list[Any]) -> None:
        for record in records:
            if isinstance(record, Snapshot):
                self.records.clear()
            self.records.append(record)


class Machine:
    """The replicated state machine: keys to values; a command is `key=value`."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.applied_index = 0

    def apply(self, entry: Entry) -> None:
        if entry.index != self.applied_index + 1:
            raise Violation(
                "state-machine safety", f"{entry} is applied after index {self.applied_index}"
            )
        self.applied_index = entry.index
        if entry.command:
            key, _, value = entry.command.decode().partition("=")
            self.values[key] = value

    def snapshot(self) -> bytes:
        return json.dumps(self.values, sort_keys=True).encode()

    def restore(self, snapshot: Snapshot) -> None:
        self.values = json.loads(snapshot.data)
        self.applied_index = snapshot.last_index


class Node:
    """A server: its disk lives as long as the run, core and state machine until a crash."""

    def __init__(self, name: str, tick_ms: float) -> None:
        self.name = name
        self.tick_ms = tick_ms  # its own clock: a fast one ticks more often
        self.disk = Disk()
        self.up = False
        self.incarnation = 0
        self.doomed = False  # crashes inside its next step that has something to persist or send
        self.paused = False
        self.missed: list[Any] = []  # messages, and None for a tick, of the time it was paused
        self.core: Core
        self.machine: Machine


class Observer(Protocol):
    """Asserts what must hold of the whole cluster. Called after every step."""

    def started(self, node: Node) -> None: ...

    def stepped(self, node: Node, ready: Ready) -> None:
        """The records of `ready` are persisted; nothing has been sent or applied yet."""
        ...

    def applied(self, node: Node, entry: Entry) -> None: ...

    def restored(self, node: Node, snapshot: Snapshot) -> None: ...


class Replies(Protocol):
    """Where answers to clients go."""

    def committed(self, node: Node, entry: Entry) -> None: ...

    def read_answered(self, node: Node, answer: ReadGrant | ReadRefusal) -> None: ...


class Cluster:
    """Nodes, network and time."""

    def __init__(
        self,
        tick_ms: dict[str, float],
        make_core: Callable[[str, tuple[str, ...], list[Any]], Core],
        *,
        random: Random,
        weather: Weather,
        observer: Observer,
        replies: Replies,
        compact_every: int = 0,
        persist_before_send: bool = True,
        trace: Trace | None = None,
        make_machine: Callable[[], Machine] = Machine,
    ) -> None:
        self.now_ms = 0
        self.steps = 0
        self.random = random
        self.weather = weather
        self.cut: dict[Link, None] = {}  # an ordered set: the order of a set of str is chance
        self.compact_every = compact_every
        self.persist_before_send = persist_before_send
        self.on_event: Callable[[Node, Event], None] | None = None
        self.on_ready: Callable[[Node, Ready], None] | None = None
        self.trace = trace
        self._make_core = make_core
        self._make_machine = make_machine
        self._observer = observer
        self._replies = replies
        # By the millisecond in which it is due, in the order in which it was asked for.
        self._due: dict[int, list[tuple[Callable[..., None], tuple[Any, ...]]]] = defaultdict(list)
        self.nodes = {name: Node(name, period) for name, period in tick_ms.items()}
        self.names = list(self.nodes)
        for node in self.nodes.values():
            self.start(node)

    # ---- time -------------------------------------------------------------------------------

    def after(self, delay_ms: int, action: Callable[..., None], *arguments: Any) -> None:
        self._due[self.now_ms + delay_ms].append((action, arguments))

    def run(self, until_ms: int) -> None:
        due = self._due
        for now_ms in range(self.now_ms, until_ms + 1):
            if now_ms in due:
                self.now_ms = now_ms
                for action, arguments in due[now_ms]:  # which may grow meanwhile
                    action(*arguments)
                del due[now_ms]
        self.now_ms = until_ms

    def _tick(self, node: Node, incarnation: int, due_ms: float) -> None:
        if node.incarnation != incarnation:
            return
        due_ms += node.tick_ms
        next_ms = max(self.now_ms, round(due_ms))
        self._due[next_ms].append((self._tick, (node, incarnation, due_ms)))
        if node.paused:
            node.missed.append(None)
            return
        node.core.tick()
        self._carry_out(node)

    # ---- servers ----------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        if node.up:
            return
        node.up, node.doomed, node.paused = True, False, False
        node.missed.clear()
        node.incarnation += 1
        peers = tuple(name for name in self.names if name != node.name)
        try:
            node.core = self._make_core(node.name, peers, list(node.disk.records))
        except (ValueError, AssertionError) as error:
            raise Violation("durability", f"{node.name} cannot restart: {error}") from error
        node.machine = self._make_machine()
        self.tell(node, "starts", len(node.disk.records))
        self._observer.started(node)
        self._carry_out(node)
        if not node.up:
            return  # it crashed in its very first step, and does not tick
        due_ms = self.now_ms + self.random.random() * node.tick_ms
        self.after(round(due_ms) - self.now_ms, self._tick, node, node.incarnation, due_ms)

    def crash(self, node: Node) -> None:
        if not node.up:
            return
        self.tell(node, "crashes")
        node.up = node.paused = False  # a paused process that is killed never resumes
        node.missed.clear()
        node.incarnation += 1
        node.disk.crash(self.random)

    def pause(self, node: Node) -> None:
        """As SIGSTOP: it does nothing, and its clock goes on."""
        if node.up:
            self.tell(node, "is paused")
            node.paused = True

    def resume(self, node: Node) -> None:
        """A driver that wakes up first counts the ticks that it missed, then reads its mail.

        (A lease is counted in ticks: whoever answered from it first would trust a stopped clock.)
        """
        if not node.paused:
            return
        self.tell(node, "resumes")
        node.paused = False
        incarnation, missed, node.missed = node.incarnation, node.missed, []
        for message in sorted(missed, key=lambda message: message is not None):
            if node.incarnation != incarnation:
                return
            if message is None:
                node.core.tick()
            else:
                node.core.step(message)
            self._carry_out(node)

    def input(self, node: Node, action: Callable[[Core], Any]) -> Any:
        """Something from outside, such as a proposal. Returns or raises what `action` does."""
        assert node.up, node.name
        assert not node.paused, node.name
        try:
            return action(node.core)
        finally:
            self._carry_out(node)

    def _carry_out(self, node: Node) -> None:
        """Persist, send, apply, reply (or the mistaken order, when that is what is tested)."""
        self.steps += 1
        ready = node.core.ready()
        if not ready:
            return
        for event in ready.events:
            self.tell(node, event.name, event.fields)
            if self.on_event is not None:
                self.on_event(node, event)
        if self.on_ready is not None:
            self.on_ready(node, ready)
        if node.doomed and (ready.persist or ready.messages):
            self._crash_inside(node, ready)
            return
        # (The `early` messages take a millisecond at least: for them to leave before the write or
        # behind it is the same, unless the node crashes in it.)
        if self.persist_before_send:
            if ready.persist:
                node.disk.write(ready.persist)
                node.disk.sync()
        else:
            if self.random.random() < 0.1:
                node.disk.sync()  # every now and then, as the operating system does by itself
            node.disk.write(ready.persist)
        self._observer.stepped(node, ready)
        self._send(ready.messages)
        self._apply(node, ready)

    def _crash_inside(self, node: Node, ready: Ready) -> None:
        node.disk.write(ready.persist)
        sent = self.random.randrange(len(ready.messages) + 1) if self.random.random() < 0.6 else -1
        if sent >= 0:
            if self.persist_before_send:
                node.disk.sync()
                self._observer.stepped(node, ready)
            self._send(ready.messages[:sent])
        elif early := getattr(ready, "early", 0):  # a core may do without
            self._send(ready.messages[: self.random.randrange(early + 1)])
        self.crash(node)

    def _apply(self, node: Node, ready: Ready) -> None:
        machine = node.machine
        if ready.restore is not None:
            machine.restore(ready.restore)
            self._observer.restored(node, ready.restore)
        for entry in ready.committed:
            machine.apply(entry)
            self._observer.applied(node, entry)
            self._replies.committed(node, entry)
        for answer in ready.reads:
            self._replies.read_answered(node, answer)
        if self.compact_every and ready.committed:
            index = machine.applied_index
            if index // self.compact_every > (index - len(ready.committed)) // self.compact_every:
                node.core.compact(index, machine.snapshot())
                self._carry_out(node)

    # ---- network ----------------------------------------------------------------------------

    def _send(self, messages: list[Any]) -> None:
        chance, weather = self.random.random, self.weather
        for message in messages:
            if (self.cut and (message.src, message.dst) in self.cut) or chance() < weather.loss:
                continue
            self._travel(message)
            if chance() < weather.duplicate:
                self._travel(message)

    def _travel(self, message: Any) -> None:
        chance, weather = self.random.random, self.weather
        low, high = weather.delay_ms
        delay_ms = low + int(chance() * (high - low + 1))
        if chance() < weather.straggler:
            delay_ms *= 10
        self._due[self.now_ms + delay_ms].append((self._deliver, (message,)))

    def _deliver(self, message: Any) -> None:
        node = self.nodes[message.dst]
        if not node.up or (self.cut and (message.src, message.dst) in self.cut):
            return
        if node.paused:
            node.missed.append(message)
            return
        if self.trace is not None:
            self.tell(node, "receives", message)
        node.core.step(message)
        self._carry_out(node)

    # ---- story ------------------------------------------------------------------------------

    def tell(self, node: Node | None, *words: Any) -> None:
        if self.trace is not None:
            who = node.name if node else "nemesis"
            self.trace.add(f"{self.now_ms:6} {who:8}" + " ".join(str(word) for word in words))
