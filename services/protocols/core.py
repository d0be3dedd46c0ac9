"""What every protocol core looks like from outside: `propose`, `read`, `step`, `tick`, `ready`.

A core *decides*; it does no I/O and knows neither time nor chance of its own. Time is a count of
`tick()` calls, chance is a `random.Random` that the caller passes in, so that the same inputs give
the same outputs: in simulation, in a local process, in a container.

The caller (`services/chassis/driver.py`, or a simulation) feeds inputs and then empties `ready()`.
A `Ready` is to be carried out **in the order of its fields**:

1. `persist`: every record is on stable storage before anything below happens. A vote that was sent
   and then forgotten in a crash lets the node vote twice in one term: two leaders.
2. `messages`: sent; the network may lose, repeat, delay or reorder them. Only the first `early` of
   them *may* be sent before 1: those that promise nothing about this node's own disk (a leader's
   new entries, on their way to the followers' disks while it writes its own). To send them in
   their turn is as right.
3. `restore`, then `committed`: applied to the state machine in this order.
4. `reads`, and the replies to proposals that `committed` completes.

The core is given no further input until all of a `Ready` is carried out: by the time it counts its
own copy of an entry towards a quorum, that copy is durable.

The shape is that of etcd/raft's `Ready`; records instead of named fields let one storage serve
protocols whose durable state differs (Raft's term and log, Paxos's promised ballot, a view number).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

NodeId = str


@dataclass(slots=True)
class Entry:
    """One position of the replicated log.

    `term` is the protocol's epoch in which it was proposed (Raft's term, a view, a ballot). With
    `index` it names the entry: a proposal is done when *its* (index, term) commits, and was
    overwritten, hence definitely not done, when that index commits with another term (unless the
    core says by `commits_are_final = False` that what was committed may go again).
    An empty `command` is a no-op of the protocol's own and is not applied.
    """

    index: int
    term: int
    command: bytes


@dataclass(slots=True)
class Snapshot:
    """The state machine after `last_index` (of `last_term`), in place of the log up to there."""

    last_index: int
    last_term: int
    data: bytes


@dataclass(slots=True)
class ReadGrant:
    """The read `read_id` may be served from the state machine once `index` has been applied."""

    read_id: int
    index: int


@dataclass(slots=True)
class ReadRefusal:
    """The read `read_id` will not be granted (definite: a read changes nothing). Ask `leader`."""

    read_id: int
    leader: NodeId | None


@dataclass(slots=True)
class Event:
    """A step of the protocol worth telling: goes to the logs, the report and golden transcripts.

    `name` is in the paper's words and snake case (`become_leader`, `grant_vote`, `step_down`).
    """

    name: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Ready:
    """What is to be done now, in the order of the fields (see the module docstring).

    `persist` holds records (dataclasses of the protocol's own; `Snapshot` is one that every
    protocol may use) for the write-ahead log. After a restart the core is built from exactly these
    records in this order. `early` of the `messages`, the first ones, need not wait for that.
    `restore`, when set, replaces the whole state machine first.
    """

    persist: list[Any] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    early: int = 0
    restore: Snapshot | None = None
    committed: list[Entry] = field(default_factory=list)
    reads: list[ReadGrant | ReadRefusal] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.persist
            or self.messages
            or self.restore
            or self.committed
            or self.reads
            or self.events
        )


NOTHING: Final = Ready()
"""Of a core that has nothing to be done, after most ticks; shared by all, so nobody adds to it."""


class NotLeader(Exception):
    """This node does not accept proposals now. Definite: nothing was proposed. Ask `leader`."""

    def __init__(self, leader: NodeId | None) -> None:
        super().__init__(f"not the leader; the leader is {leader or 'not known'}")
        self.leader = leader


class Busy(Exception):
    """Too much is in flight. Definite: nothing was proposed."""


class Core(Protocol):
    """A protocol core. Messages are dataclasses with `src` and `dst` node ids.

    A core's module names its dataclasses for the codec:
    `MESSAGES: tuple[type, ...]` (what travels) and `RECORDS: tuple[type, ...]` (what is persisted).
    """

    node: NodeId

    def propose(self, command: bytes) -> tuple[int, int]:
        """Append `command`; returns the (index, term) to wait for. Raises NotLeader or Busy."""
        ...

    def read(self, read_id: int, *, lease: bool = False) -> None:
        """Ask for a linearizable read; `ready().reads` answers with a grant or a refusal.

        With `lease`, a leader holding a lease grants it with no round trip. Raises NotLeader.
        """
        ...

    def step(self, message: Any) -> None:
        """Take in one message from a peer. Unknown senders and stale messages are ignored."""
        ...

    def tick(self) -> None:
        """One unit of time has passed."""
        ...

    def ready(self) -> Ready:
        """Hand over what is to be done, once; empty (falsy) when there is nothing."""
        ...

    def compact(self, index: int, data: bytes) -> None:
        """The state machine after applying `index` is `data`: the log up to there may go.

        The next `ready()` persists a `Snapshot` record and whatever must survive beside it:
        everything needed to rebuild the core, since storage drops older records (see
        `services/chassis/storage.py`).
        """
        ...

    def status(self) -> dict[str, Any]:
        """For `/status` and the story: at least role, term, leader, commit_index, last_index."""
        ...

    def check_invariants(self) -> None:
        """Raise AssertionError, with the numbers, if the core's own state is impossible."""
        ...
